"""Second-order systems against float64 loops, closed forms and the recorded programs."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from pspike_jax.functional.multi_input import Blocks, multi_input_ssm
from pspike_jax.functional.oscillator import (
    Oscillators,
    Scheme,
    bounded,
    discretize_oscillators,
    placed_oscillators,
    ring_oscillators,
    uniform_oscillators,
)

DAMPED = [s for s in Scheme if s.damped]
RECORDED = {
    "TK_IM": Scheme.IM,
    "TK_IMEX": Scheme.IMEX,
    "IM": Scheme.IM,
    "IMEX": Scheme.IMEX,
    "DampedIMEX1": Scheme.DAMPED_IMEX1,
    "DampedIMEX2": Scheme.DAMPED_IMEX2,
    "DampedIM": Scheme.DAMPED_IM,
    "DampedEX": Scheme.DAMPED_EX,
}


def peak_error(actual, wanted):
    return np.max(np.abs(np.asarray(actual) - wanted)) / np.max(np.abs(wanted))


def one_step(scheme, z, x, b, A, G, D):
    """Velocity and position after a step, solved from the scheme's own two equations."""
    if scheme is Scheme.IM:  # z' + D A x' = z + D b and x' - D z' = x, by Cramer's rule
        det = 1 + D * D * A
        return (z + D * b - D * A * x) / det, (x + D * (z + D * b)) / det
    if scheme is Scheme.DAMPED_IM:  # z' (1 + DG) = z + D (b - A (x + D z'))
        new = (z + D * (b - A * x)) / (1 + D * G + D * D * A)
        return new, x + D * new
    if scheme is Scheme.ZOH:
        new = np.zeros(z.shape, complex), np.zeros(z.shape, complex)
        for p in range(len(A)):
            rates = np.array([[-G[p], -A[p], 1], [1, 0, 0], [0, 0, 0]])
            at = np.broadcast_to(D, z.shape)[..., p]
            for index in np.ndindex(z.shape[:-1]):
                flow = scipy.linalg.expm(rates * at[index])
                before = np.array([z[index][p], x[index][p], b[index][p]])
                new[0][index][p], new[1][index][p] = (flow @ before)[:2]
        return new
    if scheme is Scheme.DAMPED_IMEX1:
        new = (z + D * (b - A * x)) / (1 + D * G)
        return new, x + D * new
    new = z + D * (b - A * x - G * z)  # IMEX has G = 0
    return new, x + D * (z if scheme is Scheme.DAMPED_EX else new)


def loop(scheme, u, oscillators, B, C, D, *, state=None, dt=None, resets=None):
    """Outputs and final state, step by step in float64."""
    A, G, step = (np.asarray(a, np.float64) for a in oscillators)
    batch, length, _ = u.shape
    z = np.zeros((batch, len(A)), complex)
    x = np.zeros((batch, len(A)), complex)
    if state is not None:
        z, x = np.array(state[..., 0], complex), np.array(state[..., 1], complex)
    y = np.zeros(u.shape)
    for t in range(length):
        if resets is not None:
            z, x = (np.where(resets[:, t, None], 0, a) for a in (z, x))
        drive = u[:, t].astype(np.float64) @ np.asarray(B, complex).T
        now = step if dt is None else step * np.asarray(dt[:, t, None], np.float64)
        z, x = one_step(scheme, z, x, drive, A, G, now)
        y[:, t] = (x @ np.asarray(C, complex).T).real + D * u[:, t]
    return y, np.stack([z, x], axis=-1)


def problem(rng, scheme, length, count=6, features=3, batch=2):
    """A system with eigenvalues well inside, its arrays float32, and an input."""
    r, angle = rng.uniform(0.9, 0.995, count), rng.uniform(0.2, 2.5, count)
    stored = rng.normal(0, 0.5, count)
    arrays = (jnp.float32(a) for a in (r, angle, stored))
    if scheme.damped:
        oscillators = bounded(placed_oscillators(*arrays, scheme), scheme)
    else:
        A = jnp.float32(rng.uniform(0.1, 2, count))
        oscillators = bounded(Oscillators(A, jnp.zeros_like(A), jnp.float32(stored)), scheme)
    B = np.complex64(rng.normal(size=(count, features)) + 1j * rng.normal(size=(count, features)))
    C = np.complex64(rng.normal(size=(features, count)) + 1j * rng.normal(size=(features, count)))
    D = np.float32(rng.normal(size=features))
    u = np.float32(rng.normal(size=(batch, length, features)))
    return u, oscillators, B, C, D


@functools.partial(jax.jit, static_argnames=("scheme", "engine"))
def run(scheme, u, oscillators, B, C, D, *, state=None, dt=None, resets=None, engine):
    dynamics = discretize_oscillators(oscillators, scheme, dt)
    return multi_input_ssm(
        u, dynamics, B, C, D, initial_state=state, resets=resets, engine=engine
    )


@pytest.mark.parametrize("scheme, engine", [
    *((scheme, "chunked") for scheme in Scheme),
    (Scheme.DAMPED_EX, "sequential"),
    (Scheme.DAMPED_IM, "associative"),
])
def test_every_scheme_matches_a_float64_loop_with_states_and_resets(rng, scheme, engine):
    u, *system = problem(rng, scheme, 150)
    state = np.complex64(rng.normal(size=(2, 6, 2)) + 1j * rng.normal(size=(2, 6, 2)))
    resets = rng.random((2, 150)) < 0.03
    y, final = run(scheme, u, *system, state=state, resets=resets, engine=engine)
    wanted, wanted_final = loop(scheme, u, *system, state=state, resets=resets)
    # What the diagonal engines reach; here the rounded transition costs most, below 3e-6.
    assert peak_error(y, wanted) < 1e-5
    assert peak_error(final, wanted_final) < 1e-5


@pytest.mark.parametrize("scheme", [Scheme.DAMPED_IMEX1, Scheme.IM])
def test_engines_agree_on_a_long_sequence_and_its_parts(rng, scheme):
    u, *system = problem(rng, scheme, 1000)
    wanted, wanted_final = loop(scheme, u, *system)
    y, final = run(scheme, u, *system, engine="auto")
    assert peak_error(y, wanted) < 1e-5
    first, state = run(scheme, u[:, :333], *system, engine="chunked")
    second, last = run(scheme, u[:, 333:], *system, state=state, engine="associative")
    assert peak_error(jnp.concatenate([first, second], axis=1), wanted) < 1e-5
    assert peak_error(last, wanted_final) < 1e-5
    assert peak_error(final, wanted_final) < 1e-5


@pytest.mark.parametrize("scheme", [Scheme.ZOH, Scheme.DAMPED_IM, Scheme.IM])
def test_steps_of_different_length_match_a_float64_loop(rng, scheme):
    u, *system = problem(rng, scheme, 40, count=3)
    dt = np.float32(rng.exponential(size=(2, 40)))
    for engine in ("sequential", "associative"):
        y, final = run(scheme, u, *system, dt=dt, engine=engine)
        wanted, wanted_final = loop(scheme, u, *system, dt=dt)
        assert peak_error(y, wanted) < 1e-5
        assert peak_error(final, wanted_final) < 1e-5


def test_zero_order_hold_does_not_depend_on_how_a_constant_drive_is_sampled(rng):
    u, *system = problem(rng, Scheme.ZOH, 12)
    whole, final = run(Scheme.ZOH, u, *system, engine="chunked")
    cuts = np.float32(rng.dirichlet(np.ones(4), size=(2, 12)))  # four pieces of each step
    parts = np.repeat(u, 4, axis=1)
    y, last = run(Scheme.ZOH, parts, *system, dt=cuts.reshape(2, 48), engine="associative")
    # Rounding of 48 transitions instead of 12.
    assert peak_error(y[:, 3::4], whole) < 2e-6
    assert peak_error(last, final) < 2e-6


@pytest.mark.parametrize("A, G, step", [
    (0.0, 0.0, 0.5), (1e-6, 0.0, 1e-3), (0.3, 0.7, 1.0), (0.01, 3.0, 1.0), (400.0, 0.1, 1.0),
    (1.0, 2.0, 0.7), (1.0, 2.000001, 0.7),
])
def test_zero_order_hold_is_the_matrix_exponential(A, G, step):
    values = (jnp.float32([v]) for v in (A, G, step))
    transition, gain = discretize_oscillators(Oscillators(*values), Scheme.ZOH)
    A, G, step = (float(np.float32(v)) for v in (A, G, step))
    rates = np.array([[-G, -A, 1], [1, 0, 0], [0, 0, 0]])
    flow = scipy.linalg.expm(rates * step)
    # 20 radians a step are resolved to 20 rounding errors.
    np.testing.assert_allclose(transition[0], flow[:2, :2], rtol=2e-5, atol=1e-6 * max(1, A**0.5))
    np.testing.assert_allclose(gain[0], flow[:2, 2], rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("scheme", DAMPED)
def test_ring_places_the_eigenvalues_and_the_bounds_leave_them(key, scheme):
    stored = ring_oscillators(key(), 200, scheme, r_min=0.8, theta_min=0.1, theta_max=3.0)
    effective = bounded(stored, scheme)
    np.testing.assert_allclose(effective.A, stored.A, rtol=2e-5)
    np.testing.assert_allclose(effective.G, stored.G, rtol=2e-5, atol=1e-5)
    matrices = np.asarray(discretize_oscillators(effective, scheme).transition, np.float64)
    values = np.linalg.eigvals(matrices)
    values = values[:, 0]
    # A double root amplifies the rounding of its matrix; these stay 0.1 rad away from one.
    assert np.all((np.abs(values) > 0.8 - 1e-5) & (np.abs(values) < 1 + 1e-5))
    assert np.all((np.abs(np.angle(values)) > 0.1 - 1e-4) & (np.abs(np.angle(values)) < 3.0 + 1e-4))
    # Uniform in area: a fifth of the ring's area lies below this radius; 5 standard errors.
    inner = np.sqrt(0.8**2 + 0.2 * (1 - 0.8**2))
    assert abs(np.mean(np.abs(values) < inner) - 0.2) < 5 * np.sqrt(0.16 / 200)


@pytest.mark.parametrize("scheme", [
    Scheme.DAMPED_IMEX1, Scheme.DAMPED_IMEX2, Scheme.DAMPED_IM, Scheme.ZOH,
])
def test_bounds_keep_any_parameters_stable(rng, scheme):
    A, G, step = (jnp.float32(rng.normal(0, s, 500)) for s in (4, 2, 2))
    if scheme is Scheme.DAMPED_IMEX2:
        G = jnp.minimum(G, 1 / jax.nn.sigmoid(step))
    effective = bounded(Oscillators(A, G, step), scheme)
    matrices = np.asarray(discretize_oscillators(effective, scheme).transition, np.float64)
    # At a bound two eigenvalues meet, where they are as wrong as the root of the rounding error.
    assert np.max(np.abs(np.linalg.eigvals(matrices))) < 1 + 2e-3
    assert np.all(np.abs(np.linalg.det(matrices)) < 1 + 1e-5)


def test_overdamped_imex2_is_refused_and_says_which():
    stored = Oscillators(*(jnp.float32(v) for v in ([1, 1], [0.5, 3], [0, 0])))
    with pytest.raises(ValueError, match="step \\* G is above 1: oscillator 1 has 1.5"):
        bounded(stored, Scheme.DAMPED_IMEX2)
    assert np.isnan(jax.jit(bounded, static_argnums=1)(stored, Scheme.DAMPED_IMEX2).A[1])


@pytest.mark.parametrize("scheme", Scheme)
def test_uniform_draws_are_their_own_projection(key, scheme):
    stored = jax.jit(uniform_oscillators, static_argnums=(1, 2))(key(), 70, scheme)
    effective = bounded(stored, scheme)
    np.testing.assert_allclose(effective.A, stored.A, rtol=1e-5)
    np.testing.assert_allclose(effective.G, stored.G, rtol=1e-5)
    assert len(np.unique(stored.A)) == 70
    plain = uniform_oscillators(key(), 70, Scheme.IMEX, step_std=None)
    assert np.all((plain.step >= 0) & (plain.step < 1))


def test_oscillators_refuse_what_does_not_fit(rng):
    u, oscillators, B, C, D = problem(rng, Scheme.IM, 5)
    dynamics = discretize_oscillators(oscillators, Scheme.IM)
    with pytest.raises(ValueError, match="fft"):
        multi_input_ssm(u, dynamics, B, C, engine="fft")
    steps = discretize_oscillators(oscillators, Scheme.IM, np.ones((2, 5), np.float32))
    with pytest.raises(ValueError, match="chunked engine cannot run per-step"):
        multi_input_ssm(u, steps, B, C, engine="chunked")
    with pytest.raises(ValueError, match="gain has shape"):
        multi_input_ssm(u, Blocks(dynamics.transition, dynamics.gain[:3]), B, C)
    with pytest.raises(TypeError, match="bool"):
        multi_input_ssm(u, dynamics, B, C, resets=np.zeros((2, 5), np.int32))
    with pytest.raises(ValueError, match="no damping"):
        ring_oscillators(jax.random.key(0), 3, Scheme.IM)


def complex_of(pairs):
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


@pytest.mark.parametrize("layer, engine", [
    *((layer, "chunked") for layer in RECORDED),
    ("DampedIMEX1", "associative"),
    ("TK_IM", "sequential"),
])
def test_layers_reproduce_the_recorded_outputs_and_gradients(golden, layer, engine):
    arrays = golden("oscillators/linoss_layer_a.npz")
    assert layer in json.loads(str(arrays["meta"]))["layers"]
    scheme = RECORDED[layer]
    params = {
        name.split("/")[-1]: jnp.asarray(value)
        for name, value in arrays.items()
        if name.startswith(f"{layer}/param/")
    }
    step_name = "steps" if "steps" in params else "dt"

    def loss(params, u):
        damping = params.get("G_diag", jnp.zeros_like(params["A_diag"]))
        effective = bounded(Oscillators(params["A_diag"], damping, params[step_name]), scheme)
        y, _ = multi_input_ssm(
            u,
            discretize_oscillators(effective, scheme),
            complex_of(params["B"]),
            complex_of(params["C"]),
            params["D"],
            engine=engine,
        )
        return jnp.sum(arrays["loss_weight"] * y), (y, effective)

    backward = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, (y, effective)), (gradients, u_bar) = backward(params, arrays["input"])
    # The recording's own tolerances; measured here: 8e-7 and 1.4e-5.
    assert peak_error(y, arrays[f"{layer}/output"]) < 1e-5
    assert peak_error(u_bar, arrays[f"{layer}/grad_input"]) < 1e-4
    for name, gradient in gradients.items():
        assert peak_error(gradient, arrays[f"{layer}/grad/{name}"]) < 1e-4, name
    if f"{layer}/effective/A" in arrays:
        np.testing.assert_allclose(effective.A, arrays[f"{layer}/effective/A"], rtol=1e-5)
