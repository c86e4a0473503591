"""Which rows train, select and judge: shares, alike in every class, subjects on one side, or given.

Everything here is row numbers; nothing is read or copied.
"""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SPLITS = ("train", "validation", "test")
_TRIES = 64  # random orders of the groups, of which the best balanced is taken

Parts = dict[str, np.ndarray]


def given_rows(splits: Any, count: int) -> Parts:
    """Read the caller's own splits.

    Args:
      splits: {"train": rows, "validation": rows, "test": rows}, as row numbers or (n,) masks; or
        the name of its split for each row, (n,).
      count: n.

    Returns:
      Row numbers by split, in the order given; a row may be in none.

    Raises:
      TypeError: splits are neither.
      ValueError: a name or a row is unknown, a row stands twice, or train is missing or empty.
    """
    if isinstance(splits, Mapping):
        named = dict(splits)
    else:
        names = np.asarray(splits)
        if names.shape != (count,) or names.dtype.kind not in "UO":
            raise TypeError(
                f"splits are {names.dtype} {names.shape}, expected a dict of row numbers or masks, "
                f"or the name of a split for each of {count} rows"
            )
        named = {name: np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())}
    unknown = [name for name in named if name not in SPLITS]
    if unknown:
        raise ValueError(f"splits name {unknown[0]!r}, expected {', '.join(SPLITS)}")
    parts = {name: _rows(rows, name, count) for name, rows in named.items() if rows is not None}
    owner = np.full(count, -1)
    for name, rows in parts.items():
        taken = owner[rows] >= 0
        if taken.any() or len(np.unique(rows)) < len(rows):
            twice = rows[np.argmax(taken)] if taken.any() else _repeated(rows)
            raise ValueError(f"splits: row {twice} stands twice, the second time in {name}")
        owner[rows] = SPLITS.index(name)
    if not len(parts.get("train", ())):
        raise ValueError("splits leave train empty")
    return {name: parts[name] for name in SPLITS if name in parts and len(parts[name])}


def _rows(rows, name, count):
    rows = np.asarray(rows)
    if rows.dtype == bool:
        if rows.shape != (count,):
            raise ValueError(f"splits[{name!r}] is a mask {rows.shape}, expected ({count},)")
        return np.flatnonzero(rows)
    if rows.size == 0:
        return np.zeros(0, np.int64)
    if rows.dtype.kind not in "iu" or rows.ndim != 1:
        raise TypeError(f"splits[{name!r}] is {rows.dtype} {rows.shape}, expected row numbers")
    bad = (rows < 0) | (rows >= count)
    if bad.any():
        raise ValueError(f"splits[{name!r}] has row {rows[np.argmax(bad)]} of {count}")
    return rows.astype(np.int64)


def _repeated(rows):
    numbers, counts = np.unique(rows, return_counts=True)
    return numbers[np.argmax(counts)]


def check_groups(groups: Any, parts: Parts) -> None:
    """Refuse splits that have a group in two of them.

    Args:
      groups: (n,) names.
      parts: row numbers by split.

    Raises:
      ValueError: a group is on two sides.
    """
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    owner = {}
    for name, rows in parts.items():
        for row, group in zip(rows, numbers[rows]):
            if owner.setdefault(group, name) != name:
                raise ValueError(
                    f"group {np.asarray(groups)[row].item()!r} is in {owner[group]} and in {name}"
                )


def random_rows(
    count: int, shares: tuple[float, float], *, seed: int, classes: np.ndarray | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
) -> Parts:
    """Split rows at random.

    Args:
      count: n.
      shares: of validation, in (0, 1), and of test, in [0, 1).
      seed: of the choice; not negative.
      classes: (n,) integers, of which each split gets alike many, or None.
      groups: (n,) names of what must stay on one side, or None. Shares are then met as nearly as
        whole groups allow.

    Returns:
      Sorted row numbers of "train", "validation" and, if its share is above 0, "test".

    Raises:
      TypeError: shares or seed are no numbers.
      ValueError: a share leaves a split empty, or the seed is negative.
    """
    for name, share in zip(("validation", "test"), shares):
        if isinstance(share, bool) or not isinstance(share, numbers.Real):
            raise TypeError(f"{name} is {share!r}, expected a share of the examples, as 0.1")
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"seed is {seed!r}, expected a whole number of 0 or more")
    sizes = [round(count * share) for share in shares]
    if shares[0] <= 0 or shares[1] < 0 or sizes[0] < 1 or sum(sizes) >= count:
        raise ValueError(
            f"shares validation={shares[0]} and test={shares[1]} of {count} examples leave "
            "train or validation empty"
        )
    rng = np.random.default_rng(seed)
    if groups is not None:
        owner = _by_groups(np.asarray(groups), sizes, classes, rng)
    else:
        owner = np.zeros(count, np.int64)
        order = rng.permutation(count)
        for part, size in ((2, sizes[1]), (1, sizes[0])):
            free = order[owner[order] == 0]
            owner[_choose(free, size, classes)] = part
    return {
        name: np.flatnonzero(owner == part)
        for part, name in enumerate(SPLITS)
        if (owner == part).any()
    }


def _choose(rows, size, classes):
    """Choose the first rows of each class, in shares that differ by less than one row."""
    if classes is None:
        return rows[:size]
    names, where, counts = np.unique(classes[rows], return_inverse=True, return_counts=True)
    exact = counts * (size / len(rows))
    quotas = np.floor(exact).astype(np.int64)
    quotas[np.argsort(quotas - exact, kind="stable")[: size - quotas.sum()]] += 1
    return np.concatenate([rows[where == k][: quotas[k]] for k in range(len(names))])


def _by_groups(groups, sizes, classes, rng):
    """Give whole groups to test and validation; of many random orders, keep the best balanced."""
    names, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    wanted = [part for part, size in ((2, sizes[1]), (1, sizes[0])) if size]
    if len(names) <= len(wanted):
        raise ValueError(f"{len(names)} groups, expected one for each of {len(wanted) + 1} splits")
    table = counts[:, None].astype(np.float64)  # (groups, 1 + classes): rows of each class
    if classes is not None:
        _, kinds = np.unique(classes, return_inverse=True)
        one_hot = np.zeros((len(names), kinds.max() + 1))
        np.add.at(one_hot, (member, kinds), 1)
        table = np.concatenate([table, one_hot], axis=1)
    best, lowest = None, np.inf
    for _ in range(_TRIES):
        owner, cost, order = np.zeros(len(names), np.int64), 0.0, rng.permutation(len(names))
        for number, part in enumerate(wanted):
            size, free = sizes[part - 1], order[owner[order] == 0]
            filled = np.cumsum(counts[free])
            most = len(free) - (len(wanted) - number)  # a group is left for each split to come
            taken = free[: min(most, 1 + int(np.argmin(np.abs(filled - size))))]
            owner[taken] = part
            share = size / len(member)
            cost += np.abs(table[taken].sum(axis=0) - share * table.sum(axis=0)).sum()
        if cost < lowest:
            best, lowest = owner, cost
    return best[member]
