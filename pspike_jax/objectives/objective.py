"""What a model is trained for: the protocol of objectives, and the masks that they share.

An objective says what targets look like, how many outputs a model needs, the loss of each example
or step, its metrics, and the merit by which models are selected. The package's own are frozen
dataclasses; a caller's own is any hashable object with the same members:

    @dataclasses.dataclass(frozen=True)
    class Quantile:
        level: float
        merit = ("pinball", "min")
        num_outputs = 1
        per_step = False
        needs_targets = True

        def check(self, inputs, lengths, targets, where):
            if targets.shape != (len(inputs),):
                raise ValueError(f"{where}: targets have shape {targets.shape}, expected (n,)")

        def __call__(self, outputs, batch):
            valid = ~jnp.isnan(batch["targets"])
            error = jnp.where(valid, batch["targets"] - outputs[:, 0], 0.0)
            losses = jnp.maximum(self.level * error, (self.level - 1) * error)
            return losses, valid.astype(jnp.float32), {"pinball": metrics.sums(losses, valid)}

        def summary(self, outputs, targets, lengths):
            return {"below": float(np.mean(targets < outputs[:, 0]))}

A batch is {"inputs", "lengths", "targets"}, and may hold "dt", "resets" and "ids". Rows of length 0
fill it up; their targets are missing: -1 for integers, NaN for floats.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.objectives.metrics import Metrics

Batch = Mapping[str, jax.Array]


@runtime_checkable
class Objective(Protocol):
    """What `fit`, `evaluate` and reports ask of an objective.

    Attributes:
      merit: name of the metric that selects models, and "max" or "min".
      num_outputs: outputs of a model, of a sequence or of each step; None where `complete`, which
        an objective may have and a Task calls, is to take it from the training examples.
      per_step: a model answers at every step (pool="none").
      needs_targets: False where targets are made of the inputs.
    """

    @property
    def merit(self) -> tuple[str, str]: ...

    @property
    def num_outputs(self) -> int | None: ...

    @property
    def per_step(self) -> bool: ...

    @property
    def needs_targets(self) -> bool: ...

    def check(self, inputs: Any, lengths: np.ndarray, targets: Any, where: str) -> None:
        """Refuse targets that cannot be learnt, on the host.

        Args:
          inputs: (n, L) tokens or (n, L, F) numbers.
          lengths: (n,) or, for pairs of documents, (n, 2).
          targets: as the objective wants them; None where it needs none.
          where: what messages call the split.

        Raises:
          TypeError: a dtype is wrong.
          ValueError: a shape or a value is wrong.
        """

    def __call__(
        self, outputs: jax.Array, batch: Batch
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        """Compare outputs with a batch.

        Args:
          outputs: (B, num_outputs), or (B, L, num_outputs) per step and for packed rows.
          batch: what the model saw, and the targets.

        Returns:
          losses and weights, both (B,) or (B, L) float32, and metrics as sums. The training loss
          is sum(losses * weights) / sum(weights); what has weight 0 does not count, and no
          gradient passes through it.
        """

    def summary(
        self, outputs: np.ndarray, targets: np.ndarray, lengths: np.ndarray
    ) -> dict[str, Any]:
        """Say what a report shows.

        Args:
          outputs: of all examples of a split.
          targets: theirs; the inputs where the objective needs no targets.
          lengths: (n,).

        Returns:
          Arrays and numbers by name.
        """


def step_mask(lengths: jax.Array, length: int) -> jax.Array:
    """Tell the steps of each example from its padding.

    Args:
      lengths: (B,) integers.
      length: L.

    Returns:
      (B, L) bool.
    """
    steps = jnp.arange(length, dtype=jnp.int32)[None, :]
    return steps < lengths[:, None].astype(jnp.int32)


def ahead_mask(batch: Batch, length: int, horizon: int) -> jax.Array:
    """Tell the steps whose example goes on for at least `horizon` more.

    Args:
      batch: with "lengths" and, for packed rows, "resets".
      length: L.
      horizon: h, at least 1.

    Returns:
      (B, L) bool; False at the last h steps of every example.
    """
    mask = step_mask(batch["lengths"] - horizon, length)
    if batch.get("resets") is None:
        return mask
    example = jnp.cumsum(batch["resets"], axis=1, dtype=jnp.int32)
    return mask & (example == jnp.roll(example, -horizon, axis=1))


def refuse(array: np.ndarray, bad: np.ndarray, what: str, expected: str) -> None:
    """Raise an error that names the first bad entry, if there is one.

    Args:
      array: any array.
      bad: bool, of its shape.
      what: what messages call the array.
      expected: what its entries should be.

    Raises:
      ValueError: an entry is bad.
    """
    if bad.any():
        place = np.unravel_index(np.argmax(bad), bad.shape)
        index = ", ".join(str(i) for i in place)
        raise ValueError(f"{what}[{index}] is {array[place]}, expected {expected}")


def check_shape(targets: Any, shapes: list[tuple[int, ...]], where: str) -> None:
    """Refuse targets that are missing or of another shape.

    Args:
      targets: an array, or None.
      shapes: those that fit.
      where: what messages call the split.

    Raises:
      TypeError: there are none.
      ValueError: their shape is none of these.
    """
    expected = " or ".join(str(shape) for shape in shapes)
    if targets is None:
        raise TypeError(f"{where}: targets are None, expected an array of shape {expected}")
    if targets.shape not in shapes:
        raise ValueError(f"{where}: targets have shape {targets.shape}, expected {expected}")
