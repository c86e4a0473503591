"""From features (B, L, H) to outputs: pooling over valid steps, then a linear map.

A head maps (x, state, ctx) to (outputs, state): (B, K), of all steps since the state was new, or
(B, L, K) where nothing is pooled, and where rows are packed: then each step has the output of the
steps since its reset, and the last step of an example has that of the example.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.recurrence import linear_recurrence
from pspike_jax.nn.block import Pass
from pspike_jax.nn.dense import ACTIVATIONS, linear

POOLS = ("mean", "last", "none")


def masked_mean(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Average x (B, L, H) over the steps where mask (B, L) is true, all if None: (B, H)."""
    if mask is None:
        return jnp.mean(x, axis=1)
    weight = mask[..., None].astype(x.dtype)
    return jnp.sum(x * weight, axis=1) / jnp.sum(weight, axis=1)


def last_valid(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Return x (B, L, H) at the last valid step of each example: (B, H)."""
    if lengths is None:
        return x[:, -1]
    return jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0]


def since_reset(x: jax.Array, resets: jax.Array) -> jax.Array:
    """Sum x (B, L, H) over the steps since the last reset (B, L), this one included: (B, L, H)."""
    one = jnp.ones((1, 1, 1), x.dtype)
    return linear_recurrence(one, x, resets=resets)


class PooledHead(nn.Module):
    """Pool over time, then map linearly.

    Attributes:
      num_outputs: K; None returns the pooled features themselves, K = H.
      pool: "mean" or "last" over valid steps, or "none" for outputs at every step.
      activation: of the outputs, a name in `dense.ACTIVATIONS`.
      kernel: how the linear map starts, a name in `dense.KERNELS`.
      bias: of the linear map.
    """

    num_outputs: int | None
    pool: str
    activation: str = "identity"
    kernel: str = "linear"
    bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass) -> tuple[jax.Array, dict]:
        """Return outputs as the module docstring says, and {"sum": (B, H) over all steps}."""
        x = x.astype(jnp.float32)
        pooled, state = pool_steps(x, self.pool, state, ctx)
        if self.num_outputs is None:
            return pooled, state
        how = {"kernel": self.kernel, "bias": self.bias}
        dense = linear(self.num_outputs, x.shape[-1], name="linear", **how)
        return ACTIVATIONS[self.activation](dense(pooled)), state

    @nn.nowrap
    def zero_state(self, batch_size: int, features: int) -> dict[str, jax.Array]:
        """Return the state before the first step."""
        return {"sum": jnp.zeros((batch_size, features), jnp.float32)}

    @nn.nowrap
    def macs_per_output(self, features: int) -> int:
        """Return multiply-accumulates of one output vector."""
        return features * (self.num_outputs or 0)


def pool_steps(
    x: jax.Array, pool: str, state: dict | None, ctx: Pass
) -> tuple[jax.Array, dict | None]:
    """Pool x (B, L, H) float32 as a head does; return what it maps, and the state after x."""
    if ctx.resets is not None:
        pooled = x if pool != "mean" else since_reset(x, ctx.resets) / _counts(ctx.steps)[..., None]
        return pooled, None
    if state is None:
        mean = lambda: masked_mean(x, ctx.mask)
        pooled = {"mean": mean, "last": lambda: last_valid(x, ctx.lengths), "none": lambda: x}
        return pooled[pool](), None
    total = state["sum"] + jnp.sum(x, axis=1)
    pooled = {"mean": total / _counts(ctx.steps[-1]), "last": x[:, -1], "none": x}
    return pooled[pool], {"sum": total}


def _counts(steps):
    return (steps + 1).astype(jnp.float32)


class Retrieval(nn.Module):
    """Compare pairs of documents: GELU(W [f1, f2, f1 - f2, f1 f2]) and a linear map (LRA matching).

    Attributes:
      num_outputs: K.
      pool: "mean" or "last" over valid steps.
    """

    num_outputs: int
    pool: str

    @nn.compact
    def __call__(self, x: jax.Array, state: None, ctx: Pass) -> tuple[jax.Array, None]:
        """Map features of both documents, (2 B, L, H), pairs in neighbouring rows, to (B, K)."""
        pooled, _ = pool_steps(x.astype(jnp.float32), self.pool, state, ctx)
        features = x.shape[-1]
        first, second = pooled[0::2], pooled[1::2]
        pair = jnp.concatenate([first, second, first - second, first * second], axis=-1)
        hidden = ACTIVATIONS["gelu"](linear(features, 4 * features, name="compare")(pair))
        return linear(self.num_outputs, features, name="linear")(hidden), None

    @nn.nowrap
    def macs_per_output(self, features: int) -> int:
        """Return multiply-accumulates of one output vector."""
        return features * (4 * features + self.num_outputs)
