"""Resonators that fire and never reset, and what stands for a reset where neurons have one.

The parallel resonate-and-fire neuron (PRF, Huang et al., arXiv 2410.03530), a complex membrane z
whose real part is compared with a threshold V:

    z_t = beta z_{t-1} + dt x_t,    beta = exp(dt (-rate + i theta)),    s_t = [Re z_t >= V]

Nothing feeds a spike back, so the membrane is a diagonal linear recurrence. With a reset, the
threshold is V + a_t in the place of V, and a decays as Re beta has it:

    a_{t+1} = Re(beta) (a_t + V s_t),    a_0 = 0.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from pspike_jax.functional.initializers import log_uniform_dt
from pspike_jax.functional.neurons.neuron import Membrane, Neuron, Params


def resonator(
    log_dt: jax.Array, theta_log: jax.Array, rate: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """Return what a step leaves of the membrane, beta, and what it takes of the input, dt.

    Args:
      log_dt: (H,) log of the step.
      theta_log: (H,) log of the angular frequency.
      rate: (H,) or a number, positive; a step multiplies the membrane by exp(-dt rate).

    Returns:
      beta: (H,) complex64.
      dt: (H,) float32.
    """
    dt = jnp.exp(log_dt)
    turn = dt * jnp.exp(theta_log)
    size = jnp.exp(-dt * rate)
    return jax.lax.complex(size * jnp.cos(turn), size * jnp.sin(turn)), dt


def init_resonator(
    key: jax.Array,
    features: int,
    *,
    tau: float,
    fr_scale: float,
    dt_min: float,
    dt_max: float,
    trained_rate: bool,
) -> Params:
    """Draw the parameters of H resonators.

    Args:
      key: PRNG key, consumed.
      features: H.
      tau: time constant 1 / rate.
      fr_scale: frequencies theta are uniform in (0, 2 pi / fr_scale).
      dt_min: smallest step; the logarithm of a step is uniform.
      dt_max: largest step.
      trained_rate: whether each neuron trains its rate, as gamma = log(1 / tau).

    Returns:
      {"log_dt", "theta_log", and "gamma" where the rate is trained}, (H,) float32 each.
    """
    of_step, of_theta = jax.random.split(key)
    least = jnp.finfo(jnp.float32).tiny  # log 0 is no frequency
    theta = jax.random.uniform(of_theta, (features,), jnp.float32, least, 2 * math.pi / fr_scale)
    params = {
        "log_dt": jnp.log(log_uniform_dt(of_step, (features,), dt_min, dt_max)),
        "theta_log": jnp.log(theta),
    }
    if trained_rate:
        params["gamma"] = jnp.full((features,), -math.log(tau), jnp.float32)
    return params


@dataclasses.dataclass(frozen=True)
class ResettingResonator(Neuron):
    """PRF with a reset: a spike lifts the threshold, which falls back as the membrane decays.

    Run it with a detached reset, as published: the spikes in the threshold take no gradient.

    Attributes:
      tau: time constant.
      fr_scale: as in `init_resonator`, as are the rest.
      dt_min: smallest initial step.
      dt_max: largest initial step.
      trained_rate: whether each neuron trains its time constant.
    """

    tau: float = 2.0
    fr_scale: float = 1.0
    dt_min: float = 1e-3
    dt_max: float = 0.1
    trained_rate: bool = False

    membrane_dtypes = (jnp.complex64, jnp.float32)
    fires_at_zero = True

    def init(self, key: jax.Array, features: int) -> Params:
        """Draw steps and frequencies; the key is consumed."""
        return init_resonator(
            key, features, tau=self.tau, fr_scale=self.fr_scale, dt_min=self.dt_min,
            dt_max=self.dt_max, trained_rate=self.trained_rate,
        )

    def coefficients(self, params: Params) -> tuple[jax.Array, ...]:
        """Return beta and the step."""
        rate = jnp.exp(params["gamma"]) if self.trained_rate else 1 / self.tau
        return resonator(params["log_dt"], params["theta_log"], rate)

    def update(self, coefficients, membrane, spikes, reset, current) -> Membrane:
        """Turn and shrink the membrane, take the current in, let the threshold fall."""
        (beta, dt), (z, lift) = coefficients, membrane
        turned = beta * z
        z = jax.lax.complex(turned.real + dt * current, turned.imag)
        return z, beta.real * (lift + self.threshold * reset)

    def drive(self, coefficients, membrane) -> jax.Array:
        """Return the real part less the lifted threshold."""
        z, lift = membrane
        return z.real - self.threshold - lift
