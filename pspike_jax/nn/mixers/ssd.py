"""The mixer of Mamba-2 (Dao & Gu, arXiv:2405.21060): heads with one decay, whose state is a matrix.

[z, x, B, C, dt] = W_in u; x, B, C through one convolution; the scan; gate, then norm; W_out.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.selective import ssd_scan, step_sizes
from pspike_jax.nn.block import Pass
from pspike_jax.nn.dense import linear
from pspike_jax.nn.mixers.gates import (
    SUPPORTS,
    ShortConvolution,
    placed_gated,
    step_bias,
    steps_of,
)
from pspike_jax.nn.mixers.selective import skip
from pspike_jax.nn.norm import rms_norm
from pspike_jax.nn.roles import role


class SSDMixer(nn.Module):
    """SSD between projections.

    Attributes:
      features: M, of the residual stream.
      d_state: N, rows of a head's state.
      d_conv: K, steps that the convolution sees.
      expand: channels for each feature, E = expand M.
      head_features: P, channels of a head; H = E / P heads.
      groups: G, each of which has a B and a C for H / G heads.
      rates: A starts as minus a uniform draw between these.
      learned_start: the state before the first step is learnt.
      dt_min: smallest initial step size.
      dt_max: largest initial step size.
      engine: how the recurrence is evaluated.
      spiking: inputs are spikes, kept as bits for the backward pass.
    """

    features: int
    d_state: int = 64
    d_conv: int = 4
    expand: int = 2
    head_features: int = 64
    groups: int = 1
    rates: tuple[float, float] = (1.0, 16.0)
    learned_start: bool = False
    dt_min: float = 1e-3
    dt_max: float = 0.1
    engine: Engine | str = Engine.AUTO
    spiking: bool = False

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
          u: (B, L, M).
          state: as `zero_state` gives it; None before the first step.
          ctx: the pass; its resets start states anew, its dt multiplies the step sizes.
          reverse: run from the last step to the first.

        Returns:
          y: (B, L, M) float32; state: after the last step.
        """
        E, GN = self.channels, self.groups * self.d_state
        steps = steps_of(ctx, reverse)
        u = u[:, ::-1] if reverse else u
        size = 2 * E + 2 * GN + self.heads
        into = linear(size, self.features, "in_proj", u.dtype, self.spiking, bias=False)
        z, xBC, dt = jnp.split(into(u), (E, 2 * E + 2 * GN), axis=-1)
        convolution = ShortConvolution(E + 2 * GN, self.d_conv, name="conv")
        xBC, conv = convolution(xBC, None if state is None else state["conv"], steps)
        x, B, C = jnp.split(xBC.astype(u.dtype), (E, E + GN), axis=-1)
        by_group = lambda a: a.reshape(*a.shape[:2], self.groups, self.d_state)
        bias = self.param("dt_bias", step_bias(self.dt_min, self.dt_max), (self.heads,))
        dt = step_sizes(dt, bias)
        y, ssm = ssd_scan(
            x.reshape(*x.shape[:2], self.heads, self.head_features), steps.times(dt),
            -jnp.exp(self._rates()), by_group(B), by_group(C), D=skip(self, self.heads),
            initial_state=self._start(u.shape[0], state), recurrence=placed_gated,
            resets=steps.resets, engine=self.engine,
        )
        y = y.reshape(x.shape) * jax.nn.silu(z.astype(jnp.float32))
        y = rms_norm("norm")(y).astype(u.dtype)
        y = linear(self.features, E, "out_proj", u.dtype, bias=False)(y).astype(jnp.float32)
        final = {"conv": conv, "ssm": ssm}
        if self.learned_start:
            final["started"] = jnp.ones((u.shape[0],), bool)
        return y[:, ::-1] if reverse else y, final

    def _rates(self):
        def init(key, shape):
            return jnp.log(jax.random.uniform(key, shape, jnp.float32, *self.rates))

        return self.param("A_log", role(init, ("features",), "dynamics"), (self.heads,))

    def _start(self, batch, state):
        """Return the state (B, H, N, P) before the first of these steps."""
        if not self.learned_start:
            return None if state is None else state["ssm"]
        shape = (self.heads, self.head_features, self.d_state)
        init = role(lambda _, shape: jnp.zeros(shape, jnp.float32), ("features", None, "state"),
                    "no_decay")
        start = self.param("init_states", init, shape).swapaxes(1, 2)
        start = jnp.broadcast_to(start[None], (batch, *start.shape))
        if state is None:
            return start
        return jnp.where(state["started"][:, None, None, None], state["ssm"], start)

    @property
    def channels(self) -> int:
        """E."""
        return self.expand * self.features

    @property
    def heads(self) -> int:
        """H."""
        return self.channels // self.head_features

    @property
    def supports(self) -> frozenset[str]:
        """What the mixer can do; a reset cannot restore a learnt start."""
        return SUPPORTS - ({"resets"} if self.learned_start else set())

    @nn.nowrap
    def zero_state(self, batch_size: int) -> dict[str, jax.Array]:
        """Return {"conv": (B, K, E + 2 G N), "ssm": (B, H, N, P)} before the first step.

        Where the start is learnt there also is "started" (B,), false until then.
        """
        channels = self.channels + 2 * self.groups * self.d_state
        conv = ShortConvolution(channels, self.d_conv, parent=None)
        shape = (batch_size, self.heads, self.d_state, self.head_features)
        state = {"conv": conv.zero_state(batch_size), "ssm": jnp.zeros(shape, jnp.float32)}
        return state | ({"started": jnp.zeros((batch_size,), bool)} if self.learned_start else {})

    @property
    def macs_per_step(self) -> int:
        """Multiply-accumulates that decay, drive and read the states in one step."""
        return 3 * self.channels * self.d_state

    @property
    def dense_macs_per_step(self) -> int:
        """Those of all else behind the product with the inputs."""
        E = self.channels
        return (E + 2 * self.groups * self.d_state) * self.d_conv + E * (self.features + 5)

    @property
    def fan_out(self) -> int:
        """Numbers that one spike of an input adds to."""
        return 2 * self.channels + 2 * self.groups * self.d_state + self.heads

    @staticmethod
    def poles(params) -> None:
        """Return None: decays follow the inputs."""
        del params
