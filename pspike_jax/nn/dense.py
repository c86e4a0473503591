"""Linear maps and activations as the published PyTorch programs initialise and compute them."""

from typing import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.packed_spikes import spike_product
from pspike_jax.nn.roles import role


def gelu(x: jax.Array) -> jax.Array:
    """Return x Phi(x) by the error function, as PyTorch does, within 1.1e-6 in float32.

    `jax.nn.gelu` calls erfc instead, which takes three times as long on CPUs.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # 1 + erf cancels
    return (0.5 * wide * (1 + jax.lax.erf(np.sqrt(0.5, dtype=np.float32) * wide))).astype(x.dtype)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_tanh": jax.nn.gelu,  # its approximation by tanh, JAX's default
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "identity": lambda x: x,
}

# U(-1, 1) / sqrt(fan_in), PyTorch's default; Xavier's uniform distribution; Flax's default; GPT-2.
KERNELS = {
    "linear": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
    "xavier": nn.initializers.xavier_uniform(),
    "lecun": nn.initializers.lecun_normal(),
    "gpt2": nn.initializers.normal(0.02),
}


def linear(
    features: int,
    fan_in: int,
    name: str | None = None,
    dtype: jnp.dtype = jnp.float32,
    spiking: bool = False,
    kernel: str = "linear",
    bias: bool = True,
) -> nn.Dense:
    """Return a dense layer computed in dtype, weight and bias from U(-1, 1) / sqrt(fan_in).

    Inputs that are spikes are kept as bits for the backward pass. Kernels of another kind, a name
    in `KERNELS`, come with a bias of 0; with bias=False there is none.
    """
    bound = fan_in**-0.5 if kernel == "linear" else 0.0
    return nn.Dense(
        features,
        use_bias=bias,
        dtype=dtype,
        kernel_init=role(KERNELS[kernel], ("inputs", "features"), "decay"),
        bias_init=role(
            lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound),
            ("features",),
            "no_decay",
        ),
        dot_general=_spikes_first if spiking else None,
        name=name,
    )


def _spikes_first(spikes, kernel, *_, **__):
    """What `nn.Dense` calls in place of `lax.dot_general`: the last axis meets the first."""
    return spike_product(spikes, kernel)
