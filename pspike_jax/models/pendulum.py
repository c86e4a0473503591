"""Networks of pendulum neurons (arXiv 2507.22146): driven pendulums that fire upside down."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.pendulum import Pendulum, small_swing_poles
from pspike_jax.models.silif import NetworkConfig, SpikingNetwork


class PendulumNetwork(SpikingNetwork):
    """A network of layers of pendulum neurons; see `SpikingNetwork`."""

    @nn.nowrap
    def poles(self, params) -> jax.Array | None:
        """Return the poles of small swings; None where widths differ."""
        if len(set(self.config.widths)) > 1:
            return None
        layers = range(len(self.config.widths))
        cells = [params["backbone"][f"layers_{i}"]["neurons"]["neuron"] for i in layers]
        return jnp.stack([small_swing_poles(self.config.neuron, cell) for cell in cells])[..., None]


PI = Pendulum().threshold
PRESETS = {
    # A batch norm's currents of variance 1 turn pendulums over that swing once in 110 steps. With
    # them, two parts of a step gave the spikes of ten in all of 400,000 steps of neurons. With a
    # damping of 0.1 gradients through swings that nearly turn over grow until training stalls.
    "default": NetworkConfig(
        neuron=Pendulum(gamma=0.3, omega0=0.4, dt=0.5, parts=2), kernel="xavier", threshold=PI
    ),
    # The same pendulums by the author's scheme, for training that cannot wait.
    "euler": NetworkConfig(
        neuron=Pendulum(gamma=0.3, omega0=0.4, dt=0.5, accurate=False),
        kernel="xavier",
        threshold=PI,
    ),
    # Semi-implicit Euler, damping, frequency and step of the author's script.
    "author": NetworkConfig(neuron=Pendulum(accurate=False), kernel="xavier", threshold=PI),
    "tiny": NetworkConfig(
        neuron=Pendulum(gamma=0.1, omega0=0.4, dt=1.0, accurate=False),
        num_outputs=3,
        widths=(6, 6),
        norm="layer",
        threshold=PI,
        surrogate="arctan",
    ),
}
