"""The damped, driven pendulum as a neuron (Bose 2025).

    theta'' = -gamma theta' - omega0^2 sin(theta) + I(t)

It fires when theta reaches pi from below, upside down, and starts anew from rest; or it goes on,
and fires once a turn. `author_scheme` is the published program's. `pendulum` is accurate: Taylor
series of the solution itself, whose coefficients follow from each other because sin(theta) and
cos(theta) have derivatives in terms of the same four series,

    theta' = w,  w' = -gamma w - omega0^2 s + I,  s' = c w,  c' = -s w.

A spike is where the series crosses pi, and the step's rest is taken from there. Near the separatrix
rounding decides whether there is a spike at all, so a state is an unevaluated sum of two floats.

Where theta stays small this is the oscillator of `oscillator.py` with A = omega0^2 and G = gamma.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_ORDER = 10
_SAMPLES = 8  # of a step, among which a first crossing is looked for
_NEWTON = 6
# 2 pi in three floats, the first of few enough bits that its products with turns are exact.
_TURN = (np.float32(6.28125), np.float32(2 * np.pi - 6.28125))
_TURN_REST = np.float32(2 * np.pi - float(_TURN[0]) - float(_TURN[1]))
_PI = np.float32(np.pi)
_PI_REST = np.float32(np.pi - float(_PI))


class PendulumState(NamedTuple):
    """Where pendulums are; what rounding took from angle and velocity stands beside them.

    Attributes:
      theta: (...), the angle; without reset in [-pi, pi), whole turns apart.
      omega: (...), the angular velocity.
      theta_rest: (...), to be added to theta.
      omega_rest: (...), to be added to omega.
      turns: (...) int32, whole turns that theta leaves out.
    """

    theta: jax.Array
    omega: jax.Array
    theta_rest: jax.Array
    omega_rest: jax.Array
    turns: jax.Array


class PendulumSpikes(NamedTuple):
    """Spikes at the resolution of the solver, S parts of every step.

    Attributes:
      fired: (L, S, ...) bool.
      offset: (L, S, ...) float32, time from the start of the step to the spike; 0 where none is.
    """

    fired: jax.Array
    offset: jax.Array


def at_rest(shape: tuple[int, ...], theta: jax.Array | float = 0.0) -> PendulumState:
    """Return pendulums (...) of the given shape that hang still, or at an angle in [-pi, pi)."""
    zero = jnp.zeros(shape, jnp.float32)
    return PendulumState(zero + theta, zero, zero, zero, jnp.zeros(shape, jnp.int32))


def author_scheme(
    drive: jax.Array,
    gamma: float = 0.05,
    omega0: float = 1.0,
    dt: float = 0.1,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Step by semi-implicit Euler, as the published program does; angle and velocity start at 0.

    The velocity is stepped with the new drive, then the angle with the new velocity; where theta
    is pi or more, both become 0. At dt = 0.1 this finds 4 spikes where a resonant drive causes 1.

    Args:
      drive: (L, ...); its first entry is not used, because the first state is given.
      gamma: damping.
      omega0: frequency of small swings.
      dt: step.

    Returns:
      spikes, theta, omega: (L, ...) float32 each, behind the reset.
    """
    drive = jnp.asarray(drive, jnp.float32)

    def step(state, current):
        theta, omega = state
        omega = omega + dt * (-gamma * omega - omega0**2 * jnp.sin(theta) + current)
        theta = theta + dt * omega
        fires = theta >= _PI
        theta, omega = (jnp.where(fires, 0, a) for a in (theta, omega))
        return (theta, omega), (fires.astype(jnp.float32), theta, omega)

    still = jnp.zeros_like(drive[0])
    _, outputs = jax.lax.scan(step, (still, still), drive[1:])
    first = still, still, still
    return tuple(jnp.concatenate([a[None], b]) for a, b in zip(first, outputs, strict=True))


def pendulum(
    drive: jax.Array,
    gamma: jax.Array | float,
    omega0: jax.Array | float,
    dt: float,
    state: PendulumState | None = None,
    *,
    reset: bool = True,
    parts: int | None = None,
) -> tuple[PendulumSpikes, PendulumState, PendulumState]:
    """Solve the pendulum to rounding; spike times are good to 1e-4 and better in float32.

    A part of a step holds one spike at most: a drive under 2 pi / (dt / parts)^2 causes no more.
    Gradients are those of the solution, spike times included.

    Args:
      drive: (L, p, ...), coefficients of powers of t / dt over each step: from `constant_drive` or
        `smooth_drive`, in pendulum_drive.py.
      gamma: damping; a number, or of the shape (...).
      omega0: frequency of small swings; likewise.
      dt: step.
      state: before the first step; at rest if None.
      reset: start anew from rest after a spike. If not, turn on.
      parts: S, how many parts a step is solved in; by default parts are 0.1 long at most, which
        serves velocities up to 6 or so and omega0 up to 3; scale it with them.

    Returns:
      spikes: (L, S, ...).
      path: the states behind the steps, (L, ...).
      state: the last of them.
    """
    drive = jnp.asarray(drive, jnp.float32)
    shape = drive.shape[2:]
    if state is None:
        state = at_rest(shape)
    parts = max(1, int(np.ceil(dt / 0.1 - 1e-9))) if parts is None else parts
    gamma, omega0 = (jnp.broadcast_to(jnp.float32(a), shape) for a in (gamma, omega0))
    span = np.float32(dt / parts)

    def step(state, polynomial):
        @functools.partial(jax.checkpoint, prevent_cse=False)  # series are made again, not kept
        def one_part(state, part):
            local = _shift(list(polynomial), part / np.float32(parts), np.float32(1 / parts))
            state, fires, fraction = _part(state, local, gamma, omega0, span, reset)
            return state, PendulumSpikes(fires, jnp.where(fires, (part + fraction) * span, 0))

        state, spikes = jax.lax.scan(one_part, state, np.arange(parts, dtype=np.float32))
        return state, (spikes, state)

    last, (spikes, path) = jax.lax.scan(step, state, drive)
    return spikes, path, last


def _part(state, polynomial, gamma, omega0, span, reset):
    """Advance over a part of a step; fraction is where in it the spike fell."""
    series = functools.partial(_series, gamma=gamma, omega0=omega0)
    moves, speeds = series(state, polynomial, span)
    fires, fraction = _first_crossing(state, moves)
    after = _advance(state, moves, speeds)
    if not reset:
        return _wrap(after), fires, fraction
    rest = at_rest(state.theta.shape)._replace(turns=state.turns)
    left = 1 - fraction
    restarted = _advance(rest, *series(rest, _shift(polynomial, fraction, left), span * left))
    return jax.tree.map(functools.partial(jnp.where, fires), restarted, after), fires, fraction


def _series(state, polynomial, span, *, gamma, omega0):
    """Return coefficients (order, ...) of theta and omega in powers of t / span, from the first."""
    sine, cosine = jnp.sin(state.theta), jnp.cos(state.theta)
    speed = state.omega + state.omega_rest
    pushes = jnp.zeros((_ORDER, *speed.shape), jnp.float32).at[: len(polynomial)].set(
        jnp.stack(polynomial)
    )

    def first(value, rows=_ORDER):
        return jnp.zeros((rows, *speed.shape), jnp.float32).at[0].set(value)

    def following(carry, term):
        # Velocities stand oldest first, sines and cosines newest first: a product of two series
        # has sums of products of opposite entries.
        speed, omega, s, c = carry
        n, push = term
        scale = span / (n + 1).astype(jnp.float32)
        move = scale * speed
        speed = scale * (push - gamma * speed - jnp.square(omega0) * s[0])
        newest = scale * jnp.sum(omega * c, axis=0), -scale * jnp.sum(omega * s, axis=0)
        s, c = (jnp.concatenate([a[None], b[:-1]]) for a, b in zip(newest, (s, c), strict=True))
        omega = jax.lax.dynamic_update_index_in_dim(omega, speed, n + 1, 0)
        return (speed, omega, s, c), (move, speed)

    s = first(sine + cosine * state.theta_rest, _ORDER + 1)
    c = first(cosine - sine * state.theta_rest, _ORDER + 1)
    start = speed, first(speed, _ORDER + 1), s, c
    return jax.lax.scan(following, start, (jnp.arange(_ORDER), pushes))[1]


def _gain(coefficients, fraction):
    """Return the polynomial without constant term at a fraction."""
    total = jnp.zeros_like(coefficients[0])
    for n in range(_ORDER - 1, -1, -1):
        total = (total + coefficients[n]) * fraction
    return total


def _advance(state, moves, speeds):
    theta, theta_rest = _add(state.theta, state.theta_rest + _total(moves))
    omega, omega_rest = _add(state.omega, state.omega_rest + _total(speeds))
    return PendulumState(theta, omega, theta_rest, omega_rest, state.turns)


def _total(coefficients):
    return jnp.sum(coefficients[::-1], axis=0)  # small ones first


def _add(large, small):
    total = large + small
    part = total - large
    return total, (large - (total - part)) + (small - part)


def _first_crossing(state, moves):
    """Return whether theta first reaches pi from below in a part, and at which fraction of it."""
    gap = (_PI - state.theta) + (_PI_REST - state.theta_rest)
    ends = np.arange(1, _SAMPLES + 1) / _SAMPLES
    powers = np.float32(ends[:, None] ** np.arange(1, _ORDER + 1))
    reached = jnp.einsum("pn,n...->p...", powers, moves, precision="highest") >= gap[None]
    crosses = reached & ~jnp.concatenate([(gap <= 0)[None], reached[:-1]])
    fires = jnp.any(crosses, axis=0)
    high = (jnp.argmax(crosses, axis=0) + 1).astype(jnp.float32) / _SAMPLES
    fraction = _root(*jax.lax.stop_gradient((moves, gap, high)))
    # One more step of Newton's, which is the one that gradients see.
    slope = jax.lax.stop_gradient(_slope(moves, fraction))
    usable = fires & (slope > 0)
    refined = fraction - (_gain(moves, fraction) - gap) / jnp.where(usable, slope, 1)
    fraction = jnp.where(usable, refined, fraction)
    return fires, jnp.where(fires, jnp.clip(fraction, 0, 1), 0)


def _root(moves, gap, high):
    """Return where the polynomial reaches the gap, between high - 1 / samples and high."""

    def closer(_, bracket):
        low, high, x = bracket
        missing = gap - _gain(moves, x)
        low, high = jnp.where(missing > 0, x, low), jnp.where(missing > 0, high, x)
        slope = _slope(moves, x)
        step = x + missing / jnp.where(slope > 0, slope, 1)
        inside = (slope > 0) & (step > low) & (step < high)
        return low, high, jnp.where(inside, step, (low + high) / 2)

    low = high - np.float32(1 / _SAMPLES)
    return jax.lax.fori_loop(0, _NEWTON, closer, (low, high, (low + high) / 2))[2]


def _slope(moves, fraction):
    total = jnp.zeros_like(moves[0])
    for n in range(_ORDER, 0, -1):
        total = total * fraction + n * moves[n - 1]
    return total


def _shift(polynomial, origin, scale):
    """Return the polynomial q(x) = p(origin + scale x), lists of coefficients."""
    shifted = list(polynomial)
    for start in range(len(shifted) - 1):
        for k in range(len(shifted) - 2, start - 1, -1):
            shifted[k] = shifted[k] + origin * shifted[k + 1]
    return [coefficient * scale**k for k, coefficient in enumerate(shifted)]


def _wrap(state):
    """Take whole turns out of theta."""
    above = (state.theta - _PI) + (state.theta_rest - _PI_REST) >= 0
    below = (state.theta + _PI) + (state.theta_rest + _PI_REST) < 0
    turn = above.astype(jnp.int32) - below.astype(jnp.int32)
    count = turn.astype(jnp.float32)
    theta, rest = _add(state.theta - count * _TURN[0], state.theta_rest - count * _TURN[1])
    theta, rest = _add(theta, rest - count * _TURN_REST)
    return state._replace(theta=theta, theta_rest=rest, turns=state.turns + turn)
