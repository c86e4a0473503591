"""Stability of neurons: eigenvalues of what one step does to the membrane below threshold."""

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.neurons.neuron import Neuron, Params


def subthreshold_transition(neuron: Neuron, params: Params) -> np.ndarray:
    """Return the matrix that multiplies the membrane in a step without spikes or input.

    Args:
      neuron: the kind of neuron.
      params: its trained parameters, each (H,).

    Returns:
      (H, N, N) float64 or complex128, N the number of membrane variables. Column j is one step
      from variable j at 1 and the others at 0.
    """
    coefficients = neuron.coefficients(params)
    rows = tuple(c[None] for c in coefficients)
    zero = jnp.zeros_like(rows[0], jnp.float32)
    rest, structure = jax.tree.flatten(neuron.zero_membrane(*zero.shape))
    columns = []
    for j in range(len(rest)):
        unit = [jnp.full_like(part, i == j) for i, part in enumerate(rest)]
        after = neuron.update(rows, jax.tree.unflatten(structure, unit), zero, zero, zero)
        columns.append(np.stack([part[0] for part in jax.tree.leaves(after)], axis=-1))
    transition = np.stack(columns, axis=-1)
    return transition.astype(np.complex128 if np.iscomplexobj(transition) else np.float64)


def eigenvalues(neuron: Neuron, params: Params) -> np.ndarray:
    """Return the eigenvalues of the subthreshold transition (Fig. 2 of arXiv 2506.06374).

    A neuron forgets, and so is stable, where all of them lie inside the unit circle.

    Args:
      neuron: the kind of neuron.
      params: its trained parameters, each (H,).

    Returns:
      (H, N) complex128, N the number of membrane variables.
    """
    return np.linalg.eigvals(subthreshold_transition(neuron, params)).astype(np.complex128)
