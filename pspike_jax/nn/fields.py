"""Checks that models make of their fields, each an error that names the field and its value."""

import numbers
from typing import Any, Iterable

import numpy as np


def check_whole(name: str, value: Any, optional: bool = False) -> None:
    """Raise unless value is a whole number of at least 1, or None where that is optional."""
    if value is None and optional:
        return
    kind = "a whole number or None" if optional else "a whole number"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; expected {kind}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raise ValueError unless value is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, allowed))}")


def check_flag(name: str, value: Any) -> None:
    """Raise TypeError unless value is True or False: a string such as "false" would be true."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}; expected True or False")


def check_state_size(d_state: Any) -> None:
    """Raise unless d_state is an even whole number above 0."""
    check_whole("d_state", d_state)
    if d_state % 2:
        raise ValueError(f"d_state must be even (conjugate pairs), not {d_state}")


def check_step_sizes(dt_min: float, dt_max: float) -> None:
    """Raise unless 0 < dt_min < dt_max < infinity."""
    _check_real("dt_min", dt_min)
    _check_real("dt_max", dt_max)
    if not 0 < dt_min < dt_max < float("inf"):
        raise ValueError(f"need 0 < dt_min < dt_max, not {dt_min} and {dt_max}")


def _check_real(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; expected a number")
