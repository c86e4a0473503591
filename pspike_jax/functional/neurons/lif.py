"""LIF: the leaky integrate-and-fire neuron with subtractive reset (Bittar & Garner 2022).

  u_t = alpha (u_{t-1} - s_{t-1}) + (1 - alpha) I_t,    s_t = 1[u_t > V]

alpha is trained per neuron and clamped to [exp(-1/5), exp(-1/25)]: time constants of 5 to 25
steps. V may be trained too, in its logarithm; a spike subtracts 1 from the membrane whatever V is.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.neuron import (
    Membrane,
    Neuron,
    Params,
    clamp,
    draw_uniform,
    log_threshold,
)

ALPHA_LIMITS = (math.exp(-1 / 5), math.exp(-1 / 25))


@dataclasses.dataclass(frozen=True)
class LIF(Neuron):
    """Leaky integrate-and-fire neuron with trained leak.

    Attributes:
      alpha_limits: lowest and highest decay per step, in (0, 1); drawn uniformly between them.
      trained_threshold: whether each neuron trains its own threshold.
    """

    alpha_limits: tuple[float, float] = ALPHA_LIMITS
    trained_threshold: bool = dataclasses.field(default=False, kw_only=True)

    reset = "soft"

    def init(self, key: jax.Array, features: int) -> Params:
        """Draw alpha uniformly between its limits; the key is consumed."""
        params = {"alpha": draw_uniform(key, features, *self.alpha_limits)}
        if self.trained_threshold:
            params |= log_threshold(self.threshold, features)
        return params

    def coefficients(self, params: Params) -> tuple[jax.Array, ...]:
        """Return the clamped alpha, and the threshold where it is trained."""
        alpha = clamp(params["alpha"], *self.alpha_limits)
        return (alpha, jnp.exp(params["log_threshold"])) if self.trained_threshold else (alpha,)

    def update(self, coefficients, membrane, spikes, reset, current) -> Membrane:
        """Leak, reset by subtraction, integrate."""
        alpha, (u,) = coefficients[0], membrane
        return (alpha * (u - reset) + (1 - alpha) * current,)

    def between_spikes(self, coefficients, spikes, current):
        """Return alpha, and what enters beside it."""
        alpha = coefficients[0]
        return ((alpha, (1 - alpha) * current - alpha * spikes),)

    def drive(self, coefficients, membrane) -> jax.Array:
        """Return the membrane less the threshold."""
        threshold = coefficients[1] if self.trained_threshold else self.threshold
        return membrane[0] - threshold
