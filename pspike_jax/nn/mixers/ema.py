"""Damped exponential moving averages: a diagonal SSM with real poles in (0, 1).

  x_t = q x_{t-1} + p beta u_t,    y_t = sum_n gamma_n x_{t,n} / sqrt(N) + omega u_t,
  p = sigmoid(delta),    q = 1 - p sigmoid(alpha)

Two-sided, averages of their own run from the end; both directions count the current step.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.linear_ssm import linear_ssm
from pspike_jax.nn.block import Pass
from pspike_jax.nn.placement import refuse_split_time
from pspike_jax.nn.roles import role


def narrow_normal(scale: float, axes: tuple, group: str, alternating: bool = False) -> Callable:
    """Return an initializer: N(0, scale^2) cut at two deviations, about 0 or (1, -1, 1, ...)."""

    def init(key, shape, dtype=jnp.float32):
        drawn = scale * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)
        signs = 1 - 2 * (jnp.arange(shape[-1]) % 2).astype(dtype)
        return drawn + jnp.broadcast_to(signs, shape) if alternating else drawn

    return role(init, axes, group)


class EMA(nn.Module):
    """Moving averages of each feature.

    Attributes:
      features: H.
      d_state: N, averages of a feature and direction.
      two_sided: averages from the end, too.
      engine: how the recurrence is evaluated.
    """

    features: int
    d_state: int
    two_sided: bool
    engine: Engine = Engine.AUTO

    def setup(self):
        shape = (2 if self.two_sided else 1, self.features, self.d_state)
        axes = (None, "features", "state")
        self.delta = self.param("delta", narrow_normal(0.2, axes, "dynamics"), shape)
        self.alpha = self.param("alpha", narrow_normal(0.2, axes, "dynamics"), shape)
        self.beta = self.param("beta", narrow_normal(0.02, axes, "dynamics", True), shape)
        self.gamma = self.param("gamma", narrow_normal(1.0, axes, "readout"), shape)
        omega = narrow_normal(1.0, ("features",), "decay")
        self.omega = self.param("omega", omega, (self.features,))

    def __call__(self, u: jax.Array, state: jax.Array | None, ctx: Pass):
        """Average u (B, L, H), whose padding counts as 0.

        Returns:
          y: (B, L, H) float32; state: (B, H, N) complex64, of the averages that look back.
        """
        refuse_split_time("moving averages")
        u = u.astype(jnp.float32)
        entering = u if ctx.mask is None else jnp.where(ctx.mask[..., None], u, 0)
        q, gain = averages(self.delta, self.alpha)
        gain, readout = gain * self.beta, self.gamma * self.d_state**-0.5
        y, final = linear_ssm(
            entering,
            *_complex(q[0], gain[0], readout[0]),
            initial_state=state,
            resets=ctx.resets,
            engine=self.engine,
        )
        if self.two_sided:
            resets = None
            if ctx.resets is not None:
                resets = jnp.pad(ctx.resets[:, 1:], [(0, 0), (0, 1)])[:, ::-1]
            ahead, _ = linear_ssm(
                entering[:, ::-1],
                *_complex(q[1], gain[1], readout[1]),
                resets=resets,
                engine=self.engine,
            )
            y = y + ahead[:, ::-1]
        return y + self.omega[None, None] * u, final

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return the state before the first step."""
        return jnp.zeros((batch_size, self.features, self.d_state), jnp.complex64)

    @property
    def macs_per_step(self) -> int:
        """Multiply-accumulates of one step: each average decays and is read; and the skip."""
        return self.features * (2 * self.d_state * (2 if self.two_sided else 1) + 1)


def averages(delta: jax.Array, alpha: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return poles q and gains p."""
    p = jax.nn.sigmoid(delta)
    return 1 - p * jax.nn.sigmoid(alpha), p


def _complex(*arrays):
    return tuple(jax.lax.complex(a, jnp.zeros_like(a)) for a in arrays)
