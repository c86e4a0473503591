"""Latent positions and velocities that begin where a first state says, and what they diverge by."""

import math
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from pspike_jax.functional.langevin import langevin_path, normal_divergence, unit_kernels
from pspike_jax.nn.dense import linear
from pspike_jax.nn.roles import role

CHANNELS, WIDTH = 4, 3  # of the potential's kernels
PRIOR_VARIANCE = 0.1  # of velocities after the first


@flax.struct.dataclass
class Draws:
    """All that a pass draws, given: `model.apply(..., noise=Draws(...))`.

    Attributes:
      z0, v0: (B, H) standard normal, of the first position and velocity.
      v: (B, L + F - 1, H) standard normal, of the later velocities.
      keep: (B, L, N) bool or 0 and 1, counts that the encoder sees in training, or None for all.
      through: (B, L, N), of those that it sees, the ones that are also learnt from.
    """

    z0: jax.Array
    v0: jax.Array
    v: jax.Array
    keep: jax.Array | None = None
    through: jax.Array | None = None


class LatentPath(nn.Module):
    """Positions and velocities of all steps, from the encoder's first state.

    Attributes:
      features: H, a multiple of 4.
      friction: share of velocity lost in a step; g.
      step: of positions and forces.
      exact: velocities are compared with their prior by their distribution given the step before;
        else as the program does, which takes a sample for the mean, and the variance 2 g for its
        own logarithm.
    """

    features: int
    friction: float
    step: float
    exact: bool = False

    @nn.compact
    def __call__(self, first: jax.Array, draws: Draws) -> tuple[jax.Array, jax.Array, Any]:
        """Run the steps.

        Args:
          first: (B, H) state of the encoder at step 0.
          draws: noise.

        Returns:
          z, v: (B, L, H).
          divergence: (start (B,), steps (B, L - 1)) from the priors, in nats.
        """
        width = self.features
        draw = role(nn.initializers.zeros, (None, None, None), "dynamics")
        kernel = self.param("potential", draw, (CHANNELS, CHANNELS, WIDTH), jnp.float32)
        part = lambda name: linear(width, width, name)(first)
        starts, divergence = [], jnp.float32(0)
        for name, noise in (("z", draws.z0), ("v", draws.v0)):
            mean, log_variance = part(f"{name}_mean"), part(f"{name}_log_variance")
            starts.append(mean + jnp.exp(log_variance / 2) * noise)
            divergence += jnp.sum(normal_divergence(mean, log_variance), axis=-1)
        g = self.friction
        z, v = langevin_path(*starts, unit_kernels(kernel), draws.v, g, self.step)
        later, log_variance = v[:, 1:], 2 * g
        if self.exact:
            later, log_variance = later - (2 * g) ** 0.5 * draws.v, math.log(max(2 * g, 1e-30))
        each = normal_divergence(later, log_variance, PRIOR_VARIANCE)
        return z, v, (divergence, jnp.sum(each, axis=-1))
