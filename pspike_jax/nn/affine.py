"""An own scale and shift of each feature, as sites have them in front of their thresholds."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.nn.roles import role


def scale_and_shift(module: nn.Module, drive: jax.Array) -> jax.Array:
    """Return scale drive + shift, parameters of the module, one of each a feature."""
    shape = drive.shape[-1:], jnp.float32
    scale = module.param("scale", role(nn.initializers.ones, ("features",), "decay"), *shape)
    shift = module.param("shift", role(nn.initializers.zeros, ("features",), "decay"), *shape)
    return scale[None, None] * drive.astype(scale.dtype) + shift[None, None]
