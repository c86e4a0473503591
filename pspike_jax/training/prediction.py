"""Predictions for data without targets: the mean over noise draws, as one NumPy array."""

from collections.abc import Mapping
from typing import Any, Literal, overload

import flax.linen as nn
import jax
import numpy as np
import numpy.typing as npt

from pspike_jax.data.arrays import inputs_alone
from pspike_jax.data.dlpack import Arrays
from pspike_jax.training.arguments import check_key, check_model, check_variables
from pspike_jax.training.creation import threefry_key
from pspike_jax.training.evaluation import choose_mesh, free_key, run_batches

Floats = npt.NDArray[np.float32]


@overload
def predict(
    model: nn.Module,
    variables: Mapping[str, Any],
    inputs: Arrays,
    *,
    lengths: Arrays | None = None,
    dt: Arrays | None = None,
    key: jax.Array | None = None,
    draws: int = 1,
    batch_size: int = 128,
    spread: Literal[False] = False,
) -> Floats: ...


@overload
def predict(
    model: nn.Module,
    variables: Mapping[str, Any],
    inputs: Arrays,
    *,
    lengths: Arrays | None = None,
    dt: Arrays | None = None,
    key: jax.Array | None = None,
    draws: int = 1,
    batch_size: int = 128,
    spread: Literal[True],
) -> tuple[Floats, Floats]: ...


def predict(
    model: nn.Module,
    variables: Mapping[str, Any],
    inputs: Arrays,
    *,
    lengths: Arrays | None = None,
    dt: Arrays | None = None,
    key: jax.Array | None = None,
    draws: int = 1,
    batch_size: int = 128,
    spread: bool = False,
) -> Floats | tuple[Floats, Floats]:
    """Run a trained model on data without targets.

    Args:
      model: the model.
      variables: its parameters and batch statistics.
      inputs: (n, L, F) numbers, (n, L) tokens, or (n, L) numbers of one feature; or a list of n
        arrays of any lengths.
      lengths: (n,) valid steps; None where all are, or follow from a list.
      dt: (n, L) times since the step before, where steps are irregular; or None.
      key: of the noise; None for that of seed 0.
      draws: passes to average over; a deterministic model is run once.
      batch_size: examples at a time; results do not depend on it.
      spread: return the standard deviation between draws as well, of at least 2.

    Returns:
      (n, num_outputs) float32, or (n, L, num_outputs) of a model without pooling; with `spread`
      that and the standard deviation, of the same shape.

    Raises:
      TypeError, ValueError: inputs or lengths are not what `Task` would take.
    """
    check_model(model)
    check_variables(variables)
    key = threefry_key(0) if key is None else key
    check_key(key)
    vocab_size = getattr(getattr(model, "config", None), "vocab_size", None)
    split = inputs_alone(inputs, lengths=lengths, dt=dt, vocab_size=vocab_size)
    if getattr(model, "stochastic", True):
        if draws < 1 + spread:
            raise ValueError(f"draws is {draws}, expected at least {1 + spread}")
    else:
        draws = 1
    batch_size = min(batch_size, len(split.lengths))
    mesh = choose_mesh(variables, batch_size)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    batch_size = -(-batch_size // parts) * parts
    key = free_key(key, mesh)
    mean = squares = None
    with jax.set_mesh(mesh):  # whatever the caller's is
        for draw in range(draws):
            one = jax.random.fold_in(key, draw)
            found = []
            run_batches(
                model, variables, split, found.append, key=one, objective=None,
                batch_size=batch_size, mesh=mesh,
            )
            outputs = np.concatenate(found)[: len(split.lengths)].astype(np.float64)
            if draw == 0:
                mean, squares = outputs, np.zeros_like(outputs)
                continue
            change = outputs - mean  # Welford's sums, which lose no digits
            mean = mean + change / (draw + 1)
            squares = squares + change * (outputs - mean)
    mean = mean.astype(np.float32)
    return (mean, np.sqrt(squares / max(1, draws - 1)).astype(np.float32)) if spread else mean
