"""Linear maps and activations as the published PyTorch programs initialise and compute them."""

import functools
from typing import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

# PyTorch's GELU is the exact one; JAX's default is the tanh approximation.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
    "identity": lambda x: x,
}


def linear(
    features: int, fan_in: int, name: str | None = None, dtype: jnp.dtype = jnp.float32
) -> nn.Dense:
    """Return a dense layer computed in dtype, weight and bias from U(-1, 1) / sqrt(fan_in)."""
    bound = fan_in**-0.5
    return nn.Dense(
        features,
        dtype=dtype,
        kernel_init=nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        bias_init=lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound),
        name=name,
    )
