"""Every kind of step over uneven times, beside float64 solutions of the equations it stands for.

A signal is held from each sample to the one before it, or, for impulses, is nothing in between.
Solutions are matrix exponentials of the whole system, one interval after another.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from pspike_jax.functional import discretization, gated, multi_input, oscillator, s5, selective

LENGTH, FEATURES, STATES = 8, 2, 3
POLES = np.array([-0.3 + 1.1j, -0.8 + 0.4j, -0.1 + 2.0j])
STEP = np.array([0.5, 0.8, 0.35])  # time of a mode in one unit of dt
# Weakly damped, so that a solution of either kind oscillates over the intervals.
STIFFNESS, DAMPING = np.array([1.1, 0.7, 1.6]), np.array([0.2, 0.35, 0.1])
SCHEMES = [scheme.value for scheme in oscillator.Scheme if scheme.value != "zoh"]
ORDERS = {"bilinear": 2} | dict.fromkeys((*SCHEMES, "selective", "ssd"), 1)


@pytest.fixture
def signal(rng):
    """Samples (L, F), the time before each, and maps of inputs and outputs, float64."""
    u, dt = rng.normal(size=(LENGTH, FEATURES)), rng.uniform(0.1, 1.5, LENGTH)
    B, C = (rng.normal(size=(2, *shape)) for shape in ((STATES, FEATURES), (FEATURES, STATES)))
    u, dt, B, C = (np.float64(np.float32(a)) for a in (u, dt, B, C))
    return u, dt, B[0] + 1j * B[1], C[0] + 1j * C[1]


def modes(rule, u, dt, B, C):
    """Outputs of three modes."""
    dynamics = s5.discretize_modes(POLES, STEP, rule, jnp.asarray(dt[None], jnp.float32))
    return multi_input.multi_input_ssm(jnp.float32(u[None]), dynamics, B, C)[0][0]


def oscillators(scheme, u, dt, B, C):
    """Outputs of three oscillators."""
    G = DAMPING if oscillator.Scheme(scheme).damped else np.zeros(STATES)
    dynamics = oscillator.discretize_oscillators(
        oscillator.Oscillators(STIFFNESS, G, STEP), scheme, jnp.asarray(dt[None], jnp.float32)
    )
    return multi_input.multi_input_ssm(jnp.float32(u[None]), dynamics, B, C)[0][0]


def by_channel(kind, u, dt, B, C):
    """Outputs of the two selective recurrences, whose B and C are other ones at each sample."""
    step = np.float32(dt[:, None] * STEP[:FEATURES])[None]
    inputs, outputs = (jnp.float32(a[None]) for a in (chosen(u, B), chosen(u, C.T)))
    rates, u = jnp.asarray(POLES.real, jnp.float32), jnp.float32(u[None])
    if kind == "selective":
        rates = jnp.broadcast_to(rates, (FEATURES, STATES))
        return selective.selective_scan(u, jnp.asarray(step), rates, inputs, outputs)[0][0]
    heads = lambda a: jnp.broadcast_to(a[:, :, None], (1, len(dt), FEATURES, STATES))
    found, _ = selective.ssd_scan(
        u[..., None], jnp.asarray(step), rates[:FEATURES], heads(inputs), heads(outputs)
    )
    return found[0, :, :, 0]


def chosen(u, matrix):
    """A row of STATES numbers for each sample."""
    return np.sin(u @ matrix.real.T)


def run(kind, u, dt, B, C, parts=1, steps=1):
    """Outputs at the samples, each interval in equal parts under one sample, and no time after.

    Steps that take no time leave states as they are; so all numbers of parts are one program.
    """
    u, share = np.repeat(u, steps, axis=0), np.arange(steps) < parts
    dt = (dt[:, None] * share / parts).ravel()
    if kind in ("selective", "ssd"):
        found = by_channel(kind, u, dt, B, C)
    else:
        found = (oscillators if kind in (*SCHEMES, "zoh oscillators") else modes)(
            kind.split()[0], u, dt, B, C
        )
    return np.float64(found)[steps - 1 :: steps]


def solution(kind, u, dt, B, C):
    """The same in float64, by exponentials of matrices."""
    outputs = []
    if kind in ("selective", "ssd"):
        x = np.zeros((FEATURES, STATES))
        rates = POLES.real[None] if kind == "selective" else POLES.real[:FEATURES, None]
        rates = np.broadcast_to(rates, x.shape) * STEP[:FEATURES, None]
        for sample, time, enters, reads in zip(u, dt, chosen(u, B), chosen(u, C.T)):
            push = STEP[:FEATURES, None] * sample[:, None] * enters
            x = held(np.diag(rates.ravel()), push.ravel(), x.ravel(), time).reshape(x.shape)
            outputs.append(x @ reads)
        return np.array(outputs)
    if kind in ("zoh", "bilinear"):
        matrix, enters, read = np.diag(STEP * POLES), STEP[:, None] * B, C
    else:
        G = 0 * DAMPING if kind in ("im", "imex") else DAMPING
        S, nothing = np.diag(STEP), np.zeros((STATES, STATES))
        matrix = np.block([[-S * G, -S * STIFFNESS], [S, nothing]])
        enters, read = np.vstack([S @ B, 0 * B]), np.hstack([0 * C, C])
    x = np.zeros(len(matrix), complex)
    for sample, time in zip(u, dt):
        x = held(matrix, enters @ sample, x, time)
        outputs.append((read @ x).real)
    return np.array(outputs)


def held(matrix, push, x, time):
    """Solve x' = matrix x + push over a time."""
    whole = np.zeros((len(x) + 1,) * 2, complex)
    whole[:-1, :-1], whole[:-1, -1] = matrix, push
    moved = expm(time * whole) @ np.append(x, 1)
    return moved[:-1] if np.iscomplexobj(x) else moved[:-1].real


@pytest.mark.parametrize("kind", ["zoh", "zoh oscillators"])
def test_steps_that_are_exact_give_the_solution_at_uneven_samples(signal, kind):
    expected = solution(kind, *signal)
    # Eight float32 steps of states of order 1: 1e-6; phases up to 2 rad are rounded as often.
    np.testing.assert_allclose(run(kind, *signal), expected, atol=5e-6 * np.abs(expected).max())


def test_features_with_poles_of_their_own_are_exact_over_uneven_times(rng, signal):
    u, dt, *_ = signal
    z = jnp.asarray(np.broadcast_to(POLES, (LENGTH, STATES)), jnp.complex64)
    transition, gain = discretization.discretize_zoh(z, jnp.float32(dt))
    x = np.zeros(STATES, complex)
    for t in range(LENGTH):
        moved = np.complex128(transition[t]) * x + np.complex128(gain[t]) * u[t, 0]
        x = held(np.diag(POLES), np.full(STATES, u[t, 0]), x, dt[t])
        np.testing.assert_allclose(moved, x, atol=2e-6 * np.abs(x).max())  # a step in float32


@pytest.mark.parametrize("kind", ORDERS)
def test_steps_that_are_not_exact_reach_the_solution_at_their_order(signal, kind):
    """Errors are series in the parts of an interval: halves divide the first term by 2 or 4.

    The next term changes that by some hundredths here. Two runs extrapolated are rid of the first;
    what is left of the second is below a thousandth, and of second order float32's rounding.
    """
    expected, order = solution(kind, *signal), ORDERS[kind]
    scale = np.abs(expected).max()
    few, many = (run(kind, *signal, parts, 32) for parts in (16, 32))
    ratio = np.abs(few - expected).max() / np.abs(many - expected).max()
    assert 0.9 < ratio / 2**order < 1.1
    assert np.abs(many - expected).max() < (0.03 if order == 1 else 3e-4) * scale
    better = many + (many - few) / (2**order - 1)
    np.testing.assert_allclose(better, expected, atol=1e-3 * scale if order == 1 else 2e-5 * scale)


def test_impulses_decay_over_the_time_that_passed_and_keep_their_size(signal):
    """Between events x' = Lambda x; an event adds what it has learned to add, whatever dt was."""
    u, dt, B, C = signal
    for rule, gain in (("dirac", np.ones(STATES)), ("async", np.expm1(STEP * POLES) / POLES)):
        x, expected = np.zeros(STATES, complex), []
        for sample, time in zip(u, dt):
            x = expm(time * np.diag(STEP * POLES)) @ x + gain * (B @ sample)
            expected.append((C @ x).real)
        atol = 5e-6 * np.abs(expected).max()  # as exact steps
        np.testing.assert_allclose(modes(rule, u, dt, B, C), expected, atol=atol)


def test_gates_of_linear_attention_are_rates_over_uneven_times(rng):
    """S' = diag(log gate) S between samples, k v^T added at each: dt multiplies logarithms."""
    shape, dt = (LENGTH, STATES), rng.uniform(0.1, 1.5, LENGTH)
    q, k, log_gate = rng.normal(size=shape), rng.normal(size=shape), -rng.uniform(0.1, 1, shape)
    v, S, expected = rng.normal(size=(LENGTH, FEATURES)), np.zeros((STATES, FEATURES)), []
    for t in range(LENGTH):
        S = expm(dt[t] * np.diag(log_gate[t])) @ S + np.outer(k[t], v[t])
        expected.append(S.T @ q[t])
    heads = lambda a: jnp.float32(a)[None, :, None]
    found, _ = gated.gated_recurrence(
        heads(v), heads(k), heads(q), heads(dt[:, None] * log_gate)
    )
    atol = 5e-6 * np.abs(expected).max()  # eight float32 steps
    np.testing.assert_allclose(found[0, :, 0], expected, atol=atol)
