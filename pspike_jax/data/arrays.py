"""Tasks of one's own arrays: what inputs and targets may look like, and what follows from that."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pspike_jax.data import partition
from pspike_jax.data.batches import Task
from pspike_jax.data.dlpack import Arrays, from_dlpack
from pspike_jax.data.own_targets import read_targets
from pspike_jax.data.rows import Rows, is_mapped
from pspike_jax.data.split import Split, check_split, refuse_masked, take
from pspike_jax.objectives import Classification, NextToken, Objective


def from_arrays(
    inputs: Arrays,
    targets: Arrays | None = None,
    *,
    objective: Objective | type | None = None,
    lengths: Arrays | None = None,
    groups: Arrays | None = None,
    splits: Mapping[str, Arrays] | Arrays | None = None,
    stratify: bool = True,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    dt: Arrays | None = None,
    vocab_size: int | None = None,
    class_names: Arrays | None = None,
    name: str = "arrays",
) -> Task:
    """Make a task of the caller's own data.

    Without an objective the targets decide:

      integers, bools or strings (n,)   Classification; strings, and integers other than 0 to K - 1,
                                        become named classes
      integers (n, L), -1 for none      StepClassification
      floats (n,) or (n, K)             Regression
      floats (n, L, K), NaN for none    StepRegression

    Forecast(horizon) and NextToken(vocab_size) take no targets.

    Args:
      inputs: (n, L, F) numbers; (n, L) floats or bools, one feature; (n, L, ...) numbers, such as
        frames, whose features are put into one axis; (n, L) integers below `vocab_size`, tokens,
        or (n, 2, L) for pairs of documents; or a list of n arrays of any lengths, (L_i, F),
        (L_i,) or (L_i, ...). Tables and labelled arrays (pandas, xarray) go by their arrays. A
        memory map is not copied.
      targets: an array, a list, or a series; None where the objective needs none.
      objective: what to learn; a class of `pspike_jax.objectives` takes its sizes from the data.
      lengths: (n,) integers in [1, L]; None where all are L, or follow from a list.
      groups: (n,) names, such as subjects: all rows of one name are in one split.
      splits: the caller's own: {"train": rows, "validation": rows, "test": rows} as row numbers or
        masks, or the name of a split for each row. `validation` and `test` are then not used.
      stratify: each split gets alike many of every class, where there is one an example.
      validation: share of the examples that select the model, in (0, 1).
      test: share of the examples that evaluation alone reads, in [0, 1); 0 for none.
      seed: of the choice; not negative.
      dt: (n, L), or a list of n arrays, time since the step before; None for regular steps.
      vocab_size: number of tokens, or None for numbers.
      class_names: names of the classes 0 to K - 1, or None.
      name: what pictures and tables call the task.

    Returns:
      The task.

    Raises:
      TypeError, ValueError: as `check_split` does, where a share leaves a split empty, and where
        inputs or targets may mean two things.
    """
    objective = objective() if isinstance(objective, type) else objective
    inputs, lengths, vocab_size = _read_inputs(inputs, lengths, vocab_size, objective)
    length = inputs.shape[lengths.ndim]
    targets, objective = read_targets(
        targets, objective, count=len(inputs), length=length, class_names=class_names
    )
    whole = Split(inputs, lengths, targets, _read_dt(dt, length))
    counted = [len(x) for x in whole if x is not None]
    if groups is not None:
        groups = plain(groups, "groups")
        counted.append(len(groups))
    if len(set(counted)) > 1:
        raise ValueError(f"inputs, lengths, targets, dt and groups hold {counted} examples")
    if splits is not None:
        parts = partition.given_rows(splits, len(inputs))
        if groups is not None:
            partition.check_groups(groups, parts)
    else:
        one_each = isinstance(objective, Classification) and targets.ndim == 1
        parts = partition.random_rows(
            len(inputs), (validation, test), seed=seed, groups=groups,
            classes=targets if stratify and one_each else None,
        )
    named = {part: _take(whole, rows) for part, rows in parts.items()}
    return Task(
        name=name,
        train=named["train"],
        validation=named.get("validation"),
        test=named.get("test"),
        objective=objective,
        vocab_size=vocab_size,
    )


def inputs_alone(
    inputs: Arrays,
    *,
    lengths: Arrays | None = None,
    dt: Arrays | None = None,
    vocab_size: int | None = None,
) -> Split:
    """Read and check inputs without targets, as `predict` takes them.

    Args:
      inputs, lengths, dt: as of `from_arrays`.
      vocab_size: number of tokens, or None for numbers.

    Returns:
      A split whose targets are None.

    Raises:
      TypeError, ValueError: as `check_split` does.
    """
    inputs, lengths, vocab_size = _read_inputs(inputs, lengths, vocab_size, None)
    split = Split(inputs, lengths, None, _read_dt(dt, inputs.shape[lengths.ndim]))
    check_split(split, where="inputs", objective=None, vocab_size=vocab_size)
    return split


def _read_dt(dt, length):
    if dt is None:
        return None
    return pad_list(dt, "dt", length, 0.0)[0] if is_ragged(dt) else plain(dt, "dt")


def _take(split, rows):
    if not is_mapped(split.inputs):
        return take(split, rows)
    rest = take(split._replace(inputs=split.lengths), rows)
    return rest._replace(inputs=Rows(split.inputs, rows))


def is_ragged(value: Any) -> bool:
    """Tell a list of arrays from one array; a list of plain numbers or lists is one array."""
    if isinstance(value, np.ndarray):
        return value.dtype == object and value.ndim == 1
    if not isinstance(value, (list, tuple)):
        return False
    if value and all(hasattr(one, "__dlpack__") for one in value):
        return all(getattr(one, "ndim", 1) for one in value)
    if not all(hasattr(one, "__len__") for one in value):
        return False
    return any(hasattr(one, "shape") for one in value) or len(set(map(len, value))) > 1


def plain(value: Any, what: str) -> np.ndarray:
    """Turn what a caller brings into a NumPy array of the machine's byte order.

    Args:
      value: an array of any library that lends its memory by DLPack, a list, or a frame, series or
        labelled array with `to_numpy`.
      what: what messages call it.

    Returns:
      The array; a memory map, and what has the right dtype, is not copied.

    Raises:
      TypeError: it is masked, or its library does not share it.
    """
    refuse_masked(value, what)
    value = from_dlpack(value, what)
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
        refuse_masked(value, what)
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{what} are a {type(value).__name__} that is no array of numbers: "
            + str(error).splitlines()[0]
        ) from error
    if not array.ndim:
        found = repr(value) if len(repr(value)) < 60 else f"a {type(value).__name__}"
        raise TypeError(f"{what} are {found}, expected an array, or a list of arrays")
    if array.dtype.isnative or is_mapped(array):  # batches of a map are converted as they are read
        return array
    return array.astype(array.dtype.newbyteorder("="))


def pad_list(
    values: Any, what: str, length: int | None, fill: float
) -> tuple[np.ndarray, np.ndarray]:
    """Put arrays of different lengths into one.

    Args:
      values: n arrays, (L_i,) or (L_i, ...).
      what: what messages call them.
      length: L, or None for the longest.
      fill: stands behind each.

    Returns:
      (n, L) or (n, L, ...), and (n,) int32 lengths.

    Raises:
      TypeError: dtypes are not numbers, or a mask would be lost.
      ValueError: there are none, or their shapes do not fit.
    """
    parts = [plain(one, f"{what}[{row}]") for row, one in enumerate(values)]
    if not parts:
        raise ValueError(f"{what} hold no example")
    for row, part in enumerate(parts):
        if not part.ndim or part.ndim != parts[0].ndim or part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(
                f"{what}[{row}] has shape {part.shape}, expected (L,) or (L, F) as of {what}[0], "
                f"{parts[0].shape}"
            )
        if part.dtype.kind not in "fbiu":
            raise TypeError(f"{what}[{row}] is {part.dtype}, expected real numbers")
    lengths = np.array([len(part) for part in parts], np.int32)
    longest = int(lengths.max()) if length is None else length
    if lengths.max() > longest:
        row = int(np.argmax(lengths))
        raise ValueError(f"{what}[{row}] has {lengths[row]} steps, inputs have {longest}")
    dtype = np.result_type(*{part.dtype for part in parts})
    dtype = np.dtype(np.float32) if dtype == np.float64 else dtype
    out = np.full((len(parts), longest, *parts[0].shape[1:]), fill, dtype)
    for row, part in zip(out, parts):
        row[: len(part)] = part
    return out, lengths


def _read_inputs(inputs, lengths, vocab_size, objective):
    """Inputs as (n, L, F) numbers or tokens, their lengths, and the number of tokens."""
    if hasattr(inputs, "to_numpy"):
        inputs = inputs.to_numpy()
    if is_ragged(inputs):
        if lengths is not None:
            raise ValueError("lengths follow from a list of arrays, expected None")
        inputs, lengths = pad_list(inputs, "inputs", None, 0)
    inputs = plain(inputs, "inputs")
    if inputs.dtype.kind not in "fbiu":
        raise TypeError(f"inputs are {inputs.dtype} {inputs.shape}, expected real numbers")
    if inputs.dtype == np.float64 and not is_mapped(inputs):
        with np.errstate(over="ignore"):  # what float32 does not hold is refused as infinite
            inputs = inputs.astype(np.float32)
    if isinstance(objective, NextToken) and vocab_size is None:
        vocab_size = objective.vocab_size
        if vocab_size is None and inputs.dtype.kind not in "iu":
            raise TypeError(
                f"inputs are {inputs.dtype} {inputs.shape}, expected integer tokens for NextToken"
            )
        if vocab_size is None and inputs.dtype.kind in "iu":
            vocab_size = int(inputs.max(initial=0)) + 1
    if vocab_size is None and inputs.ndim > 3:  # frames
        inputs = inputs.reshape(*inputs.shape[:2], math.prod(inputs.shape[2:]))
    if vocab_size is None and inputs.ndim == 2:
        if inputs.dtype.kind in "iu":
            raise TypeError(
                f"inputs are {inputs.dtype} {inputs.shape}: give vocab_size if these are tokens; "
                "inputs[..., None] makes them numbers, one feature a step"
            )
        inputs = inputs[..., None]
    if lengths is None:
        pairs = vocab_size is not None and inputs.ndim == 3
        shape = inputs.shape[: 2 if pairs else 1]
        steps = inputs.shape[len(shape)] if inputs.ndim > len(shape) else 0
        lengths = np.full(shape, steps, np.int32)
    lengths = plain(lengths, "lengths")
    if inputs.ndim not in (2, 3) or inputs.ndim <= lengths.ndim:
        raise ValueError(
            f"inputs have shape {inputs.shape}, expected (n, L, F) or (n, L), and lengths "
            f"{lengths.shape}, expected (n,)"
        )
    return inputs, lengths, vocab_size
