"""C-SiLIF: a complex, oscillating state initialized as S4D-Lin (arXiv 2506.06374).

  A = exp(lambda dt),    lambda = -exp(log_damping) + i frequency,    dt = exp(log_dt)
  u_t = A (u_{t-1} - s_{t-1} / 2) + b I_t,    s_t = 1[2 Re(u_t) > threshold]

|A| < 1 whatever training does; the real part of lambda dt is kept within -15 and -2**-22, as
float32 would else round |A| to 1 or more. The factors 1/2 and 2 belong to the conjugate partner of
u, which is not stored.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from pspike_jax.functional.initializers import log_uniform_dt
from pspike_jax.functional.neurons.neuron import (
    Membrane,
    Neuron,
    Params,
    add_real,
    clamp,
    decay_exponent,
    draw_uniform,
)


@dataclasses.dataclass(frozen=True)
class CSiLIF(Neuron):
    """C-SiLIF neuron.

    Attributes:
      dt_min: smallest step size to draw from.
      dt_max: largest; 0.5 (SHD) or 5 (SSC) in the paper's settings.
    """

    dt_min: float = 0.01
    dt_max: float = 0.5

    membrane_dtypes = (jnp.complex64,)

    def init(self, key: jax.Array, features: int) -> Params:
        """Start lambda at -1/2 + i pi; draw dt log-uniformly, b from [0, 1); key consumed."""
        dt_key, b_key = jax.random.split(key)
        return {
            "log_damping": jnp.full((features,), math.log(0.5), jnp.float32),
            "frequency": jnp.full((features,), math.pi, jnp.float32),
            "log_dt": jnp.log(log_uniform_dt(dt_key, (features,), self.dt_min, self.dt_max)),
            "b": draw_uniform(b_key, features, 0.0, 1.0),
        }

    def coefficients(self, params: Params) -> tuple[jax.Array, ...]:
        """Return A (complex64) and b."""
        decay = decay_exponent(params["log_damping"], params["log_dt"])
        # Of a phase beyond 1e8 float32 holds no digit; an infinite one would have no cosine.
        phase = params["frequency"] * jnp.exp(clamp(params["log_dt"], -60.0, 60.0))
        return jnp.exp(jax.lax.complex(-decay, phase)), params["b"]

    def update(self, coefficients, membrane, spikes, reset, current) -> Membrane:
        """Subtract half a spike from the real part, rotate and shrink, add the input."""
        (A, b), (u,) = coefficients, membrane
        return (add_real(A * add_real(u, -0.5 * reset), b * current),)

    def drive(self, coefficients, membrane) -> jax.Array:
        """Return 2 Re(u) less the threshold."""
        return 2 * membrane[0].real - self.threshold
