"""What mixers whose decay follows their input share: placement, convolution, padding, step sizes.

Their state holds what a convolution remembers and the matrix or vector of each channel or head. A
time between steps multiplies the step size, or the logarithm of the decay; the convolution before
it counts steps, not time.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.gated import (
    gated_recurrence,
    selective_recurrence,
    sequence_parallel_gated,
    sequence_parallel_selective,
)
from pspike_jax.functional.initializers import log_uniform_dt
from pspike_jax.functional.selective import inverse_softplus
from pspike_jax.functional.short_convolution import short_convolution
from pspike_jax.nn.block import Pass
from pspike_jax.nn.placement import over_time
from pspike_jax.nn.roles import role

SUPPORTS = frozenset({"streaming", "resets", "dt", "sequence"})
# Step sizes start no smaller than this, in the published programs.
SMALLEST_STEP = 1e-4


class Steps(NamedTuple):
    """What a mixer needs of a pass, in the direction in which it runs.

    Attributes:
      mask: (B, L) bool, the valid steps, or None.
      resets: (B, L) bool, or None.
      dt: (B, L) float32, or None.
    """

    mask: jax.Array | None = None
    resets: jax.Array | None = None
    dt: jax.Array | None = None

    def times(self, rate: jax.Array) -> jax.Array:
        """Multiply rates (B, L, ...) by the time of each step: none passes in padding."""
        wide = lambda a: a.reshape(a.shape + (1,) * (rate.ndim - 2))
        rate = rate if self.dt is None else rate * wide(self.dt.astype(rate.dtype))
        return rate if self.mask is None else jnp.where(wide(self.mask), rate, 0)


def steps_of(ctx: Pass | None, reverse: bool) -> Steps:
    """Return the steps of a pass; resets and dt belong to passes that look back only."""
    if ctx is None:
        return Steps()
    steps = Steps(ctx.mask, ctx.resets, ctx.dt)
    return jax.tree.map(lambda a: a[:, ::-1], steps) if reverse else steps


def placed_selective(
    x, dt, A, b, c, *, initial_state=None, resets=None, engine: Engine | str = Engine.AUTO
):
    """Run `selective_recurrence`, over parts of the sequence where the mesh splits time."""

    def run(u, A, state, *, axis_name):
        *given, resets = u
        x, dt, b, c = given
        how = {"initial_state": state, "resets": resets}
        if axis_name is not None:
            return sequence_parallel_selective(x, dt, A, b, c, axis_name=axis_name, **how)
        return selective_recurrence(x, dt, A, b, c, engine=engine, **how)

    return over_time(run, (x, dt, b, c, resets), A, initial_state, mixes=True)


def placed_gated(
    x, b, c, log_decay, *, initial_state=None, resets=None, engine: Engine | str = Engine.AUTO
):
    """Run `gated_recurrence`, over parts of the sequence where the mesh splits time."""

    def run(u, _, state, *, axis_name):
        *given, resets = u
        how = {"initial_state": state, "resets": resets}
        if axis_name is not None:
            return sequence_parallel_gated(*given, axis_name=axis_name, **how)
        return gated_recurrence(*given, engine=engine, **how)

    return over_time(run, (x, b, c, log_decay, resets), None, initial_state, mixes=True)


class ShortConvolution(nn.Module):
    """silu(causal convolution), a kernel a channel; see `functional.short_convolution`.

    Attributes:
      channels: E.
      taps: K, steps that it sees, the current one included.
    """

    channels: int
    taps: int

    @nn.compact
    def __call__(self, x: jax.Array, state: jax.Array | None, steps: Steps):
        """Return (B, L, E) float32 and the last K inputs (B, K, E), of x (B, L, E)."""
        bound = self.taps**-0.5
        uniform = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)
        kernel = self.param(
            "kernel", role(uniform, (None, "features"), "decay"), (self.taps, self.channels)
        )
        bias = self.param("bias", role(uniform, ("features",), "no_decay"), (self.channels,))
        how = {"initial_state": state, "resets": steps.resets}
        y, state = short_convolution(x, kernel, bias, **how)
        return jax.nn.silu(y), state

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return the state before the first step."""
        return jnp.zeros((batch_size, self.taps, self.channels), jnp.float32)


def step_bias(dt_min: float, dt_max: float):
    """Return an initializer: softplus of it is log-uniform in [dt_min, dt_max]."""

    def init(key, shape):
        return inverse_softplus(jnp.maximum(log_uniform_dt(key, shape, dt_min, dt_max),
                                            jnp.float32(SMALLEST_STEP)))

    return role(init, ("features",), "step_size")
