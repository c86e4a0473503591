"""Dynamics of fractional order: a rate of change that remembers the whole past.

    D^alpha v = f(v, x),   0 < alpha <= 1, Caputo's derivative, v(0) = v_0

Every rule here becomes, on a grid of step h, with y = v - v_0 (the derivative of a constant is 0),

    v_{k+1} = v_0 + gain f_k + sum_{j < k} m_{k-j} q_j,

where q_j is the value y_{j+1} or the rate f_j that step j left behind:

    Gruenwald-Letnikov  gain h^alpha, m_d = -c_d, c_0 = 1, c_d = (1 - (1 + alpha)/d) c_{d-1}
    L1                  gain h^alpha Gamma(2 - alpha), m_d = -((d+1)^p - 2 d^p + (d-1)^p) with
                        p = 1 - alpha
    predictor           gain h^alpha / Gamma(1 + alpha), m_d = gain ((d+1)^alpha - d^alpha), of
                        rates

The f-SNN program (spikeDE) is the source of the rules; what it calls trapezoid is L1. Three of its
oddities are flags, off by default: see `fractional_memory` and `solve`.
"""

import dataclasses
import enum
import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

Rate = Callable[[jax.Array, Any], tuple[jax.Array, Any]]


class FractionalRule(str, enum.Enum):
    """A discretisation of the fractional derivative; the module says which."""

    GL = "gl"
    L1 = "l1"
    PREDICTOR = "pred"


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["gain", "weights"], meta_fields=["of_rates"]
)
@dataclasses.dataclass(frozen=True)
class Memory:
    """What the past weighs; A is 1, or H where every neuron has an order of its own.

    Attributes:
      gain: (A,), of the rate of this step.
      weights: (K, A), m_1 .. m_K; what lies further back is forgotten.
      of_rates: rates are remembered, not values.
    """

    gain: jax.Array
    weights: jax.Array
    of_rates: bool


def fractional_memory(
    rule: FractionalRule | str,
    order: jax.Array,
    count: int,
    h: float = 1.0,
    *,
    zero_power: bool = False,
    frozen_gamma: bool = False,
) -> Memory:
    """Give the weights of a rule; the order may be trained.

    Args:
      rule: `gl`, `l1` or `pred`.
      order: () or (H,), 0 < alpha <= 1.
      count: K, how many past values or rates are remembered: L - 1 for all of them. The program's
        `memory` M counts one value more than it uses: K = M - 1 (also for `pred`, where the rate
        of the step itself is one of its M).
      h: step.
      zero_power: L1 at order 1 takes 0^0 for 1, as the program does: the last value is then not
        remembered at all. By default it is 0, the limit of orders below 1, and the rule is Euler's.
      frozen_gamma: the gradient of the order does not see the gamma function, as in the program.

    Returns:
      The memory.

    Raises:
      ValueError: an unknown rule, an order of another rank, or count < 0.
    """
    rule = FractionalRule(rule)
    alpha = jnp.atleast_1d(jnp.asarray(order, jnp.float32))
    if alpha.ndim > 1 or count < 0:
        raise ValueError(f"expected an order () or (H,) and count >= 0; got {alpha.shape}, {count}")
    power = jnp.float32(h) ** alpha
    distance = jnp.arange(1, count + 1, dtype=jnp.float32)[:, None]
    freeze = jax.lax.stop_gradient if frozen_gamma else (lambda value: value)
    if rule is FractionalRule.GL:
        return Memory(power, -gl_coefficients(alpha, count)[1:], False)
    if rule is FractionalRule.L1:
        gain = power * freeze(jnp.exp(gammaln(2 - alpha)))
        return Memory(gain, -_second_differences(1 - alpha, distance, zero_power), False)
    # alpha Gamma(alpha), of which the program differentiates the first factor only.
    gain = power / (alpha * freeze(jnp.exp(gammaln(alpha))))
    return Memory(gain, gain[None] * _first_differences(alpha, distance), True)


def multi_term_memory(
    orders: jax.Array, coefficients: jax.Array, count: int, h: float = 1.0
) -> Memory:
    """Give the weights of sum_i a_i D^(alpha_i) v = f, by Gruenwald-Letnikov.

    Args:
      orders: (n,), each in (0, 1]; may be trained.
      coefficients: (n,), a_i; may be trained.
      count: K, as in `fractional_memory`.
      h: step.

    Returns:
      The memory; all neurons share it.
    """
    alpha, a = (jnp.asarray(v, jnp.float32) for v in (orders, coefficients))
    scaled = a * jnp.float32(h) ** -alpha
    mixed = jnp.sum(scaled[None] * gl_coefficients(alpha, count), axis=1, keepdims=True)
    return Memory(1 / mixed[0], -mixed[1:] / mixed[:1], False)


def gl_coefficients(order: jax.Array, count: int) -> jax.Array:
    """Return (-1)^d binomial(order, d) for d = 0 .. count, (count + 1, A), from orders (A,)."""
    distance = jnp.arange(1, count + 1, dtype=jnp.float32)[:, None]
    factors = 1 - (1 + order[None]) / distance
    return jnp.cumprod(jnp.concatenate([jnp.ones_like(order)[None], factors]), axis=0)


def _second_differences(p, d, zero_power):
    """Return (d+1)^p - 2 d^p + (d-1)^p for p (A,) and d (K, 1), without losing what is left."""
    p = p[None]
    far = jnp.maximum(d, 4)
    # d^p (1 + x)^p + (1 - x)^p - 2 with x = 1/d: twice the even binomial terms. Next term: 1e-10.
    x2, series, term = jnp.square(1 / far), jnp.zeros_like(far * p), jnp.ones_like(far * p)
    for k in range(1, 8):
        term = term * (p - 2 * k + 2) * (p - 2 * k + 1) / ((2 * k - 1) * 2 * k) * x2
        series = series + 2 * term
    before = jnp.maximum(d - 1, 1) ** p
    at_one = jnp.where(p == 0, 1.0, 0.0) if zero_power else jnp.zeros_like(p)
    near = (d + 1) ** p - 2 * d**p + jnp.where(d == 1, at_one, before)
    return jnp.where(d < 4, near, far**p * series)


def _first_differences(p, d):
    """Return (d+1)^p - d^p for p (A,) and d (K, 1)."""
    return d ** p[None] * jnp.expm1(p[None] * jnp.log1p(1 / d))


def lif_rate(
    tau: jax.Array, threshold: jax.Array, fire: Callable[[jax.Array], jax.Array], leaky: bool = True
) -> Rate:
    """Give the rate of a leaky integrate-and-fire neuron, for `solve`.

    The neuron fires where one unit step would take it to the threshold, whatever h is, and the
    reset, threshold / tau, belongs to the rate; no gradient passes it.

    Args:
      tau: () or (H,), positive; may be trained.
      threshold: () or (H,).
      fire: from the distance to the threshold to a spike, with a surrogate of its own.
      leaky: False takes I / tau for (I - v) / tau.

    Returns:
      (v, current) -> (f, (spikes, v)), all (B, H).
    """
    tau, threshold = (jnp.atleast_1d(jnp.asarray(a, jnp.float32))[None] for a in (tau, threshold))

    def rate(v, current):
        slope = (current - v if leaky else current) / tau
        spikes = fire(v + slope - threshold)
        return slope - jax.lax.stop_gradient(spikes) * threshold / tau, (spikes, v)

    return rate
