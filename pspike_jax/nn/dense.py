"""Linear maps and activations as the published PyTorch programs initialise and compute them.

`SpikeMixer`: Bal & Sengupta, "P-SpikeSSM", ICLR 2025.
"""

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


def scale_and_shift(module: nn.Module, drive: jax.Array) -> jax.Array:
    """Return scale drive + shift, parameters of the module, one of each a feature.

    Sites have them in front of their thresholds.
    """
    shape = drive.shape[-1:], jnp.float32
    scale = module.param("scale", role(nn.initializers.ones, ("features",), "decay"), *shape)
    shift = module.param("shift", role(nn.initializers.zeros, ("features",), "decay"), *shape)
    return scale[None, None] * drive.astype(scale.dtype) + shift[None, None]


class SpikeMixer(nn.Module):
    """Mix spikes across the neurons of a layer: activation(W s + c) (the paper's eq. 10).

    Attributes:
      features: H of the result.
      mixer: "dense", or "none" for the ablation without W, where directions are averaged.
      activation: name in `ACTIVATIONS`.
      spiking: inputs are spikes, kept as bits for the backward pass; not in mean field.
    """

    features: int
    mixer: str
    activation: str
    spiking: bool

    @nn.compact
    def __call__(self, spikes: tuple[jax.Array, ...]) -> jax.Array:
        """Mix one (B, L, H) array of spikes, or two, concatenated: (B, L, H)."""
        if self.mixer == "none":
            return ACTIVATIONS[self.activation](sum(spikes) / len(spikes))
        joined = jnp.concatenate(spikes, axis=-1) if len(spikes) > 1 else spikes[0]
        width, dtype = joined.shape[-1], joined.dtype
        layer = linear(self.features, width, "linear", dtype, spiking=self.spiking)
        return ACTIVATIONS[self.activation](layer(joined))
