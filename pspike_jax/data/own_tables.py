"""Tasks of one's own tables: long format, a line a step, as spreadsheets and loggers write it."""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from pspike_jax.data.arrays import from_arrays
from pspike_jax.data.batches import Task
from pspike_jax.data.own_files import existing, named_objective, shares
from pspike_jax.data.untrusted import open_regular

_MOST_BYTES = 1 << 34  # of one file


def load_csv(
    *, path: str, target: str | Sequence[str] = "label", id: str = "id", time: str = "time",
    channels: Sequence[str] | None = None, objective: str | None = None,
    validation: float = 0.1, test: float = 0.1, seed: int = 0,
) -> Task:
    """Read a task from a table in long format: a line a step.

    Args:
      path: of the .csv file, with a line of names.
      target: column of the label, or columns of the numbers to learn. Where a column changes
        within an example, targets are of steps.
      id: column that names the example.
      time: column that orders its steps.
      channels: columns of the inputs; None for all others.
      objective: as of `load_arrays`.
      validation, test, seed: as of `load_arrays`.

    Returns:
      The task; targets that are all whole numbers, or words, are classes.

    Raises:
      FileNotFoundError: there is no such file.
      TypeError, ValueError: a column is missing, or a cell is no number; with its line.
    """
    place = existing(path)
    names, rows = _read_table(place)
    targets = [target] if isinstance(target, str) else list(target)
    chosen = [n for n in names if n not in (id, time, *targets)] if channels is None else channels
    for name in (id, time, *targets, *chosen):
        if name not in names:
            raise ValueError(f"{place} has no column {name!r}; it has {', '.join(names)}")
    if not chosen:
        raise ValueError(f"{place} has no column of inputs beside {', '.join(names)}")
    numbers = {n: _numbers(rows, names.index(n), n, place) for n in dict.fromkeys((time, *chosen))}
    whose = np.array([row[names.index(id)] for row in rows])
    order = np.lexsort((np.arange(len(whose)), numbers[time]))
    members: dict[str, list[int]] = {}
    for row in order:
        members.setdefault(str(whose[row]), []).append(int(row))
    examples = [members[name] for name in sorted(members)]
    table = np.stack([numbers[name] for name in chosen], axis=-1).astype(np.float32)
    return from_arrays(
        [table[steps] for steps in examples],
        _table_targets(rows, [names.index(n) for n in targets], targets, examples, place),
        objective=named_objective(objective, None),
        name=place.stem,
        **shares(validation, test, seed),
    )


def _read_table(place: pathlib.Path) -> tuple[list[str], list[list[str]]]:
    with open_regular(place, _MOST_BYTES) as opened:
        lines = opened.read().decode("utf-8-sig").splitlines()
    rows = [row for row in csv.reader(lines) if row]
    if len(rows) < 2:
        raise ValueError(f"{place} holds {len(rows)} lines, expected names and steps")
    names = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise ValueError(f"{place}, line {number}: {len(row)} cells, expected {len(names)}")
    return names, [[cell.strip() for cell in row] for row in rows[1:]]


def _numbers(rows: list[list[str]], column: int, name: str, place: pathlib.Path) -> np.ndarray:
    found = np.empty(len(rows))
    for number, row in enumerate(rows):
        try:
            found[number] = float(row[column])
        except ValueError:
            raise ValueError(
                f"{place}, line {number + 2}: {name} is {row[column]!r}, expected a number"
            ) from None
    return found


def _table_targets(rows, columns, names, examples, place) -> Any:
    """Targets of examples, or of steps where they change; words and whole numbers are classes."""
    words = np.array([[row[column] for column in columns] for row in rows])
    one_each = all((words[steps] == words[steps[0]]).all() for steps in examples)
    if len(columns) == 1 and one_each:
        found = [words[steps[0], 0] for steps in examples]
        try:
            values = np.array(found, np.float64)
        except ValueError:
            return found
        return values.astype(np.int64) if (values == np.round(values)).all() else values
    values = np.stack(
        [_numbers(rows, column, name, place) for column, name in zip(columns, names)], axis=-1
    ).astype(np.float32)
    if one_each:
        return np.stack([values[steps[0]] for steps in examples])
    if len(columns) == 1 and (values == np.round(values)).all():
        return [values[steps, 0].astype(np.int64) for steps in examples]
    return [values[steps] for steps in examples]
