"""SiLIF: an adaptive LIF with the parametrization of a state space model (arXiv 2506.06374).

The equations are AdLIF's; the decays come from rates and a time step, trained per neuron in
logarithms:

  alpha = exp(-exp(log_rate_u + log_dt)),    beta = exp(-exp(log_rate_w + log_dt))

so that they lie in (0, 1) whatever training does, and with 0 <= a <= 1 every neuron is stable. For
that to hold in float32, the exponents are kept within 2**-22 and 15: alpha from 3e-7 to 1 - 2e-7.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.adlif import Adaptive
from pspike_jax.functional.neurons.neuron import Params, clamp, decay_exponent, draw_uniform


@dataclasses.dataclass(frozen=True)
class SiLIF(Adaptive):
    """SiLIF neuron; rates are in 1/s.

    Attributes:
      dt: time step in seconds at which training starts.
      rate_u_range: membrane rates to draw from; 10 to 250 are time constants of 4 to 100 ms.
      rate_w_range: adaptation rates to draw from; 2.5 to 10 are 100 to 400 ms.
    """

    dt: float = 0.004
    rate_u_range: tuple[float, float] = (10.0, 250.0)
    rate_w_range: tuple[float, float] = (2.5, 10.0)

    def init(self, key: jax.Array, features: int) -> Params:
        """Draw log rates, a in [0, 1] and b in [0, 2] uniformly; the key is consumed."""
        ranges = {
            "log_rate_u": tuple(map(math.log, self.rate_u_range)),
            "log_rate_w": tuple(map(math.log, self.rate_w_range)),
            "a": (0.0, 1.0),
            "b": (0.0, 2.0),
        }
        keys = jax.random.split(key, len(ranges))
        drawn = {
            name: draw_uniform(key, features, low, high)
            for key, (name, (low, high)) in zip(keys, ranges.items())
        }
        return drawn | {"log_dt": jnp.full((features,), math.log(self.dt), jnp.float32)}

    def coefficients(self, params: Params) -> tuple[jax.Array, ...]:
        """Return alpha, beta in (0, 1), a clamped to [0, 1] and b clamped to [0, 2]."""
        alpha, beta = (
            jnp.exp(-decay_exponent(params[name], params["log_dt"]))
            for name in ("log_rate_u", "log_rate_w")
        )
        return alpha, beta, clamp(params["a"], 0.0, 1.0), clamp(params["b"], 0.0, 2.0)
