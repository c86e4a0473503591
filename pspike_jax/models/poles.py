"""The trained dynamics of a model: its discretised poles."""

from typing import Any

import jax

from pspike_jax.models.sequence import SequenceModel


def poles(model: SequenceModel, variables: dict[str, Any]) -> jax.Array | None:
    """Return the poles Lambda_bar of every SSM of a model, or of its neurons below threshold.

    Args:
      model: a model of the zoo.
      variables: its variables.

    Returns:
      (layers, H, N) complex64, second branches after the first along axis 1; None where the model
      has no poles that do not change, or layers that differ in width.
    """
    return model.poles(variables["params"])
