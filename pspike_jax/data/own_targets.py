"""Targets of one's own: which objective they ask for, and the classes that they name."""

import dataclasses
from typing import Any

import numpy as np

from pspike_jax.data.dlpack import from_dlpack
from pspike_jax.data.split import refuse_masked
from pspike_jax.objectives import (
    Classification,
    Counts,
    Objective,
    Regression,
    StepClassification,
    StepRegression,
)

_FEW = 20  # more classes than this, each with hardly an example, are no classes


def read_targets(
    targets: Any, objective: Objective | None, *, count: int, length: int, class_names: Any
) -> tuple[np.ndarray | None, Objective]:
    """Read targets, and choose the objective where none is given.

    Args:
      targets: an array, a list or a series; None where the objective needs none.
      objective: the caller's, or None.
      count: n.
      length: L.
      class_names: names of the classes 0 to K - 1, or None.

    Returns:
      The targets as integers or float32, and the objective, its classes counted.

    Raises:
      TypeError, ValueError: there are none, they are of no kind that can be learnt, or may mean two
        things.
    """
    if targets is None:
        if objective is None or objective.needs_targets:
            raise TypeError(
                "targets are None; give them, or an objective that needs none: Forecast, NextToken"
            )
        return None, objective
    targets = _array(targets, length)
    if targets.shape[:1] != (count,):
        raise ValueError(f"{count} inputs, but targets have shape {targets.shape}")
    if targets.ndim == 2 and targets.shape[1] == 1 != length and targets.dtype.kind != "f":
        targets = targets[:, 0]
    if objective is None:
        objective = _choose(targets, length)
    if isinstance(objective, Classification):
        return _classes(targets, objective, class_names)
    if class_names is not None:
        raise ValueError(f"class_names are given, but the objective is {objective}")
    if targets.dtype.kind not in "fbiu":
        raise TypeError(f"targets are {targets.dtype}, expected numbers for {objective}")
    if targets.dtype.kind == "f" or isinstance(objective, Regression):
        with np.errstate(over="ignore"):  # what float32 does not hold is refused as infinite
            targets = targets.astype(np.float32, copy=False)
    elif isinstance(objective, Counts) and targets.dtype == bool:
        targets = targets.astype(np.int8)
    return targets, objective


def _array(targets: Any, length: int) -> np.ndarray:
    """Targets as one array of numbers or strings; lists of steps are filled up with -1 or NaN."""
    targets = from_dlpack(targets, "targets")
    refuse_masked(targets, "targets")
    if hasattr(targets, "to_numpy"):
        targets = targets.to_numpy()
    if isinstance(targets, (list, tuple)) and any(np.ndim(one) for one in targets):
        targets = _padded([np.asarray(one) for one in targets], length)
    array = np.asarray(targets)
    refuse_masked(array, "targets")
    if array.dtype == object:
        array = _strings(array)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind not in "fbiuU" or not 1 <= array.ndim <= 3:
        raise TypeError(
            f"targets are {array.dtype} {array.shape}, expected integers, floats or strings, (n,), "
            "(n, K), (n, L) or (n, L, K)"
        )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _padded(parts, length):
    if len({part.shape for part in parts}) == 1:
        return np.stack(parts)
    longest = max(len(part) for part in parts)
    if longest > length:
        raise ValueError(f"an example has {longest} targets, but inputs have {length} steps")
    dtype = np.result_type(*{part.dtype for part in parts})
    if dtype.kind == "u":
        dtype = np.dtype(np.int64)
    fill = np.nan if dtype.kind == "f" else -1
    out = np.full((len(parts), length, *parts[0].shape[1:]), fill, dtype)
    for row, part in zip(out, parts):
        row[: len(part)] = part
    return out


def _strings(array):
    """Objects of a series as strings, or as what they are when all are of one other kind."""
    flat = array.ravel().tolist()
    for row, one in enumerate(flat):
        if one is None or type(one).__name__ in ("NAType", "NaTType") or one != one:  # or NaN
            raise ValueError(f"targets[{row}] is {one}, expected a class or a number")
    if all(isinstance(one, str) for one in flat):
        return array.astype(str)
    return np.asarray(flat).reshape(array.shape)


def _choose(targets: np.ndarray, length: int) -> Objective:
    """Return the objective that targets ask for by dtype and shape."""
    real, shape = targets.dtype.kind == "f", targets.shape
    if real and targets.ndim == 3:
        if shape[1] != length:
            raise ValueError(f"targets have {shape[1]} steps, inputs have {length}")
        objective = StepRegression(shape[2])
    elif real and targets.ndim == 2 and shape[1] == length > 1:
        raise ValueError(
            f"targets are floats {shape}, and inputs have {length} steps: give "
            f"objective=Regression({length}), or StepRegression(1) and targets[..., None]"
        )
    elif real:
        objective = Regression(shape[1] if targets.ndim == 2 else 1)
    elif targets.ndim == 1:
        objective = Classification()
    elif targets.ndim == 2 and shape[1] == length:
        objective = StepClassification()
    else:
        raise ValueError(
            f"targets are {targets.dtype} {shape}; classes are (n,) or, of steps, (n, {length}); "
            "give objective=Counts() for counts, or floats for numbers"
        )
    return objective


def _classes(targets, objective, class_names):
    """Number the classes 0 to K - 1; name those that had other names."""
    kind = targets.dtype.kind
    if kind == "f":
        raise TypeError(
            f"targets are {targets.dtype}, expected integers or strings for classes; "
            ".astype(int) makes whole numbers of floats"
        )
    names = objective.names if class_names is None else tuple(map(str, class_names))
    if kind == "U":
        return _named(targets, objective, names)
    targets = targets.astype(np.int32) if kind == "b" else targets
    if objective.num_classes is None and names is None:
        found = np.unique(targets[targets >= 0] if targets.ndim > 1 else targets)
        if len(found) > max(_FEW, targets.shape[0] // 2) and targets.ndim == 1:
            raise ValueError(
                f"{len(found)} different integers in {len(targets)} targets: give floats to "
                f"regress them, or objective=Classification({int(found[-1]) + 1})"
            )
        if not np.array_equal(found, np.arange(len(found))):
            numbers = np.searchsorted(found, np.maximum(targets, found[0])).astype(np.int32)
            missing = (targets < 0) & (targets.ndim > 1)
            targets, names = np.where(missing, -1, numbers), tuple(map(str, found.tolist()))
        objective = dataclasses.replace(objective, num_classes=len(found), names=names)
    elif objective.num_classes is None:
        objective = dataclasses.replace(objective, num_classes=len(names), names=names)
    elif names is not None:
        objective = dataclasses.replace(objective, names=names)
    return targets, objective


def _named(targets, objective, names):
    """Number strings by the names given, or in their order; "" is no class of a step."""
    missing = (targets == "") & (targets.ndim > 1)
    names = tuple(np.unique(targets[~missing]).tolist()) if names is None else names
    table = {name: number for number, name in enumerate(names)}
    unknown = [one for one in np.unique(targets[~missing]).tolist() if one not in table]
    if unknown:
        raise ValueError(f"targets hold {unknown[0]!r}, expected one of {', '.join(names)}")
    flat = [table.get(one, -1) for one in targets.ravel().tolist()]
    count = len(names) if objective.num_classes is None else objective.num_classes
    objective = dataclasses.replace(objective, num_classes=count, names=names)
    return np.asarray(flat, np.int32).reshape(targets.shape), objective
