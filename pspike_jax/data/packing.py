"""Several short examples in one row: less padding, and as many steps in every batch.

A row holds whole examples, one behind the other. "resets" marks the first step of each, where a
model's states start anew; "ids" names the example of each step, by which its noise is drawn, so
that packed and separate examples see the same noise.
"""

import bisect
import dataclasses

import numpy as np

from pspike_jax.data.split import Split, reads_tokens


@dataclasses.dataclass(frozen=True, eq=False)
class PackedSplit:
    """Examples of a split, and the rows that they are packed into.

    Attributes:
      examples: the split; it is read when a batch asks for its rows.
      length: L of a row.
      per_step: targets are those of steps; else one an example, set at its last step.
      order: (n,) numbers of the examples, row by row.
      offsets: (rows + 1,) where each row begins in `order`.
    """

    examples: Split
    length: int
    per_step: bool
    order: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"PackedSplit({len(self)} rows of {self.length} steps, of {self.examples})"

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Write examples into rows.

        Args:
          rows: (B,) row numbers.

        Returns:
          "inputs" (B, L) int32 or (B, L, F) float32; "lengths" (B,) int32, the steps in use;
          "targets" (B, L, ...), -1 or NaN where there is none, and "dt" (B, L), where the split has
          them; "resets" (B, L) bool; "ids" (B, L) int32, 0 behind the last example.
        """
        batch = self._empty(len(rows))
        for number, row in enumerate(rows):
            start = 0
            for example in self.order[self.offsets[row] : self.offsets[row + 1]]:
                stop = start + int(self.examples.lengths[example])
                self._write(batch, number, slice(start, stop), example)
                start = stop
            batch["lengths"][number] = start
        return batch

    def _empty(self, count):
        inputs, _, targets, dt = self.examples
        shape = (count, self.length)
        dtype = np.int32 if reads_tokens(self.examples) else np.float32
        batch = {
            "inputs": np.zeros((*shape, *inputs.shape[2:]), dtype),
            "lengths": np.zeros(count, np.int32),
            "resets": np.zeros(shape, bool),
            "ids": np.zeros(shape, np.int32),
        }
        if targets is not None:
            rest = targets.shape[2 if self.per_step else 1 :]
            real = targets.dtype.kind == "f"
            batch["targets"] = np.full(
                (*shape, *rest), np.nan if real else -1, np.float32 if real else np.int32
            )
        if dt is not None:
            batch["dt"] = np.zeros(shape, np.float32)
        return batch

    def _write(self, batch, number, place, example):
        inputs, _, targets, dt = self.examples
        steps = slice(0, place.stop - place.start)
        batch["inputs"][number, place] = inputs[example][steps]
        batch["resets"][number, place.start] = True
        batch["ids"][number, place] = example
        if targets is not None:
            where = place if self.per_step else place.stop - 1
            batch["targets"][number, where] = (
                targets[example][steps] if self.per_step else targets[example]
            )
        if dt is not None:
            batch["dt"][number, place] = dt[example][steps]


def pack(split: Split, length: int, *, per_step: bool = False, seed: int = 0) -> PackedSplit:
    """Choose the row of every example: each goes where it leaves the least room, the longest first.

    Args:
      split: single documents of any lengths.
      length: L of a row; no example is longer.
      per_step: as of the task's objective.
      seed: breaks ties between examples of one length; not negative.

    Returns:
      The packed split, which `train_batch` and `eval_batches` read as they read a split. What is
      packed together stays together: an epoch permutes rows.

    Raises:
      ValueError: an example is longer than a row, or the split holds pairs of documents.
    """
    if split.lengths.ndim != 1:
        raise ValueError("pairs of documents cannot be packed")
    lengths = np.asarray(split.lengths, np.int64)
    if lengths.max() > length:
        row = int(np.argmax(lengths))
        raise ValueError(f"example {row} has {lengths[row]} steps, expected at most {length}")
    order = np.random.default_rng(seed).permutation(len(lengths))
    order = order[np.argsort(-lengths[order], kind="stable")]
    rows, rooms, with_room = [], [], {}  # with_room: numbers of the rows that have so much room
    for example in order:
        need = int(lengths[example])
        place = bisect.bisect_left(rooms, need)
        if place == len(rooms):
            rows.append([])
            row, room = len(rows) - 1, length
        else:
            room = rooms[place]
            row = with_room[room].pop()
            if not with_room[room]:
                del rooms[place], with_room[room]
        rows[row].append(example)
        left = room - need
        if left:
            if left not in with_room:
                bisect.insort(rooms, left)
            with_room.setdefault(left, []).append(row)
    offsets = np.cumsum([0, *map(len, rows)])
    return PackedSplit(split, int(length), per_step, np.concatenate(rows).astype(np.int64), offsets)
