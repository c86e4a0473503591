"""Leaky neurons in the convention of spiking state spaces: the current enters whole.

  soft        u_t = tau (u_{t-1} - V s_{t-1}) + I_t,    s_t = 1[u_t >= V]
  hard        u_t = tau (1 - s_{t-1}) u_{t-1} + I_t,    s_t = 1[u_t >= V]
  refractory  as soft, with a_t = rho a_{t-1} + s_{t-1} and s_t = 1[u_t - kappa a_t >= V]

SpikingSSM's neuron is the hard one at tau 0.125 (Shen et al. 2024, "bptt" with the reset detached;
"sltt" cuts the leak out of the backward pass too). The soft one with a detached reset is also
PRF's decoupled reset. The refractory one follows SPikE-SSM (arXiv 2410.17268), of which no program
exists: every spike lifts the threshold by kappa, and that fades by rho a step.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.neuron import (
    Coefficients,
    Membrane,
    Neuron,
    Params,
    log_threshold,
)


@dataclasses.dataclass(frozen=True)
class LeakyNeuron(Neuron):
    """What the three have in common; coefficients are (tau, V, ...), (1,) where not trained.

    Attributes:
      leak: tau, in (0, 1); where training starts if it is trained.
      trained_leak: whether each neuron trains its tau, as a logit.
      trained_threshold: whether each neuron trains its threshold, in its logarithm.
      fires_at_zero: whether a membrane at the threshold fires.
      detach_leak: the membrane before a step is a constant of the backward pass.
    """

    leak: float = 0.125
    trained_leak: bool = dataclasses.field(default=False, kw_only=True)
    trained_threshold: bool = dataclasses.field(default=False, kw_only=True)
    fires_at_zero: bool = dataclasses.field(default=True, kw_only=True)
    detach_leak: bool = dataclasses.field(default=False, kw_only=True)

    def init(self, key: jax.Array, features: int) -> Params:
        """Return the trained parameters, perhaps none; nothing is drawn."""
        params = {}
        if self.trained_leak:
            logit = math.log(self.leak / (1 - self.leak))
            params["leak_logit"] = jnp.full((features,), logit, jnp.float32)
        if self.trained_threshold:
            params |= log_threshold(self.threshold, features)
        return params

    def coefficients(self, params: Params) -> Coefficients:
        """Return tau and V."""
        leak, threshold = jnp.full((1,), self.leak, jnp.float32), self.threshold
        if self.trained_leak:
            leak = jax.nn.sigmoid(params["leak_logit"])
        if self.trained_threshold:
            return leak, jnp.exp(params["log_threshold"])
        return leak, jnp.full((1,), threshold, jnp.float32)

    def drive(self, coefficients, membrane) -> jax.Array:
        """Return the membrane less the threshold."""
        return membrane[0] - coefficients[1]

    def _kept(self, u):
        return jax.lax.stop_gradient(u) if self.detach_leak else u


@dataclasses.dataclass(frozen=True)
class SoftResetLIF(LeakyNeuron):
    """Leaky neuron from which a spike subtracts the threshold."""

    reset = "soft"

    def update(self, coefficients, membrane, spikes, reset, current) -> Membrane:
        """Subtract the threshold where there was a spike, leak, integrate."""
        (leak, threshold), (u,) = coefficients, membrane
        return (leak * (self._kept(u) - threshold * reset) + current,)

    def between_spikes(self, coefficients, spikes, current):
        """Return the leak, and what enters beside it."""
        leak, threshold = coefficients
        return ((leak, current - leak * threshold * spikes),)


@dataclasses.dataclass(frozen=True)
class HardResetLIF(LeakyNeuron):
    """Leaky neuron that a spike sets to zero."""

    reset = "hard"

    def update(self, coefficients, membrane, spikes, reset, current) -> Membrane:
        """Forget the membrane where there was a spike, leak, integrate."""
        (leak, _), (u,) = coefficients, membrane
        return (leak * ((1 - reset) * self._kept(u)) + current,)

    def between_spikes(self, coefficients, spikes, current):
        """Return the gated leak, and the current."""
        return ((coefficients[0] * (1 - spikes), current),)


@dataclasses.dataclass(frozen=True)
class RefractoryLIF(LeakyNeuron):
    """Soft reset, and a threshold that each spike lifts for a while.

    Attributes:
      magnitude: kappa, by how much; where training starts if it is trained.
      refractory_decay: rho, what a step leaves of it.
      trained_magnitude: whether each neuron trains its kappa, in its logarithm.
    """

    magnitude: float = 0.5
    refractory_decay: float = 0.6
    trained_magnitude: bool = dataclasses.field(default=False, kw_only=True)

    reset = "refractory"
    membrane_dtypes = (jnp.float32,) * 2

    def init(self, key: jax.Array, features: int) -> Params:
        """Return the trained parameters, perhaps none; nothing is drawn."""
        params = super().init(key, features)
        if self.trained_magnitude:
            start = math.log(self.magnitude)
            params["log_magnitude"] = jnp.full((features,), start, jnp.float32)
        return params

    def coefficients(self, params: Params) -> Coefficients:
        """Return tau, V, rho and kappa."""
        kappa = jnp.full((1,), self.magnitude, jnp.float32)
        if self.trained_magnitude:
            kappa = jnp.exp(params["log_magnitude"])
        rho = jnp.full((1,), self.refractory_decay, jnp.float32)
        return (*super().coefficients(params), rho, kappa)

    def update(self, coefficients, membrane, spikes, reset, current) -> Membrane:
        """Subtract the threshold where there was a spike, and remember the spike."""
        (leak, threshold, rho, _), (u, a) = coefficients, membrane
        return leak * (self._kept(u) - threshold * reset) + current, rho * a + reset

    def drive(self, coefficients, membrane) -> jax.Array:
        """Return the membrane less the lifted threshold."""
        (_, threshold, _, kappa), (u, a) = coefficients, membrane
        return u - threshold - kappa * a

    def between_spikes(self, coefficients, spikes, current):
        """Return leak and rho, and what enters beside them."""
        leak, threshold, rho, _ = coefficients
        return (leak, current - leak * threshold * spikes), (rho, spikes)
