"""Resonate-and-fire (Izhikevich 2001), discretized by one Euler step and reset by subtraction.

  u_t = u_{t-1} + dt ((damping + i frequency) u_{t-1} + I_t) - s_{t-1},    s_t = 1[Re(u_t) > V]

The Euler step multiplies by 1 + dt lambda: a neuron is stable while |1 + dt lambda| < 1, which
holds where training starts but is not promised afterwards.
"""

import dataclasses

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.neuron import Membrane, Neuron, Params, add_real, draw_uniform


@dataclasses.dataclass(frozen=True)
class ResonateAndFire(Neuron):
    """Resonate-and-fire neuron with trained damping and frequency.

    Attributes:
      dt: fixed time step.
      damping_limit: the damping, a negative real part, is clamped to at most this.
    """

    dt: float = 0.004
    damping_limit: float = -0.1

    membrane_dtypes = (jnp.complex64,)

    def init(self, key: jax.Array, features: int) -> Params:
        """Draw the damping from U[-10, -1] and the frequency from U[5, 10]; key consumed."""
        damping_key, frequency_key = jax.random.split(key)
        return {
            "damping": draw_uniform(damping_key, features, -10.0, -1.0),
            "frequency": draw_uniform(frequency_key, features, 5.0, 10.0),
        }

    def coefficients(self, params: Params) -> tuple[jax.Array, ...]:
        """Return lambda = damping + i frequency, complex64."""
        damping = params["damping"]
        damping = jnp.where(damping > self.damping_limit, self.damping_limit, damping)
        return (jax.lax.complex(damping, params["frequency"]),)

    def update(self, coefficients, membrane, spikes, reset, current) -> Membrane:
        """Take one Euler step and subtract the last spike from the real part."""
        (Lambda,), (u,) = coefficients, membrane
        change = self.dt * add_real(Lambda * u, current)
        return (add_real(u + change, -reset),)

    def drive(self, coefficients, membrane) -> jax.Array:
        """Return Re(u) less the threshold V."""
        return membrane[0].real - self.threshold
