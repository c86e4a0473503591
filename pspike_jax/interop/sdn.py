"""Weights of surrogate dynamic networks, to and from the authors' programs."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.neurons.sdn import SHAPES

# {name here: names there}, of the shipped network and of one that their program has just fused.
NAMES = {
    "taps": ("conv1.weight", "spatial_layers.0.weight"),
    "taps_bias": ("conv1.bias", "spatial_layers.0.bias"),
    "channels": ("conv2.weight", "feature_layers.0.weight"),
    "channels_bias": ("conv2.bias", "feature_layers.0.bias"),
    "decoder": ("conv3.weight", "decoder.weight"),
    "decoder_bias": ("conv3.bias", "decoder.bias"),
}


def load_sdn(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Read the 153 numbers of a fused network, for `functional.neurons.sdn_spikes`.

    Args:
      state_dict: {name: array or CPU tensor}.

    Returns:
      {name: float32 array}.

    Raises:
      ValueError: an entry is missing or has another number of elements; all are named.
    """
    params, wrong = {}, []
    for here, there in NAMES.items():
        names = [name for name in there if name in state_dict]
        if not names:
            wrong.append(f"{there[0]} is missing")
            continue
        array = np.asarray(state_dict[names[0]])
        if array.size != np.prod(SHAPES[here], dtype=int) or array.dtype.kind != "f":
            wrong.append(f"{names[0]} is {array.dtype} {array.shape}")
            continue
        params[here] = jnp.asarray(array.reshape(SHAPES[here]), jnp.float32)
    if wrong:
        raise ValueError(f"no fused SDN: {'; '.join(wrong)}")
    return params


def export_sdn(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Name the numbers of a fused network as the shipped one names them."""
    shapes = {"taps": (8, 1, 8), "channels": (8, 8, 1), "decoder": (1, 8, 1), "decoder_bias": (1,)}
    return {
        NAMES[name][0]: np.asarray(array).reshape(shapes.get(name, np.shape(array)))
        for name, array in params.items()
    }
