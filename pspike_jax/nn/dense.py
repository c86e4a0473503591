"""Linear maps and activations as the published PyTorch programs initialise and compute them."""

import functools
from typing import Callable

import flax.linen as nn
import jax

# PyTorch's GELU is the exact one; JAX's default is the tanh approximation.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
    "identity": lambda x: x,
}


def linear(features: int, fan_in: int, name: str | None = None) -> nn.Dense:
    """Return a dense layer with weight and bias drawn from U(-1, 1) / sqrt(fan_in)."""
    bound = fan_in**-0.5
    return nn.Dense(
        features,
        kernel_init=nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        bias_init=lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound),
        name=name,
    )
