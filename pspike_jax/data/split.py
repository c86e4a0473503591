"""Splits: the arrays of examples, and the checks that every door makes of them."""

from typing import Any, NamedTuple

import numpy as np

from pspike_jax.data.rows import Rows
from pspike_jax.data.scaled import Scaled
from pspike_jax.objectives.objective import Objective, refuse

CHECKED_BYTES = 1 << 26  # inputs are checked in pieces: a memory map need not fit in memory


class Split(NamedTuple):
    """Examples of one split, as NumPy arrays or memory maps.

    Attributes:
      inputs: (n, L) integers, the tokens; or (n, L, F) floats, bools or integers, read as float32;
        (n, 2, L) tokens for pairs of documents. Scaled and Rows are read when a batch needs them.
      lengths: (n,) integers in [1, L]; (n, 2) for pairs of documents.
      targets: what the objective of the task wants; None where it makes them of the inputs.
      dt: (n, L) floats, time since the step before, or None for regular steps.
    """

    inputs: np.ndarray | Scaled | Rows
    lengths: np.ndarray
    targets: np.ndarray | None
    dt: np.ndarray | None = None

    def __repr__(self) -> str:
        named = (
            f"{name} {array.dtype} {array.shape}"
            for name, array in self._asdict().items()
            if hasattr(array, "shape")
        )
        return f"Split({', '.join(named)})"


def take(split: Split, rows: np.ndarray) -> Split:
    """Return the given rows of a split.

    Args:
      split: the arrays.
      rows: (m,) row numbers.

    Returns:
      A split of m examples, copied.
    """
    return Split(*(None if array is None else array[rows] for array in split))


def reads_tokens(split: Split) -> bool:
    """Tell tokens, which have one axis after those of the lengths, from numbers, which have two."""
    return split.inputs.ndim == split.lengths.ndim + 1


def check_split(
    split: Split, *, where: str, objective: Objective | None, vocab_size: int | None
) -> None:
    """Refuse arrays that a model could not learn from, before anything is computed.

    Args:
      split: the arrays.
      where: what messages call it.
      objective: checks the targets; None where they are not used.
      vocab_size: tokens are in [0, vocab_size), or None for real inputs.

    Raises:
      TypeError: a dtype is wrong, or this is no split.
      ValueError: a shape or a value is wrong.
    """
    if not isinstance(split, Split):
        raise TypeError(f"{where}: {_name(split)} in place of a Split(inputs, lengths, targets)")
    _check_types(split, where, vocab_size)
    _check_shapes(split, where, vocab_size)
    inputs, lengths, targets, dt = split
    _check_range(lengths, f"{where}: lengths", 1, inputs.shape[lengths.ndim])
    if objective is not None:
        if objective.per_step and lengths.ndim == 2:
            raise ValueError(f"{where}: pairs of documents have no targets at each step")
        if objective.needs_targets and targets is None:
            raise TypeError(f"{where}: targets are None, but {type(objective).__name__} needs them")
        objective.check(inputs, lengths, targets, where)
    _check_inputs(inputs, where, vocab_size)
    if dt is not None:
        with np.errstate(invalid="ignore"):
            bad = ~np.isfinite(dt) | (dt < 0)
        refuse(dt, bad, f"{where}: dt", "finite times, 0 or more")


def refuse_masked(array: Any, where: str) -> None:
    """Refuse an array whose mask would be lost.

    Args:
      array: anything.
      where: what messages call it.

    Raises:
      TypeError: it is a masked array.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{where}: a masked array, whose mask would be lost; drop what is masked, fill it "
            "(.filled), or, of targets, put -1 or NaN there"
        )


def _name(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _check_types(split: Split, where: str, vocab_size: int | None) -> None:
    for name, array in split._asdict().items():
        if array is None and name in ("targets", "dt"):
            continue
        refuse_masked(array, f"{where}: {name}")
        kinds = (np.ndarray, Scaled, Rows) if name == "inputs" else (np.ndarray,)
        if not isinstance(array, kinds):
            raise TypeError(f"{where}: {name} are {_name(array)}, expected a NumPy array")
    inputs, lengths, _, dt = split
    if vocab_size is not None and inputs.dtype.kind not in "iu":
        raise TypeError(
            f"{where}: inputs are {inputs.dtype}, expected integers below vocab_size {vocab_size}"
        )
    if inputs.dtype.kind not in "fbiu":
        raise TypeError(f"{where}: inputs are {inputs.dtype}, expected real numbers")
    if vocab_size is None and inputs.ndim < 3 and inputs.dtype.kind in "iu":
        raise TypeError(
            f"{where}: inputs are {inputs.dtype} {inputs.shape}; tokens need vocab_size, numbers "
            "an axis of features, (n, L, F)"
        )
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"{where}: lengths are {lengths.dtype}, expected integers")
    if dt is not None and dt.dtype.kind not in "fiu":
        raise TypeError(f"{where}: dt is {dt.dtype}, expected floats")


def _check_shapes(split: Split, where: str, vocab_size: int | None) -> None:
    inputs, lengths, targets, dt = split
    ranks_inside = 1 if vocab_size is not None else 2
    if lengths.ndim not in (1, 2) or inputs.ndim != lengths.ndim + ranks_inside:
        expected = "(n, L)" if ranks_inside == 1 else "(n, L, F)"
        raise ValueError(
            f"{where}: inputs have shape {inputs.shape} and lengths {lengths.shape}, "
            f"expected {expected} and (n,)"
        )
    if inputs.size == 0:
        raise ValueError(f"{where}: inputs have shape {inputs.shape}, expected no empty axis")
    counts = {len(inputs), len(lengths)} | ({len(targets)} if np.ndim(targets) else set())
    if inputs.shape[: lengths.ndim] != lengths.shape or len(counts) > 1:
        raise ValueError(
            f"{where}: inputs {inputs.shape}, lengths {lengths.shape} and targets "
            f"{np.shape(targets) if targets is not None else None} do not agree on the number of "
            "examples"
        )
    if dt is not None and (lengths.ndim == 2 or dt.shape != inputs.shape[:2]):
        raise ValueError(f"{where}: dt has shape {dt.shape}, expected {inputs.shape[:2]}, (n, L)")


def _check_range(array: np.ndarray, what: str, low: int, high: int) -> None:
    refuse(array, (array < low) | (array > high), what, f"{low} to {high}")


def _check_inputs(inputs: np.ndarray | Rows | Scaled, where: str, vocab_size: int | None) -> None:
    if isinstance(inputs, Scaled):  # finite integers under a finite scaling
        return
    if vocab_size is None and inputs.dtype.kind != "f":
        return
    rows = max(1, CHECKED_BYTES // (inputs[:1].nbytes or 1))
    for start in range(0, len(inputs), rows):
        piece = np.asarray(inputs[start : start + rows])
        if vocab_size is not None:
            bad, expected = (piece < 0) | (piece >= vocab_size), f"0 to {vocab_size - 1}"
        else:
            with np.errstate(over="ignore"):
                bad = ~np.isfinite(piece.astype(np.float32, copy=False))
            expected = "finite numbers of float32"
        if bad.any():
            row = int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
            place = (row, *(int(i) for i in np.argwhere(bad[row])[0]))
            index = ", ".join(str(i) for i in (start + row, *place[1:]))
            raise ValueError(f"{where}: inputs[{index}] is {piece[place]}, expected {expected}")
