"""Tasks and batches: the one shape in which every data set reaches a model.

A batch is {"inputs", "lengths", "targets"}: inputs (B, L) int32 tokens or (B, L, F) float32,
lengths (B,) int32 in [1, L], targets int32 or float32 as the objective wants them, absent where it
makes them of the inputs. Pairs of documents have inputs (B, 2, L) and lengths (B, 2). Irregular
steps bring "dt" (B, L), packed rows "resets" and "ids" (B, L). Which rows a batch holds is a pure
function of (seed, step), so a restart, or another number of processes, changes nothing.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from pspike_jax.data.packing import PackedSplit
from pspike_jax.data.split import Split, check_split, reads_tokens
from pspike_jax.objectives import NextToken, Objective


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What to learn, from which examples; its splits are checked when it is made.

    Attributes:
      name: what pictures and tables call it.
      train: split that `fit` learns from.
      validation: split that selects the model, or None; `fit` refuses a task without it.
      test: split that evaluation alone reads, or None.
      objective: the loss, the metrics and the merit; what it leaves to the data, such as balanced
        class weights, is taken from train.
      vocab_size: number of tokens, or None for real inputs.
    """

    name: str
    train: Split | PackedSplit
    validation: Split | PackedSplit | None
    test: Split | PackedSplit | None
    objective: Objective
    vocab_size: int | None = None

    def __post_init__(self):
        if isinstance(self.objective, type) or not isinstance(self.objective, Objective):
            raise TypeError(
                f"task {self.name!r}: the objective is {self.objective!r}, expected one of "
                "pspike_jax.objectives, or an object with the members of Objective"
            )
        if self.train is None:
            raise TypeError(f"task {self.name!r}: train is None, expected a Split")
        object.__setattr__(self, "objective", self._complete())
        if isinstance(self.train, Split | PackedSplit) and self.objective.num_outputs is None:
            raise ValueError(f"task {self.name!r}: {self.objective} has no number of outputs")
        tokens = getattr(self.objective, "vocab_size", self.vocab_size)
        if tokens != self.vocab_size:
            raise ValueError(
                f"task {self.name!r}: vocab_size is {self.vocab_size}, of its objective {tokens}"
            )
        example = _example_shape(self.train)
        for name, split in self.splits().items():
            where = f"task {self.name!r}, {name}"
            if isinstance(split, PackedSplit) and split.per_step != self.objective.per_step:
                raise ValueError(f"{where}: packed with per_step={split.per_step}")
            check_split(
                split.examples if isinstance(split, PackedSplit) else split,
                where=where, objective=self.objective, vocab_size=self.vocab_size,
            )
            if not _fits(_example_shape(split), example):
                raise ValueError(
                    f"{where}: one example has shape {_example_shape(split)}, expected {example} "
                    "as in train"
                )

    def _complete(self) -> Objective:
        """Let the objective take from the training examples what it does not know yet."""
        objective, split = self.objective, _examples(self.train)
        if isinstance(objective, NextToken) and objective.vocab_size is None:
            return dataclasses.replace(objective, vocab_size=self.vocab_size)
        usable = isinstance(split, Split) and (
            not objective.needs_targets or isinstance(split.targets, np.ndarray)
        )
        if usable and hasattr(objective, "complete"):
            return objective.complete(split.inputs, split.targets)
        return objective

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {num_rows(split):,}" for name, split in self.splits().items())
        inputs = _examples(self.train).inputs
        shape = f"inputs {inputs.dtype} {inputs.shape[1:]}"
        return f"Task({self.name!r}, {sizes}, {shape}, {type(self.objective).__name__})"

    def splits(self) -> dict[str, Split | PackedSplit]:
        """Return the splits that this task has, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}

    def split(self, name: str) -> Split | PackedSplit:
        """Return one split.

        Args:
          name: "train", "validation" or "test".

        Returns:
          The split.

        Raises:
          ValueError: the task has none of that name.
        """
        splits = self.splits()
        if name not in splits:
            raise ValueError(f"task {self.name!r} has no split {name!r}, only {', '.join(splits)}")
        return splits[name]

    @property
    def model_fields(self) -> dict[str, Any]:
        """The fields that a model needs to fit the task: `create_model(NAME, **fields)`."""
        fields = {"num_outputs": self.objective.num_outputs, "vocab_size": self.vocab_size}
        if self.objective.per_step:
            fields["pool"] = "none"
        if getattr(self.objective, "forward_steps", 0):
            fields["forward_steps"] = self.objective.forward_steps
        if _examples(self.train).lengths.ndim == 2:
            fields["documents"] = 2
        return fields

    @property
    def num_classes(self) -> int | None:
        """Number of classes of a classification, else None."""
        return getattr(self.objective, "num_classes", None)


def _examples(split: Split | PackedSplit) -> Split:
    return split.examples if isinstance(split, PackedSplit) else split


def _example_shape(split: Split | PackedSplit) -> tuple[int | None, ...]:
    """Shape of one example; a packed one has no length of its own."""
    shape = np.shape(getattr(_examples(split), "inputs", None))[1:]
    return (None, *shape[1:]) if isinstance(split, PackedSplit) else shape


def _fits(first: tuple[int | None, ...], second: tuple[int | None, ...]) -> bool:
    return len(first) == len(second) and all(
        a == b or None in (a, b) for a, b in zip(first, second)
    )


def num_rows(split: Split | PackedSplit) -> int:
    """Count the rows that batches of a split are made of."""
    return len(split) if isinstance(split, PackedSplit) else len(split.lengths)


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
    split: Split | PackedSplit, *, seed: int, step: int, batch_size: int,
    part: np.ndarray | slice = slice(None),
) -> dict[str, np.ndarray]:
    """Make the batch of one training step.

    Args:
      split: training examples.
      seed: of the order; not negative.
      step: batches before this one, from 0.
      batch_size: B, at most the number of examples.
      part: which of its B rows to read; all unless another process reads the others.

    Returns:
      The batch, a pure function of the arguments.
    """
    rows = train_rows(num_rows(split), seed=seed, step=step, batch_size=batch_size)
    return read(split, rows[part])


def eval_batches(
    split: Split | PackedSplit, batch_size: int, part: np.ndarray | slice = slice(None)
) -> Iterator[dict[str, np.ndarray]]:
    """Make batches that hold every example once, in order.

    Args:
      split: examples.
      batch_size: B; all batches have it.
      part: which rows of each batch to read; all unless another process reads the others.

    Yields:
      Batches; the last is filled with rows of length 0, whose targets are missing (-1 or NaN).
    """
    size = num_rows(split)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1")
    for start in range(0, size, batch_size):
        rows = np.arange(start, start + batch_size)[part]
        batch = read(split, rows % size)
        if start + batch_size > size:
            _empty(batch, rows >= size)
        yield batch


def _empty(batch: dict[str, np.ndarray], rows: np.ndarray) -> None:
    """Make fillers of rows that stand in a batch a second time."""
    for name, value in (("lengths", 0), ("targets", None), ("resets", False)):
        if name in batch:
            array = batch[name]  # a copy: the rows were picked one by one
            missing = np.nan if array.dtype.kind == "f" else -1
            array[rows] = missing if value is None else value


def read(split: Split | PackedSplit, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Read rows of a split as a batch.

    Args:
      split: examples, or packed rows of them.
      rows: (B,) row numbers.

    Returns:
      The batch, in the machine's own byte order.
    """
    if isinstance(split, PackedSplit):
        return split.read(rows)
    dtype = np.int32 if reads_tokens(split) else np.float32
    batch = {
        "inputs": split.inputs[rows].astype(dtype, copy=False),
        "lengths": split.lengths[rows].astype(np.int32, copy=False),
    }
    if split.targets is not None:
        real = split.targets.dtype.kind == "f"
        batch["targets"] = split.targets[rows].astype(np.float32 if real else np.int32, copy=False)
    if split.dt is not None:
        batch["dt"] = split.dt[rows].astype(np.float32, copy=False)
    return batch
