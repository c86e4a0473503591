"""AdLIF: LIF with an adaptation current w (Bittar & Garner 2022), and its constrained form.

  w_t = beta w_{t-1} + a u_{t-1} + b s_{t-1}
  u_t = alpha (u_{t-1} - s_{t-1}) + (1 - alpha) (I_t - w_t)

w goes first and u uses the new w. With x = (u, w), one step below threshold multiplies the state
by [[alpha - (1 - alpha) a, -(1 - alpha) beta], [a, beta]]. It is stable for all 0 < alpha,
beta < 1 and 0 <= a <= 1, which `CONSTRAINED` promises (Deckers et al. 2024); a below -(1 - beta),
which the free neuron may reach, is not.
"""

import dataclasses
import math

import jax

from pspike_jax.functional.neurons.lif import ALPHA_LIMITS
from pspike_jax.functional.neurons.neuron import Membrane, Neuron, Params, clamp, draw_uniform

Limits = tuple[float, float]


class Adaptive(Neuron):
    """A neuron whose coefficients are (alpha, beta, a, b) of the two equations above."""

    membrane_dtypes = (Neuron.membrane_dtypes[0],) * 2

    def update(self, coefficients, membrane, spikes, reset, current) -> Membrane:
        """Adapt, then leak, reset by subtraction and integrate what adaptation leaves."""
        (alpha, beta, a, b), (u, w) = coefficients, membrane
        w = beta * w + a * u + b * spikes
        u = alpha * (u - reset) + (1 - alpha) * (current - w)
        return u, w


@dataclasses.dataclass(frozen=True)
class AdLIF(Adaptive):
    """Adaptive LIF with trained, clamped coefficients.

    Attributes:
      alpha_limits: range of the membrane's decay per step.
      beta_limits: range of the adaptation's decay per step.
      a_limits: range of the coupling from membrane to adaptation.
      b_limits: range of the jump of adaptation at a spike.
    """

    alpha_limits: Limits = ALPHA_LIMITS
    beta_limits: Limits = (math.exp(-1 / 30), math.exp(-1 / 120))
    a_limits: Limits = (-1.0, 1.0)
    b_limits: Limits = (0.0, 2.0)

    def _limits(self) -> dict[str, Limits]:
        names = ("alpha", "beta", "a", "b")
        return {name: getattr(self, f"{name}_limits") for name in names}

    def init(self, key: jax.Array, features: int) -> Params:
        """Draw each coefficient uniformly between its limits; the key is consumed."""
        keys = jax.random.split(key, 4)
        return {
            name: draw_uniform(key, features, low, high)
            for key, (name, (low, high)) in zip(keys, self._limits().items())
        }

    def coefficients(self, params: Params) -> tuple[jax.Array, ...]:
        """Return the clamped alpha, beta, a and b."""
        return tuple(clamp(params[name], *limits) for name, limits in self._limits().items())


CONSTRAINED = AdLIF(alpha_limits=(0.36, 0.96), beta_limits=(0.96, 0.99), a_limits=(0.0, 1.0))
