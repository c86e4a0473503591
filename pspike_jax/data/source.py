"""What every reader and generator yields: blocks of examples, and what they are.

A Source is a data set on its way to memory (`load_source`) or to disk (`prepared.write_prepared`).
It yields the examples of all splits in blocks, training first, then validation, then test.
"""

import collections
import concurrent.futures
import dataclasses
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from pspike_jax.data.batches import Task
from pspike_jax.data.scaled import Scaled, Scaling
from pspike_jax.data.split import Split
from pspike_jax.objectives import Classification

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set that can be read once, block by block.

    Attributes:
      name: what pictures and tables call it; says so where the set is reduced or generated.
      counts: examples of "train", "validation" and "test", the order in which they come.
      shape: of one example's inputs: (L,) or (2, L) tokens, or (L, F) numbers.
      dtype: of the stored inputs.
      num_classes: labels are in [0, num_classes).
      vocab_size: number of tokens, or None for real inputs.
      blocks: yields (inputs (B, *shape), lengths (B,) or (B, 2), labels (B,)).
      scaling: from the stored training inputs to the Scaling, or None for tokens and floats.
      settings: what the set was made with; values that JSON can hold.
      differences: phrases that say how the files differ from the published ones.
      notes: sentences for the report, such as what was clipped; filled while blocks are read.
    """

    name: str
    counts: dict[str, int]
    shape: tuple[int, ...]
    dtype: str
    num_classes: int
    vocab_size: int | None
    blocks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]
    settings: dict[str, Any]
    scaling: Callable[[np.ndarray], Scaling] | None = None
    differences: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def num_examples(self) -> int:
        """Examples of all splits."""
        return sum(self.counts.values())

    @property
    def lengths_shape(self) -> tuple[int, ...]:
        """Shape of one example's lengths: () or, for pairs of documents, (2,)."""
        return self.shape[:-1] if self.vocab_size is not None else self.shape[:-2]

    def ranges(self) -> dict[str, tuple[int, int]]:
        """First row of each split, and the row behind its last."""
        ends = np.cumsum([0, *(self.counts[name] for name in SPLITS)]).tolist()
        return {name: (ends[i], ends[i + 1]) for i, name in enumerate(SPLITS)}


def count_differences(published: dict[str, int], found: dict[str, int]) -> list[str]:
    """Compare numbers of examples with the published ones.

    Args:
      published: number of examples of each file, folder or split.
      found: the numbers found, under the same names.

    Returns:
      A phrase for each name under which they differ.
    """
    return [
        f"{name}: {found[name]:,} examples, {published[name]:,} were published"
        for name in published
        if found[name] != published[name]
    ]


def fill(source: Source, inputs: np.ndarray, lengths: np.ndarray, labels: np.ndarray) -> None:
    """Read all blocks of a source into arrays.

    Args:
      source: it is consumed.
      inputs: (n, *shape), lengths: (n,) or (n, 2), labels: (n,); n is source.num_examples.

    Raises:
      ValueError: the blocks do not hold as many examples as the source promised.
    """
    row = 0
    for block in source.blocks:
        stop = row + len(block[2])
        if stop > len(labels):
            raise ValueError(f"{source.name}: more than the {len(labels):,} examples announced")
        if block[0].dtype != source.dtype or block[0].shape[1:] != source.shape:
            raise ValueError(
                f"{source.name}: a block holds {block[0].dtype} {block[0].shape[1:]}, announced "
                f"were {source.dtype} {source.shape}"
            )
        for array, part in zip((inputs, lengths, labels), block):
            array[row:stop] = part
        row = stop
    if row != len(labels):
        raise ValueError(f"{source.name}: {row:,} examples came, {len(labels):,} were announced")


def load_source(source: Source) -> Task:
    """Read a source into memory.

    Args:
      source: it is consumed.

    Returns:
      The task, checked.
    """
    count = source.num_examples
    inputs = np.empty((count, *source.shape), source.dtype)
    lengths = np.empty((count, *source.lengths_shape), np.int32)
    labels = np.empty(count, np.int32)
    fill(source, inputs, lengths, labels)
    ranges = source.ranges()
    scaling = source.scaling and source.scaling(inputs[slice(*ranges["train"])])
    return make_task(
        source.name, inputs, lengths, labels, ranges, source.num_classes, source.vocab_size, scaling
    )


def make_task(
    name: str,
    inputs: np.ndarray,
    lengths: np.ndarray,
    labels: np.ndarray,
    ranges: dict[str, tuple[int, int]],
    num_classes: int,
    vocab_size: int | None,
    scaling: Scaling | None,
) -> Task:
    """Cut arrays that hold all examples into the splits of a task.

    Args:
      name: of the task.
      inputs: (n, *shape), lengths: (n,) or (n, 2), labels: (n,).
      ranges: first row of each split, and the row behind its last.
      num_classes: labels are in [0, num_classes).
      vocab_size: number of tokens, or None for real inputs.
      scaling: how stored numbers become inputs, or None where they are inputs.

    Returns:
      The task; its splits are views.
    """

    def split(first, last):
        rows = inputs[first:last]
        rows = rows if scaling is None else Scaled(rows, scaling)
        return Split(rows, lengths[first:last], labels[first:last])

    return Task(
        name=name,
        **{name: split(*ranges[name]) for name in SPLITS},
        objective=Classification(num_classes),
        vocab_size=vocab_size,
    )


def held_out(labels: np.ndarray, share: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a share of the examples, and the same share of every class but for rounding.

    Args:
      labels: (n,) integers.
      share: in (0, 1); round(share * n) examples are held out, at least one.
      seed: of the choice.

    Returns:
      The rows that stay and the rows held out, each in a random order.

    Raises:
      ValueError: there are too few examples for both.
    """
    if len(labels) < 2:
        raise ValueError(f"{len(labels)} examples, expected at least 2: some are held out")
    order = np.random.default_rng(seed).permutation(len(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    quotas = np.floor(share * sizes).astype(np.int64)
    missing = max(1, round(share * len(labels))) - quotas.sum()
    largest_remainders = np.argsort(quotas - share * sizes, kind="stable")
    quotas[largest_remainders[:missing]] += 1
    out = np.zeros(len(labels), bool)
    for label, quota in zip(classes, quotas):
        out[order[labels[order] == label][:quota]] = True
    return order[~out[order]], order[out[order]]


GUARD = (
    "in a script, what takes processes > 1 must stand under `if __name__ == '__main__':`, for "
    "each process begins by running the script again"
)


def in_order(function: Callable, items: Iterable, processes: int) -> Iterator:
    """Apply a function to items, in several processes, and yield the results in order.

    Args:
      function: a function of a module, or a partial of one.
      items: its arguments.
      processes: number of processes; 1 stays in this one.

    Yields:
      function(item) for each item.

    Raises:
      RuntimeError: a process ended early.
    """
    if processes == 1:
        yield from map(function, items)
        return
    # Spawned, for a fork of a process in which JAX has started threads may hang.
    context = multiprocessing.get_context("spawn")
    try:
        with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
            waiting = collections.deque()
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == 2 * processes:  # results ahead of their use take memory
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    except concurrent.futures.BrokenExecutor as error:
        raise RuntimeError(f"one of {processes} processes ended early: {GUARD}") from error
    except RuntimeError as error:
        if "bootstrapping" not in str(error):
            raise
        raise SystemExit(f"error: {GUARD}") from None  # this is a process that began the script
