"""The mixer of Mamba (Gu & Dao, arXiv:2312.00752): a state space whose step size, B and C follow x.

[x, z] = W_in u; x = silu(conv(x)); [r, B, C] = W_x x; dt = softplus(W_dt r + b); the scan; W_out.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.selective import selective_scan, step_sizes
from pspike_jax.nn.block import Pass
from pspike_jax.nn.dense import linear
from pspike_jax.nn.mixers.gates import (
    SUPPORTS,
    ShortConvolution,
    placed_selective,
    step_bias,
    steps_of,
)
from pspike_jax.nn.roles import role


class SelectiveMixer(nn.Module):
    """S6 between projections, with a convolution before it and a gate behind it.

    Attributes:
      features: H.
      d_state: N, states of one channel.
      d_conv: K, steps that the convolution sees.
      expand: channels for each feature, E = expand H.
      dt_min: smallest initial step size.
      dt_max: largest initial step size.
      engine: how the recurrence is evaluated.
      spiking: inputs are spikes, kept as bits for the backward pass.
    """

    features: int
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_min: float = 1e-3
    dt_max: float = 0.1
    engine: Engine | str = Engine.AUTO
    spiking: bool = False

    supports = SUPPORTS

    @nn.compact
    def __call__(
        self,
        u: jax.Array,
        state: dict[str, jax.Array] | None = None,
        ctx: Pass | None = None,
        *,
        reverse: bool = False,
    ):
        """Run the mixer.

        Args:
          u: (B, L, H).
          state: {"conv": (B, K, E), "ssm": (B, E, N)}, zero if None.
          ctx: the pass; its resets start states anew, its dt multiplies the step sizes.
          reverse: run from the last step to the first.

        Returns:
          y: (B, L, H) float32; state: after the last step.
        """
        E, N, R = self.channels, self.d_state, self.rank
        before = state or {"conv": None, "ssm": None}
        steps = steps_of(ctx, reverse)
        u = u[:, ::-1] if reverse else u
        dense = lambda size, fan_in, name, **how: linear(
            size, fan_in, name, u.dtype, bias=False, **how
        )
        into = dense(2 * E, self.features, "in_proj", spiking=self.spiking)
        x, z = jnp.split(into(u), 2, axis=-1)
        convolution = ShortConvolution(E, self.d_conv, name="conv")
        x, conv = convolution(x, before["conv"], steps)
        r, B, C = jnp.split(dense(R + 2 * N, E, "x_proj")(x.astype(u.dtype)), (R, R + N), axis=-1)
        bias = self.param("dt_bias", step_bias(self.dt_min, self.dt_max), (E,))
        dt = step_sizes(self._from_rank(r), bias)
        y, ssm = selective_scan(
            x, steps.times(dt), -jnp.exp(self._rates()), B, C, D=skip(self, E), z=z,
            initial_state=before["ssm"], recurrence=placed_selective,
            resets=steps.resets, engine=self.engine,
        )
        y = dense(self.features, E, "out_proj")(y.astype(u.dtype)).astype(jnp.float32)
        return y[:, ::-1] if reverse else y, {"conv": conv, "ssm": ssm}

    def _rates(self):
        def init(_, shape):
            return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[1] + 1, dtype=jnp.float32)), shape)

        axes = ("features", "state")
        return self.param("A_log", role(init, axes, "dynamics"), (self.channels, self.d_state))

    def _from_rank(self, r):
        bound = self.rank**-0.5
        init = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)
        axes = ("inputs", "features")
        kernel = self.param("dt_kernel", role(init, axes, "decay"), (self.rank, self.channels))
        return r @ kernel.astype(r.dtype)

    @property
    def channels(self) -> int:
        """E."""
        return self.expand * self.features

    @property
    def rank(self) -> int:
        """R, numbers that step sizes are made from."""
        return math.ceil(self.features / 16)

    @nn.nowrap
    def zero_state(self, batch_size: int) -> dict[str, jax.Array]:
        """Return the state before the first step."""
        conv = ShortConvolution(self.channels, self.d_conv, parent=None)
        ssm = jnp.zeros((batch_size, self.channels, self.d_state), jnp.float32)
        return {"conv": conv.zero_state(batch_size), "ssm": ssm}

    @property
    def macs_per_step(self) -> int:
        """Multiply-accumulates that decay, drive and read the states in one step."""
        return 3 * self.channels * self.d_state

    @property
    def dense_macs_per_step(self) -> int:
        """Those of all else behind the product with the inputs."""
        products = 2 * self.rank + 2 * self.d_state + self.features
        return self.channels * (self.d_conv + products + 3)

    @property
    def fan_out(self) -> int:
        """Numbers that one spike of an input adds to: channels and their gates."""
        return 2 * self.channels

    @staticmethod
    def poles(params) -> None:
        """Return None: decays follow the inputs."""
        del params


def skip(module: nn.Module, size: int) -> jax.Array:
    """Return the parameter D of a module, which starts at 1."""
    init = role(lambda _, shape: jnp.ones(shape, jnp.float32), ("features",), "no_decay")
    return module.param("D", init, (size,))
