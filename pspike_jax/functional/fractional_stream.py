"""Fractional memory in a stream: a sum of exponentials, whose step does not grow with time.

The weights of each rule are, for d >= 2, integrals over decay rates,

    m_d = integral of density(s) exp(-s d) ds, s > 0,

    Gruenwald-Letnikov  sin(pi alpha) / pi  exp(s alpha) (1 - exp(-s))^alpha
    L1                  (1 - alpha) alpha / Gamma(1 + alpha)  s^(alpha - 2) (2 cosh(s) - 2)
    predictor           gain alpha / Gamma(1 - alpha)  s^(-alpha - 1) (1 - exp(-s))

and with s = exp(u) the trapezoidal rule in u converges geometrically. The nodes do not depend on
the order, so the order may be trained here too. Rates too small to decay before the horizon share
one node that does not decay: the sum of their nodes is a geometric series. The last few weights are
kept as they are, so that large rates need no nodes.

Slow traces add up many small numbers, and lose less than they are rounded to in a step: they are
kept as unevaluated sums of two floats.
"""

import dataclasses
import functools
import math
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from pspike_jax.functional.fractional import FractionalRule, Memory, Rate, fractional_memory

_SPACING = 0.45  # of nodes in u: the rule's error is exp(-pi^2 / spacing), 3e-10
_SLOWEST = 1e-7  # rate times horizon below which nothing decays
_FASTEST = 18.0  # rate times the number of exact weights above which nothing is left


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["gain", "weights", "rates", "amplitudes"],
    meta_fields=["of_rates"],
)
@dataclasses.dataclass(frozen=True)
class StreamMemory:
    """As `Memory`, with exponentials in place of all but the last K weights.

    Attributes:
      gain: (A,).
      weights: (K, A), m_1 .. m_K, exact.
      rates: (R,), exp(-rate) a step.
      amplitudes: (R, A); m_{K+1+n} is the sum of amplitudes * exp(-n rates).
      of_rates: rates of change are remembered, not values.
    """

    gain: jax.Array
    weights: jax.Array
    rates: jax.Array
    amplitudes: jax.Array
    of_rates: bool


class Trace(NamedTuple):
    """The state of a stream.

    Attributes:
      v: (B, H), the value.
      origin: (B, H), what it started from.
      recent: (K, B, H), the last values or rates, newest first.
      slow: (R, B, H), the exponential traces of older ones.
      lost: (R, B, H), what rounding took from them.
    """

    v: jax.Array
    origin: jax.Array
    recent: jax.Array
    slow: jax.Array
    lost: jax.Array


def stream_memory(
    rule: FractionalRule | str,
    order: jax.Array,
    h: float = 1.0,
    *,
    exact: int = 8,
    horizon: int = 2**20,
    **flags: bool,
) -> StreamMemory:
    """Give the memory of everything since the start, for a stream.

    Args:
      rule: as in `fractional_memory`.
      order: () or (H,), 0 < alpha <= 1.
      h: step.
      exact: K, 2 at least; fewer exact weights need more exponentials.
      horizon: how many steps the weights are right for, to about 1e-6 of each; about
        log(1e8 horizon) / 0.45 exponentials are kept.
      **flags: as in `fractional_memory`.

    Returns:
      The memory.

    Raises:
      ValueError: exact below 2, or arguments that `fractional_memory` refuses.
    """
    if exact < 2:
        raise ValueError(f"exact must be 2 or more, got {exact}")
    rule = FractionalRule(rule)
    recent = fractional_memory(rule, order, exact, h, **flags)
    slowest, fastest = math.log(_SLOWEST / horizon), math.log(_FASTEST / (exact - 1))
    nodes = np.exp(slowest + _SPACING * np.arange(math.ceil((fastest - slowest) / _SPACING)))
    alpha = jnp.atleast_1d(jnp.asarray(order, jnp.float32))
    amplitudes = _densities(rule, alpha, nodes, exact + 1)
    if rule is FractionalRule.PREDICTOR:
        amplitudes = recent.gain[None] * amplitudes
    rates = jnp.asarray(np.concatenate([[0.0], nodes]), jnp.float32)
    return StreamMemory(recent.gain, recent.weights, rates, amplitudes, recent.of_rates)


def multi_term_stream(
    orders: jax.Array,
    coefficients: jax.Array,
    h: float = 1.0,
    *,
    exact: int = 8,
    horizon: int = 2**20,
) -> StreamMemory:
    """Give the memory of sum_i a_i D^(alpha_i) v = f for a stream, by Gruenwald-Letnikov.

    The exponentials do not depend on the order: those of the terms add up.

    Args:
      orders: (n,), each in (0, 1].
      coefficients: (n,), a_i.
      h, exact, horizon: as in `stream_memory`.

    Returns:
      The memory; all neurons share it.
    """
    alpha, a = (jnp.asarray(v, jnp.float32) for v in (orders, coefficients))
    terms = stream_memory(FractionalRule.GL, alpha, h, exact=exact, horizon=horizon)
    scaled = a / terms.gain
    share = (scaled / jnp.sum(scaled))[None]
    mixed = lambda parts: jnp.sum(share * parts, axis=1, keepdims=True)
    gain = 1 / jnp.sum(scaled, keepdims=True)
    return StreamMemory(gain, mixed(terms.weights), terms.rates, mixed(terms.amplitudes), False)


def short_stream_memory(memory: Memory) -> StreamMemory:
    """Give a stream the exact memory of the last K values or rates, K = memory's own."""
    nothing = jnp.zeros((0, memory.weights.shape[1]), jnp.float32)
    rates = jnp.zeros(0, jnp.float32)
    return StreamMemory(memory.gain, memory.weights, rates, nothing, memory.of_rates)


def _densities(rule, alpha, nodes, distance):
    """Return amplitudes (R, A) at a distance: node 0, which stands for all slower ones, and nodes.

    Powers of small rates leave the range of float32, so what varies is gathered in exponents.
    """
    log, far = np.log(nodes)[:, None], (nodes * distance)[:, None]
    if rule is FractionalRule.GL:
        front, slow = jnp.sin(jnp.pi * alpha) / jnp.pi, 1 + alpha
        shape = np.log(-np.expm1(-nodes) / nodes)[:, None]
        exponent = _f32(nodes[:, None]) * alpha[None] + _f32(shape) * alpha[None]
    elif rule is FractionalRule.L1:
        front, slow = (1 - alpha) * alpha / jnp.exp(gammaln(1 + alpha)), 1 + alpha
        # 2 cosh(s) - 2 = (2 sinh(s/2))^2
        exponent = _f32(2 * np.log(2 * np.sinh(nodes / 2) / nodes))[:, None]
    else:
        # 1 / Gamma(1 - alpha) vanishes at order 1, where all weight is at rate 0.
        front, slow = alpha * (1 - alpha) / jnp.exp(gammaln(2 - alpha)), 1 - alpha
        exponent = _f32(np.log(-np.expm1(-nodes) / nodes))[:, None]
    powers = jnp.exp(slow[None] * _f32(log) + exponent - _f32(far))
    # front sum_{k >= 1} (s_0 exp(-k spacing))^slow spacing, with a factor that is 1 at slow = 0.
    gathered = jnp.exp(slow * np.float32(log[0, 0])) * _geometric(slow)
    if rule is FractionalRule.PREDICTOR:
        rest = alpha / jnp.exp(gammaln(2 - alpha)) * gathered
    else:
        rest = front / slow * gathered
    return jnp.concatenate([rest[None], front[None] * powers * _SPACING])


def _f32(array):
    return jnp.asarray(array, jnp.float32)


def _geometric(slow):
    """Return x / (exp(x) - 1) at x = slow * spacing, which is 1 at 0."""
    x = slow * _SPACING
    small = jnp.abs(x) < 1e-2
    safe = jnp.where(small, 1, x)
    return jnp.where(small, 1 - x / 2 + jnp.square(x) / 12, safe / jnp.expm1(safe))


def start_stream(
    memory: StreamMemory, start: jax.Array, forget_start: bool = False
) -> Trace:
    """Begin a stream.

    Args:
      memory: of the stream.
      start: (B, H), v_0.
      forget_start: as in `solve`.

    Returns:
      The state before the first step.
    """
    start = jnp.asarray(start, jnp.float32)
    origin = jnp.zeros_like(start) if forget_start else start
    recent = jnp.zeros((memory.weights.shape[0], *start.shape), jnp.float32)
    slow = jnp.zeros((memory.rates.size, *start.shape), jnp.float32)
    return Trace(start, origin, recent, slow, slow)


def stream_step(
    memory: StreamMemory,
    trace: Trace,
    rate: Rate,
    x: Any,
    settle: Callable[[jax.Array], tuple[jax.Array, Any]] | None = None,
) -> tuple[Trace, Any]:
    """Take one step; what it costs does not depend on how many went before.

    Args:
      memory: of the stream.
      trace: the state.
      rate: as in `solve`.
      x: inputs of the step.
      settle: as in `solve`.

    Returns:
      The state after the step, and outputs as those of `solve`.
    """
    v, origin, recent, slow, lost = trace
    f, outputs = rate(v, x)
    near = jnp.sum(memory.weights[:, None] * recent, axis=0)
    far = jnp.sum(memory.amplitudes[:, None] * (slow + lost), axis=0)
    reached = origin + memory.gain[None] * f + near + far
    if settle is not None:
        reached, settled = settle(reached)
        outputs = outputs, settled
    left = f if memory.of_rates else reached - origin
    if memory.rates.size:
        leaves = recent[-1] if recent.shape[0] else left
        loss = jnp.expm1(-memory.rates)[:, None, None]
        change = leaves[None] + loss * slow + (lost + loss * lost)
        total = slow + change
        slow, lost = total, change - (total - slow)
    if recent.shape[0]:
        recent = jnp.concatenate([left[None], recent[:-1]])
    return Trace(reached, origin, recent, slow, lost), outputs
