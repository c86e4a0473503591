"""Convolutional neurons whose own spikes steer their next step: an autapse (arXiv 2406.00405).

With s the layer's spikes of the step before, GN group norms and * convolutions,

    X = GN(K_x * x) (1 + tanh GN(K_v * s))      what enters,
    G = 1 + tanh GN(K_h * s)                    what is kept of the membrane,

    lif   h = h G + X
    plif  h = h G sigmoid(a) + X (1 - sigmoid(a))
    lmh   d = d (sigmoid(d_u) - 1/2) + h (sigmoid(s_u) - 1/2) + X
          h = d (sigmoid(d_p) + 1/2) + h G (sigmoid(s_p) + 1/2)

and then s = [h >= 1], h = h - s. What a step keeps depends on spikes and on the input, so there is
no form that is parallel in time.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.firing import fire
from pspike_jax.functional.surrogates import sigmoid
from pspike_jax.nn.dense import KERNELS
from pspike_jax.nn.norm import EPSILON, ONES, ZEROS
from pspike_jax.nn.roles import role

CELLS = ("lif", "plif", "lmh")
# The neuron's own trained numbers, all 0 at first.
_TRAINED = {"lif": (), "plif": ("decay",), "lmh": ("d_u", "s_u", "d_p", "s_p")}


class CellState(NamedTuple):
    """What a cell carries from frame to frame: (B, H, W, features) float32 each.

    Attributes:
      spikes: of the last step.
      membrane: h, behind the reset.
      dendrite: d; stays 0 but in "lmh".
    """

    spikes: jax.Array
    membrane: jax.Array
    dendrite: jax.Array


class AutapticCell(nn.Module):
    """One step of a layer of convolutional neurons.

    Attributes:
      kind: one of `CELLS`.
      features: channels of the layer, a multiple of groups.
      filter_size: of all convolutions, odd.
      groups: of the convolutions of spikes, and of the norms.
      detach: the layer's own spikes are constants of the backward pass where they steer.
      dtype: of convolutions.
    """

    kind: str
    features: int
    filter_size: int
    groups: int = 16
    detach: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, state: CellState) -> CellState:
        """Take in a frame x (B, H, W, channels)."""
        spikes, h, d = state
        steering = jax.lax.stop_gradient(spikes) if self.detach else spikes
        steer = lambda name: 1 + jnp.tanh(self._normed(name, steering, self.groups))
        entering = self._normed("input", x, 1) * steer("input_gate")
        gate = steer("membrane_gate")
        init = role(nn.initializers.zeros, (None,), "dynamics")
        own = {name: self.param(name, init, (1,), jnp.float32) for name in _TRAINED[self.kind]}
        share = {name: jax.nn.sigmoid(a)[None, None, None] for name, a in own.items()}
        if self.kind == "lif":
            h = h * gate + entering
        elif self.kind == "plif":
            h = h * gate * share["decay"] + entering * (1 - share["decay"])
        else:
            d = d * (share["d_u"] - 0.5) + h * (share["s_u"] - 0.5) + entering
            h = d * (share["d_p"] + 0.5) + h * gate * (share["s_p"] + 0.5)
        spikes = fire(sigmoid, True, h - 1)
        reset = jax.lax.stop_gradient(spikes) if self.kind == "lmh" else spikes
        return CellState(spikes, h - reset, d)

    def _normed(self, name, x, groups):
        convolved = nn.Conv(
            self.features,
            (self.filter_size, self.filter_size),
            padding="SAME",
            use_bias=False,
            feature_group_count=groups,
            dtype=self.dtype,
            kernel_init=role(KERNELS["linear"], (None, None, "inputs", "features"), "decay"),
            name=name,
        )(x.astype(self.dtype))
        norm = nn.GroupNorm(
            self.groups,
            epsilon=EPSILON,
            dtype=jnp.float32,
            scale_init=ONES,
            bias_init=ZEROS,
            use_fast_variance=False,
            name=f"{name}_norm",
        )
        return norm(convolved.astype(jnp.float32))

    @nn.nowrap
    def zero_state(self, batch_size: int, height: int, width: int) -> CellState:
        """Return the state before the first frame."""
        zeros = jnp.zeros((batch_size, height, width, self.features), jnp.float32)
        return CellState(zeros, zeros, zeros)

    @nn.nowrap
    def macs_per_position(self, channels: int) -> tuple[int, int]:
        """Return (multiply-accumulates of the input's convolution, of those of own spikes)."""
        area = self.filter_size**2
        return area * channels * self.features, 2 * area * self.features**2 // self.groups
