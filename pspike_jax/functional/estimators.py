"""How a stochastic spike learns: estimators of the gradient of an expected loss.

A neuron fires with probability p, a loss reads its spikes, and the gradient of the expected loss
is wanted. Through a sample there is none, so it is estimated:

  straight-through   d spike / d p is the slope of a surrogate, by its name in `SURROGATES`: little
                     variance, and a bias that grows with the curvature of the loss and the depth
                     (Bengio et al., 1308.3432)
  "reinforce"        (loss - baseline) d log P(spikes): no bias, much variance (Williams 1992)
  "logistic"         sigmoid((logit p - logit u) / temperature) in place of the spike: the gradient
                     of another network, whose values lie between 0 and 1 (1611.00712, 1611.01144)
  "logistic_hard"    fires as the spike does, learns as "logistic" does
  "expectation"      passes p itself: no variance; exact where the loss is linear in the spikes

All fire at the same uniforms as `sample_spikes`: where u < p.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.sampling import expected_firing, heaviside
from pspike_jax.functional.surrogates import SURROGATES

ESTIMATORS = (*SURROGATES, "reinforce", "logistic", "logistic_hard", "expectation")
# Logits of probabilities nearer to 0 and 1 are infinite, or have gradients that are.
MARGIN = 1e-6


class Drawn(NamedTuple):
    """What a site passes on.

    Attributes:
      values: of p's shape; 0 and 1 but for "logistic" and "expectation".
      log_probability: of p's shape, of the spikes that were drawn; 0 but for "reinforce", whose
        gradient it carries, see `score_loss`.
    """

    values: jax.Array
    log_probability: jax.Array


def stochastic_spikes(
    p: jax.Array, uniform: jax.Array, estimator: str, *, temperature: float = 0.5
) -> Drawn:
    """Fire where a uniform is below p, and learn by an estimator.

    Args:
      p: any shape, floating; probability of a spike, clamped to [0, 1].
      uniform: of p's shape, in [0, 1).
      estimator: a name in `ESTIMATORS`.
      temperature: of "logistic" and "logistic_hard", positive; relaxed spikes tend to spikes, and
        the variance of their gradient to infinity, as it tends to 0.

    Returns:
      Values and log probabilities.

    Raises:
      ValueError: the estimator has no such name, the temperature is not positive, or shapes differ.

    Example:
      >>> drawn = stochastic_spikes(jnp.array([0.2, 0.9]), jnp.array([0.5, 0.5]), "reinforce")
      >>> drawn.values
      Array([0., 1.], dtype=float32)
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator is {estimator!r}; expected one of {', '.join(ESTIMATORS)}")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; expected a positive number")
    if jnp.shape(uniform) != jnp.shape(p):
        raise ValueError(f"uniform has shape {jnp.shape(uniform)}; expected {jnp.shape(p)}")
    silent = jnp.zeros_like(p)
    if estimator in SURROGATES:
        return Drawn(heaviside(p, uniform, SURROGATES[estimator]), silent)
    if estimator == "expectation":
        return Drawn(expected_firing(p), silent)
    spikes = jax.lax.stop_gradient(heaviside(p, uniform, SURROGATES["none"]))
    if estimator == "reinforce":
        return Drawn(spikes, _log_probability(p, spikes))
    logit = lambda q: jnp.log(q) - jnp.log1p(-q)
    inside = jnp.clip(p, MARGIN, 1 - MARGIN)
    noise = logit(jnp.clip(uniform, MARGIN, 1 - MARGIN))
    relaxed = jax.nn.sigmoid((logit(inside) - noise) / temperature)
    if estimator == "logistic_hard":
        relaxed = spikes + relaxed - jax.lax.stop_gradient(relaxed)
    return Drawn(relaxed, silent)


def score_loss(
    loss: jax.Array, log_probability: jax.Array, baseline: jax.Array | float = 0.0
) -> jax.Array:
    """Return a loss whose gradient has REINFORCE's part, too; its value stays.

    Args:
      loss: (...), of each example.
      log_probability: (...), of all spikes of an example, summed over its sites.
      baseline: number, or (...), that depends on no spike of its example; the nearer to the
        expected loss, the less the variance.

    Returns:
      (...).
    """
    score = log_probability - jax.lax.stop_gradient(log_probability)
    return loss + jax.lax.stop_gradient(loss - baseline) * score


def _log_probability(p, spikes):
    """Return log P of spikes; what happened is never impossible, so that its gradient is finite."""
    p = expected_firing(p)
    return jnp.log(jnp.maximum(jnp.where(spikes > 0, p, 1 - p), MARGIN))
