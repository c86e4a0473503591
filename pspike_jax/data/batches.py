"""Splits, tasks and batches: the one shape in which every data set reaches a model.

A batch is {"inputs", "lengths", "labels"}: inputs (B, L) int32 tokens or (B, L, F) float32, lengths
(B,) int32 in [1, L], labels (B,) int32. Pairs of documents have inputs (B, 2, L) and lengths
(B, 2). Which rows a batch holds is a pure function of (seed, step), so a restart, or another number
of processes, changes nothing. A label of -1 means "not an example"; losses and metrics ignore it.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pspike_jax.data.scaled import Scaled

CHECKED_BYTES = 1 << 26  # inputs are checked in pieces: a memory map need not fit in memory


class Split(NamedTuple):
    """Examples of one split, as NumPy arrays or memory maps.

    Attributes:
      inputs: (n, L) integers, or (n, L, F) floats, or Scaled integers that read as floats;
        (n, 2, L) for pairs of documents.
      lengths: (n,) integers in [1, L]; (n, 2) for pairs of documents.
      labels: (n,) integers in [0, num_classes).
    """

    inputs: np.ndarray | Scaled
    lengths: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A classification task; its splits are checked when it is made.

    Attributes:
      name: what pictures and tables call it.
      train: split that `fit` learns from.
      validation: split that selects the model, or None; `fit` refuses a task without it.
      test: split that evaluation alone reads, or None.
      num_classes: number of classes.
      vocab_size: number of tokens, or None for real inputs.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    num_classes: int
    vocab_size: int | None

    def __post_init__(self):
        if self.num_classes < 2:
            raise ValueError(
                f"task {self.name!r}: num_classes is {self.num_classes}, expected at least 2"
            )
        for name, split in self.splits().items():
            where = f"task {self.name!r}, {name}"
            check_split(
                split, where=where, num_classes=self.num_classes, vocab_size=self.vocab_size
            )
            if split.inputs.shape[1:] != self.train.inputs.shape[1:]:
                raise ValueError(
                    f"{where}: one example has shape {split.inputs.shape[1:]}, "
                    f"expected {self.train.inputs.shape[1:]} as in train"
                )

    def splits(self) -> dict[str, Split]:
        """Return the splits that this task has, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}


def check_split(split: Split, *, where: str, num_classes: int, vocab_size: int | None) -> None:
    """Refuse arrays that a model could not learn from, before anything is computed.

    Args:
      split: the arrays.
      where: what messages call it.
      num_classes: labels are in [0, num_classes).
      vocab_size: tokens are in [0, vocab_size), or None for real inputs.

    Raises:
      TypeError: a dtype is wrong.
      ValueError: a shape or a value is wrong.
    """
    _check_dtypes(split, where, vocab_size)
    inputs, lengths, labels = split
    _check_shapes(split, where, ranks_inside=1 if vocab_size is not None else 2)
    length = inputs.shape[lengths.ndim]
    _check_range(lengths, f"{where}: lengths", 1, length)
    _check_range(labels, f"{where}: labels", 0, num_classes - 1)
    _check_inputs(inputs, where, vocab_size)


def _check_dtypes(split: Split, where: str, vocab_size: int | None) -> None:
    for name, array in split._asdict().items():
        if not isinstance(array, (np.ndarray, Scaled)):
            raise TypeError(f"{where}: {name} are {type(array).__name__}, expected a NumPy array")
        if name == "inputs" and vocab_size is None:
            if array.dtype not in (np.float32, np.float16):
                raise TypeError(
                    f"{where}: inputs are {array.dtype}, expected float32 or float16 "
                    "where vocab_size is None"
                )
        elif array.dtype.kind not in "iu":
            raise TypeError(f"{where}: {name} are {array.dtype}, expected integers")


def _check_shapes(split: Split, where: str, ranks_inside: int) -> None:
    inputs, lengths, labels = split
    if lengths.ndim not in (1, 2) or inputs.ndim != lengths.ndim + ranks_inside:
        expected = "(n, L)" if ranks_inside == 1 else "(n, L, F)"
        raise ValueError(
            f"{where}: inputs have shape {inputs.shape} and lengths {lengths.shape}, "
            f"expected {expected} and (n,)"
        )
    if inputs.shape[: lengths.ndim] != lengths.shape or labels.shape != lengths.shape[:1]:
        raise ValueError(
            f"{where}: inputs {inputs.shape}, lengths {lengths.shape} and labels {labels.shape} "
            "do not agree on the number of examples"
        )
    if inputs.size == 0:
        raise ValueError(f"{where}: inputs have shape {inputs.shape}, expected no empty axis")


def _check_range(array: np.ndarray, what: str, low: int, high: int) -> None:
    bad = (array < low) | (array > high)
    if bad.any():
        place = np.unravel_index(np.argmax(bad), bad.shape)
        index = ", ".join(str(i) for i in place)
        raise ValueError(f"{what}[{index}] is {array[place]}, expected {low} to {high}")


def _check_inputs(inputs: np.ndarray, where: str, vocab_size: int | None) -> None:
    if isinstance(inputs, Scaled):  # finite integers under a finite scaling
        return
    rows = max(1, CHECKED_BYTES // (inputs[:1].nbytes or 1))
    for start in range(0, len(inputs), rows):
        piece = np.asarray(inputs[start : start + rows])
        if vocab_size is not None:
            _check_range(piece, f"{where}: token inputs (from row {start})", 0, vocab_size - 1)
        elif not np.isfinite(piece).all():
            place = np.unravel_index(np.argmin(np.isfinite(piece)), piece.shape)
            index = ", ".join(str(i) for i in (start + place[0], *place[1:]))
            raise ValueError(f"{where}: inputs[{index}] is {piece[place]}, expected finite numbers")


def from_arrays(
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    lengths: np.ndarray | None = None,
    num_classes: int | None = None,
    vocab_size: int | None = None,
    validation: float,
    test: float,
    seed: int,
    name: str = "arrays",
) -> Task:
    """Make a task of the caller's own arrays, split at random.

    Args:
      inputs: (n, L, F) floats, or (n, L) integers with `vocab_size`.
      labels: (n,) integers in [0, num_classes).
      lengths: (n,) integers in [1, L], or None where every example has length L.
      num_classes: number of classes; None takes the largest label plus one.
      vocab_size: number of tokens, or None for real inputs.
      validation: share of the examples that select the model, in (0, 1).
      test: share of the examples that evaluation alone reads, in [0, 1); 0 for none.
      seed: of the permutation that splits; not negative.
      name: what pictures and tables call the task.

    Returns:
      The task.

    Raises:
      TypeError, ValueError: as `check_split` does, and where a share leaves a split empty.
    """
    inputs, labels = np.asarray(inputs), np.asarray(labels)
    if inputs.dtype == np.float64:
        inputs = inputs.astype(np.float32)
    if lengths is None:
        length = inputs.shape[1] if inputs.ndim > 1 else 0
        lengths = np.full(len(labels), length, np.int32)
    whole = Split(inputs, np.asarray(lengths), labels)
    _check_dtypes(whole, f"task {name!r}", vocab_size)
    if num_classes is None:
        num_classes = int(labels.max(initial=0)) + 1
    check_split(
        whole, where=f"task {name!r}", num_classes=num_classes, vocab_size=vocab_size
    )
    sizes = [round(len(labels) * validation), round(len(labels) * test)]
    if validation <= 0 or test < 0 or sizes[0] < 1 or sum(sizes) >= len(labels):
        raise ValueError(
            f"shares validation={validation} and test={test} of {len(labels)} examples leave "
            "train or validation empty"
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    parts = np.split(order, [sizes[0], sum(sizes)])
    validation_split, test_split, train_split = (take(whole, np.sort(rows)) for rows in parts)
    return Task(
        name=name,
        train=train_split,
        validation=validation_split,
        test=test_split if sizes[1] else None,
        num_classes=num_classes,
        vocab_size=vocab_size,
    )


def take(split: Split, rows: np.ndarray) -> Split:
    """Return the given rows of a split.

    Args:
      split: the arrays.
      rows: (m,) row numbers.

    Returns:
      A split of m examples.
    """
    return Split(*(array[rows] for array in split))


@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng([seed, epoch]).permutation(size)
    order.flags.writeable = False  # shared by all callers through the cache
    return order


def train_rows(size: int, *, seed: int, step: int, batch_size: int) -> np.ndarray:
    """Choose the rows of one training batch: a seeded permutation per epoch, last rows dropped.

    Args:
      size: number of training examples.
      seed: of the permutations; not negative.
      step: batches before this one, from 0.
      batch_size: B, at most `size`.

    Returns:
      (B,) row numbers, a pure function of the arguments.
    """
    if not 1 <= batch_size <= size:
        raise ValueError(f"batch_size is {batch_size}, expected 1 to {size}, the training examples")
    epoch, position = divmod(step, size // batch_size)
    return _permutation(size, seed, epoch)[position * batch_size : (position + 1) * batch_size]


def train_batch(
    split: Split, *, seed: int, step: int, batch_size: int, part: np.ndarray | slice = slice(None)
) -> dict[str, np.ndarray]:
    """Make the batch of one training step.

    Args:
      split: training examples.
      seed: of the order; not negative.
      step: batches before this one, from 0.
      batch_size: B, at most the number of examples.
      part: which of its B rows to read; all unless another process reads the others.

    Returns:
      {"inputs", "lengths", "labels"}, a pure function of the arguments.
    """
    rows = train_rows(len(split.labels), seed=seed, step=step, batch_size=batch_size)
    return _batch(split, rows[part])


def eval_batches(
    split: Split, batch_size: int, part: np.ndarray | slice = slice(None)
) -> Iterator[dict[str, np.ndarray]]:
    """Make batches that hold every example once, in order.

    Args:
      split: examples.
      batch_size: B; all batches have it.
      part: which rows of each batch to read; all unless another process reads the others.

    Yields:
      {"inputs", "lengths", "labels"}; the last batch is filled with repeats whose label is -1.
    """
    size = len(split.labels)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1")
    for start in range(0, size, batch_size):
        rows = np.arange(start, start + batch_size)[part]
        batch = _batch(split, rows % size)
        batch["labels"][rows >= size] = -1
        yield batch


def _batch(split: Split, rows: np.ndarray) -> dict[str, np.ndarray]:
    dtype = np.float32 if split.inputs.dtype.kind == "f" else np.int32
    return {
        "inputs": split.inputs[rows].astype(dtype, copy=False),
        "lengths": split.lengths[rows].astype(np.int32, copy=False),
        "labels": split.labels[rows].astype(np.int32, copy=False),
    }
