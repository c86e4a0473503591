"""Gated linear attention (Yang et al., arXiv:2312.06635): keys, values, queries, and forget gates.

S_t = diag(a_t) S_{t-1} + k_t v_t^T and o_t = S_t^T q_t / sqrt(N), for each head; a_t, a gate for
each row of S, is sigmoid(W_2 W_1 u + b)^(1/16). Behind it a norm of each head's output, and a gate.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.nn.block import Pass
from pspike_jax.nn.dense import linear
from pspike_jax.nn.mixers.gates import SUPPORTS, placed_gated, steps_of
from pspike_jax.nn.norm import rms_norm

# Root of the gate, which lets it stay near 1, and rank of its product, in the paper.
GATE_ROOT = 16.0
GATE_RANK = 16


class GatedLinearAttention(nn.Module):
    """The layer of the paper.

    Attributes:
      features: M, of the residual stream.
      heads: H.
      d_state: N, keys of a head: rows of its state.
      engine: how the recurrence is evaluated.
      spiking: inputs are spikes, kept as bits for the backward pass.
    """

    features: int
    heads: int = 4
    d_state: int = 16
    engine: Engine | str = Engine.AUTO
    spiking: bool = False

    supports = SUPPORTS

    @nn.compact
    def __call__(
        self,
        u: jax.Array,
        state: jax.Array | None = None,
        ctx: Pass | None = None,
        *,
        reverse: bool = False,
    ):
        """Run the layer.

        Args:
          u: (B, L, M).
          state: (B, H, N, P) with P = M / H, zero if None.
          ctx: the pass; its resets start states anew, its dt multiplies logarithms of gates.
          reverse: run from the last step to the first.

        Returns:
          y: (B, L, M) float32; state: after the last step.
        """
        M, keys = self.features, self.heads * self.d_state
        steps = steps_of(ctx, reverse)
        u = u[:, ::-1] if reverse else u
        dense = lambda size, name, bias=False: linear(
            size, M, name, u.dtype, self.spiking, bias=bias
        )(u)
        by_head = lambda a: a.reshape(*a.shape[:2], self.heads, -1)
        q = by_head(dense(keys, "query")) * jnp.asarray(self.d_state**-0.5, u.dtype)
        k, v = by_head(dense(keys, "key")), by_head(dense(M, "value"))
        gate = linear(keys, GATE_RANK, "gate_up", u.dtype)(dense(GATE_RANK, "gate_down"))
        log_decay = jax.nn.log_sigmoid(by_head(gate).astype(jnp.float32)) / GATE_ROOT
        if steps.mask is not None:
            k = jnp.where(steps.mask[..., None, None], k, 0)
        y, state = placed_gated(
            v, k, q, steps.times(log_decay), initial_state=state, resets=steps.resets,
            engine=self.engine,
        )
        y = rms_norm("norm")(y).reshape(u.shape)
        y = y * jax.nn.silu(dense(M, "output_gate", bias=True).astype(jnp.float32))
        y = linear(M, M, "output", u.dtype, bias=False)(y.astype(u.dtype)).astype(jnp.float32)
        return y[:, ::-1] if reverse else y, state

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return the state before the first step."""
        shape = (batch_size, self.heads, self.d_state, self.features // self.heads)
        return jnp.zeros(shape, jnp.float32)

    @property
    def macs_per_step(self) -> int:
        """Multiply-accumulates that decay, drive and read the states in one step."""
        return 3 * self.features * self.d_state

    @property
    def dense_macs_per_step(self) -> int:
        """Those of all else behind the products with the inputs."""
        M = self.features
        return GATE_RANK * self.heads * self.d_state + M * (M + 3)

    @property
    def fan_out(self) -> int:
        """Numbers that one spike of an input adds to."""
        return 2 * self.heads * self.d_state + 2 * self.features + GATE_RANK

    @staticmethod
    def poles(params) -> None:
        """Return None: decays follow the inputs."""
        del params
