"""Signals sampled at uneven times: what the equations' solutions are, in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import pspike_jax
from pspike_jax.data import from_events
from pspike_jax.nn import S5SSM, DiagonalSSM, OscillatorSSM, whole_sequences

LENGTH, FEATURES = 12, 2
MIXERS = {
    "oscillator": OscillatorSSM(FEATURES, 3, "zoh", start="uniform", skip=False),
    "s5": S5SSM(FEATURES, 3, dt_min=0.05, dt_max=0.5, skip=False),
    "diagonal": DiagonalSSM(
        FEATURES, 4, initializer="lin", shared=False, two_sided=False, skip=False, train_B=True,
        dt_min=0.05, dt_max=0.5,
    ),
}


def wide(pairs):
    return np.asarray(pairs, np.float64) @ [1, 1j]


def equation(name, p):
    """Return (rates, drive, readout): x' = rates(x) + drive(u), y = readout(x), time as stored."""
    if name == "oscillator":
        A, G, step = (np.float64(p["oscillators"][key]) for key in ("A", "G", "step"))
        step, B, C = 1 / (1 + np.exp(-step)), wide(p["B"]), wide(p["C"])[0]
        rates = lambda x: np.concatenate([step * (-A * x[3:] - G * x[:3]), step * x[:3]])
        drive = lambda u: np.concatenate([step * (B @ u), np.zeros(3)])
        return 6, rates, drive, lambda x: (C @ x[3:]).real
    step = np.exp(np.float64(p["log_step" if name == "s5" else "log_dt"]))
    if name == "s5":
        Lambda = np.float64(p["Lambda_re"]) + 1j * np.float64(p["Lambda_im"])
        B, C = wide(p["B"]), wide(p["C"])[0]
        return 3, lambda x: step * Lambda * x, lambda u: step * (B @ u), lambda x: 2 * (C @ x).real
    Lambda = -np.exp(np.float64(p["A_real"])) + 1j * np.float64(p["A_imag"])
    B, C, each = wide(p["B"]), wide(p["C"])[0], step[:, None]
    return (
        Lambda.size,
        lambda x: (each * Lambda * x.reshape(Lambda.shape)).ravel(),
        lambda u: (each * B * u[:, None]).ravel(),
        lambda x: 2 * np.sum(C * x.reshape(C.shape), axis=1).real,
    )


@pytest.mark.parametrize("name", MIXERS)
def test_uneven_samples_give_the_solution_of_the_differential_equation(rng, name):
    """Each sample is held over the time before it, whatever that is."""
    u = np.float32(rng.normal(size=(1, LENGTH, FEATURES)))
    dt = np.float32(rng.uniform(0.05, 3, (1, LENGTH)))
    params = nn.meta.unbox(jax.jit(MIXERS[name].init)(jax.random.key(2), u))["params"]
    ctx = whole_sequences(u, dt=jnp.asarray(dt))
    y, _ = jax.jit(lambda p: MIXERS[name].apply({"params": p}, u, None, ctx))(params)
    size, rates, drive, readout = equation(name, params)
    x, expected = np.zeros(size, complex), []
    for t in range(LENGTH):
        push = drive(np.float64(u[0, t]))
        solved = solve_ivp(
            lambda _, x, push=push: rates(x) + push, (0, dt[0, t]), x, rtol=1e-9, atol=1e-11
        )
        x = solved.y[:, -1]
        expected.append(readout(x))
    # A dozen float32 steps; the solver's own error is far smaller.
    np.testing.assert_allclose(y[0], expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_raw_events_reach_the_network_with_the_time_between_them(rng):
    """Lists of events, unbinned; the same events at twice the pace are another input."""
    counts = [9, 14, 12, 20, 16, 11]
    when = [np.sort(rng.uniform(0, 0.5, n)) for n in counts]
    where = [rng.integers(0, 7, n) for n in counts]
    splits = {"train": [0, 1, 2, 3], "validation": [4], "test": [5]}
    task = from_events(when, where, [0, 1, 0, 1, 0, 1], unit="s", num_channels=7, splits=splits)
    model = pspike_jax.create_model("event_ssm", "tiny", **task.model_fields)
    inputs, lengths, _, dt = task.train
    variables = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), inputs))
    apply = jax.jit(lambda dt: model.apply(variables, inputs, lengths, dt=dt)[0])
    slow = apply(100 * dt)
    assert slow.shape == (4, 2) and np.isfinite(slow).all()
    assert np.abs(apply(50 * dt) - slow).max() > 1e-3
