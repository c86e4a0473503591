"""The trained dynamics of a model: its discretised poles."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons import eigenvalues
from pspike_jax.models.silif import SpikingNetwork
from pspike_jax.nn.block_config import SSM_BRANCHES
from pspike_jax.nn.ssm import discretized_poles


def poles(model: nn.Module, variables: dict) -> jax.Array | None:
    """Return the poles Lambda_bar of every SSM of a model, or of its neurons below threshold.

    Args:
      model: a model of the zoo; the zoo's layout of parameters tells the rest.
      variables: its variables.

    Returns:
      (layers, H, N) complex64, second branches after the first along axis 1; None where the model
      has no state space layers, or layers of neurons that differ in width.
    """
    if isinstance(model, SpikingNetwork):
        if len(set(model.widths)) > 1:
            return None
        layers = [variables["params"][f"layers_{i}"]["neuron"] for i in range(len(model.widths))]
        found = [eigenvalues(model.neuron, params) for params in layers]
        return jnp.stack(found).astype(jnp.complex64)
    blocks = variables["params"].get("backbone", {}).get("blocks", {})
    blocks = blocks.get("layer", blocks)
    found = [discretized_poles(blocks[name]) for name in SSM_BRANCHES if name in blocks]
    return jnp.concatenate(found, axis=1) if found else None
