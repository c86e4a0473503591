"""The trained dynamics of a model: its discretised poles."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.discretization import discretize_bilinear_dplr
from pspike_jax.functional.neurons import eigenvalues
from pspike_jax.models.silif import SpikingNetwork
from pspike_jax.nn.block_config import SSM_BRANCHES
from pspike_jax.nn.dplr_ssm import continuous_dplr
from pspike_jax.nn.ssm import zero_order_hold


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
    found = [_discretized_poles(blocks[name]) for name in SSM_BRANCHES if name in blocks]
    return jnp.concatenate(found, axis=1) if found else None


def _discretized_poles(params: dict[str, jax.Array]) -> jax.Array:
    """Return the poles of stacked SSM layers, eigenvalues of the transition where it is dense.

    Args:
      params: parameters of a `DiagonalSSM` or `DPLRSSM` with a leading layer axis.

    Returns:
      (layers, H, N/2) complex64, one of each conjugate pair; (layers, H, N) where dense.
    """
    if "log_dt" in params:
        arrays = (params[name] for name in ("A_real", "A_imag", "log_dt"))
        return jax.vmap(lambda *layer: zero_order_hold(*layer)[0])(*arrays)

    def transition(*layer):
        Lambda, P, B, dt = continuous_dplr(*layer)
        return discretize_bilinear_dplr(Lambda, P, P.conj(), B, dt)[0]

    arrays = (params[name] for name in ("A_real", "A_imag", "P", "B", "inv_dt"))
    return jnp.linalg.eigvals(jax.vmap(transition)(*arrays))
