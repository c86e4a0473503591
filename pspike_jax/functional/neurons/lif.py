"""LIF: the leaky integrate-and-fire neuron with subtractive reset (Bittar & Garner 2022).

  u_t = alpha (u_{t-1} - s_{t-1}) + (1 - alpha) I_t

alpha is trained per neuron and clamped to [exp(-1/5), exp(-1/25)]: time constants of 5 to 25
steps.
"""

import dataclasses
import math

import jax

from pspike_jax.functional.neurons.neuron import Membrane, Neuron, Params, clamp

ALPHA_LIMITS = (math.exp(-1 / 5), math.exp(-1 / 25))


@dataclasses.dataclass(frozen=True)
class LIF(Neuron):
    """Leaky integrate-and-fire neuron with trained leak.

    Attributes:
      alpha_limits: lowest and highest decay per step, in (0, 1); drawn uniformly between them.
    """

    alpha_limits: tuple[float, float] = ALPHA_LIMITS

    def init(self, key: jax.Array, features: int) -> Params:
        """Draw alpha uniformly between its limits; the key is consumed."""
        low, high = self.alpha_limits
        return {"alpha": jax.random.uniform(key, (features,), minval=low, maxval=high)}

    def coefficients(self, params: Params) -> tuple[jax.Array, ...]:
        """Return the clamped alpha."""
        return (clamp(params["alpha"], *self.alpha_limits),)

    def update(self, coefficients, membrane, spikes, reset, current) -> Membrane:
        """Leak, reset by subtraction, integrate."""
        (alpha,), (u,) = coefficients, membrane
        return (alpha * (u - reset) + (1 - alpha) * current,)
