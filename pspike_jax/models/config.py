"""What a model's configuration is: one frozen dataclass a family, each field with its meaning.

A field is declared once, by `option`; checks, error messages, `describe_model` and the tables of
the documentation are made from that declaration.
"""

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from pspike_jax.nn.block import REMATS
from pspike_jax.nn.fields import check_choice, check_flag, check_whole
from pspike_jax.nn.heads import POOLS
from pspike_jax.nn.precision import PRECISIONS


def option(
    default: Any,
    meaning: str,
    *,
    choices: Iterable[str] | None = None,
    low: float = -math.inf,
    high: float = math.inf,
    ends: str = "[]",
) -> Any:
    """Declare a field of a configuration.

    Args:
      default: its default.
      meaning: what it is, for people.
      choices: names that a string may be.
      low: smallest value of a real number.
      high: largest value of a real number.
      ends: brackets of that interval, round where an end does not belong to it.

    Returns:
      A field of a dataclass.
    """
    choices = None if choices is None else tuple(choices)
    metadata = {"meaning": meaning, "choices": choices, "interval": (low, high, ends)}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields:
    """Fields declared by `option`, checked when they are given.

    Numbers of NumPy and lists are taken for those of Python and tuples, so that equal
    configurations are equal and hashable.
    """

    def __post_init__(self):
        kinds = field_types(type(self))
        for field in dataclasses.fields(self):
            value = checked(field, kinds[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Fields):
    """The fields that every sequence model has; a family's configuration adds its own."""

    num_outputs: int = option(10, "numbers of an output: classes, targets or channels")
    vocab_size: int | None = option(None, "number of tokens; None for real inputs")
    encoder: str = option(
        "linear",
        "a linear map or a table of tokens; 'none' takes features (B, L, H) as they are",
        choices=("linear", "none"),
    )
    head: str = option(
        "linear", "a linear map to outputs; 'none' returns features", choices=("linear", "none")
    )
    pool: str = option("mean", "outputs of a whole sequence, or of every step", choices=POOLS)
    documents: int = option(1, "2 compares pairs of documents, else 1")
    precision: str = option("float32", "of activations and matrix products", choices=PRECISIONS)
    remat: str = option(
        "auto",
        "what the backward pass computes again: blocks, nothing, or what fits in 4 GB",
        choices=REMATS,
    )

    # Whether features are pooled by a head that could compare those of two documents.
    comparable: ClassVar[bool] = True

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        if self.documents not in (1, 2):
            raise ValueError(f"documents must be 1 or 2, not {self.documents}")
        if self.documents == 2 and not self.compares_pairs:
            raise ValueError("documents=2 compares pooled features, and this model has none")

    @property
    def compares_pairs(self) -> bool:
        """Whether there is what a comparison of two documents needs."""
        return self.comparable and self.pool != "none" and self.head != "none"


@functools.cache
def field_types(kind: type) -> dict[str, Any]:
    """Return the type of each field of a configuration."""
    return typing.get_type_hints(kind)


def checked(field: dataclasses.Field, kind: Any, value: Any) -> Any:
    """Return the value of a field in the types of Python.

    Args:
      field: declared by `option`.
      kind: its type.
      value: given.

    Raises:
      TypeError, ValueError: the value does not fit; the message names both.
    """
    name, choices = field.name, field.metadata.get("choices")
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        (kind,) = (part for part in kind.__args__ if part is not types.NoneType)
        optional = True
    else:
        optional = False
    if typing.get_origin(kind) is tuple:
        return _checked_tuple(name, kind.__args__[0], value)
    if kind is bool:
        check_flag(name, value)
        return bool(value)
    if kind is int:
        check_whole(name, value, optional=optional)
        return int(value)
    if kind is float:
        return _checked_real(name, value, *field.metadata["interval"])
    if kind is str and choices is not None:
        check_choice(name, value, choices)
        return str(value)
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}; expected a {kind.__name__}")
    return value


def _checked_tuple(name: str, kind: type, value: Any) -> tuple:
    if isinstance(value, str) or not isinstance(value, (Sequence, np.ndarray)):
        raise TypeError(f"{name} is {value!r}; expected a sequence, as (512, 512)")
    if not len(value):
        raise ValueError(f"{name} is empty; expected one or more numbers")
    for one in value:
        if kind is int:
            check_whole(f"a number of {name}", one)
    return tuple(kind(one) for one in value)


def _checked_real(name: str, value: Any, low: float, high: float, ends: str) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; expected a number")
    inside = low <= value <= high and math.isfinite(value)
    if (value == low and ends[0] == "(") or (value == high and ends[1] == ")"):
        inside = False
    if not inside:
        interval = f"{ends[0]}{low:g}, {high:g}{ends[1]}"
        wanted = "a finite number" if math.isinf(low) and math.isinf(high) else f"in {interval}"
        raise ValueError(f"{name} is {value}; expected {wanted}")
    return float(value)
