"""A delay of each neuron's current, which is trained: its spikes are that many steps late."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.delays import delay
from pspike_jax.functional.neurons import clamp
from pspike_jax.nn.block import Pass
from pspike_jax.nn.roles import role


class Delays(nn.Module):
    """Delay features by up to `longest` steps.

    Training interpolates between steps; else lags are rounded to whole steps, which is what a
    neuron's buffer can do. A neuron that starts from rest fires as it would without the delay, that
    many steps later.

    Attributes:
      longest: D, at least 1.
    """

    longest: int

    @nn.compact
    def __call__(
        self, x: jax.Array, state: jax.Array | None, ctx: Pass
    ) -> tuple[jax.Array, jax.Array]:
        """Delay x (B, L, H), after inputs (B, D + 1, H) that are the state; None for zeros."""
        start = role(nn.initializers.uniform(1.0), ("features",), "dynamics")
        share = self.param("share", start, x.shape[2:], jnp.float32)  # of the longest lag
        lags = self.longest * clamp(share, 0.0, 1.0)
        lags = lags if ctx.train else jnp.round(lags)
        return delay(x, lags, self.longest, initial_state=state, resets=ctx.resets)

    @nn.nowrap
    def zero_state(self, batch_size: int, features: int) -> jax.Array:
        """Return a line on which nothing is under way."""
        return jnp.zeros((batch_size, self.longest + 1, features), jnp.float32)
