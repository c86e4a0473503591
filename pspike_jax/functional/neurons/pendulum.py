"""The damped, driven pendulum as a neuron of a network (Bose 2025); `functional.pendulum` has more.

  theta'' = -gamma theta' - omega0^2 sin(theta) + I,    it fires upside down, where theta reaches pi

The current holds over a step. `accurate` solves each step to rounding and starts anew from where in
it the pendulum fired; else a step is one of semi-implicit Euler, as in the author's program, and a
spike sets angle and velocity to 0 at its end.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.neuron import Coefficients, Membrane, Neuron, Params, clamp
from pspike_jax.functional.pendulum import PendulumState, pendulum

# Of the logarithms of damping and frequency: no finite parameter overflows.
_LOG_LIMITS = (-12.0, 4.0)


@dataclasses.dataclass(frozen=True)
class Pendulum(Neuron):
    """Pendulum neuron with trained damping and frequency.

    Attributes:
      gamma: damping where training starts.
      omega0: frequency of small swings where training starts.
      dt: step.
      accurate: solve to rounding, rather than by the author's scheme.
      parts: in how many parts an accurate step is solved; 0 for parts of 0.1 at most.
      threshold: angle at which it fires; pi where accurate.
    """

    gamma: float = 0.05
    omega0: float = 1.0
    dt: float = 0.1
    accurate: bool = True
    parts: int = 0
    threshold: float = dataclasses.field(default=math.pi, kw_only=True)

    fires_at_zero = True
    # Angle and velocity behind the step, and where it is anew if it fired within the step.
    membrane_dtypes = (jnp.float32,) * 4

    def __post_init__(self):
        if self.accurate and self.threshold != math.pi:
            raise ValueError(f"threshold is {self.threshold}; an accurate pendulum fires at pi")

    def init(self, key: jax.Array, features: int) -> Params:
        """Return the logarithms of damping and frequency; nothing is drawn."""
        del key
        full = lambda value: jnp.full((features,), math.log(value), jnp.float32)
        return {"log_gamma": full(self.gamma), "log_omega0": full(self.omega0)}

    def coefficients(self, params: Params) -> Coefficients:
        """Return gamma and omega0."""
        names = ("log_gamma", "log_omega0")
        return tuple(jnp.exp(clamp(params[name], *_LOG_LIMITS)) for name in names)

    def update(self, coefficients, membrane, spikes, reset, current) -> Membrane:
        """Take one step, from where the last spike left the pendulum."""
        theta, omega, theta_anew, omega_anew = membrane
        theta = (1 - reset) * theta + reset * theta_anew
        omega = (1 - reset) * omega + reset * omega_anew
        gamma, omega0 = coefficients
        if self.accurate:
            return self._solved(gamma, omega0, theta, omega, current)
        push = current - gamma * omega - jnp.square(omega0) * jnp.sin(theta)
        omega = omega + self.dt * push
        theta = theta + self.dt * omega
        return theta, omega, jnp.zeros_like(theta), jnp.zeros_like(omega)

    def _solved(self, gamma, omega0, theta, omega, current):
        zero = jnp.zeros_like(theta)
        state = PendulumState(theta, omega, zero, zero, jnp.zeros(theta.shape, jnp.int32))
        swing = lambda reset: pendulum(
            current[None, None],
            gamma,
            omega0,
            self.dt,
            state,
            reset=reset,
            parts=self.parts or None,
        )[2]
        free, anew = swing(False), swing(True)
        turned = free.turns.astype(jnp.float32) * (2 * math.pi)
        full = lambda state: (state.theta + state.theta_rest, state.omega + state.omega_rest)
        theta, omega = full(free)
        return theta + turned, omega, *full(anew)


def small_swing_poles(neuron: Pendulum, params: Params) -> jax.Array:
    """Return what a step multiplies small free swings by, one of each pair, (H,) complex64.

    They are those of the damped oscillator, exp(dt (-gamma / 2 +- sqrt(gamma^2 / 4 - omega0^2))).
    """
    gamma, omega0 = neuron.coefficients(params)
    inside = jnp.square(gamma) / 4 - jnp.square(omega0)
    root = jnp.sqrt(jax.lax.complex(inside, jnp.zeros_like(inside)))
    return jnp.exp(neuron.dt * (root - jax.lax.complex(gamma / 2, jnp.zeros_like(gamma))))
