"""What the card of a stranger may ask for, before anything is made of it."""

from collections.abc import Mapping, Sequence
from typing import Any

# A matrix of d_state rows is taken apart.
MOST = {"d_state": 1024, "n_layers": 1000}
MOST_OTHERS = 1 << 24
MOST_PARTS = 100  # of a tuple, such as the widths of layers


def check_sizes(fields: Mapping[str, Any], shape: Sequence[Any]) -> None:
    """Refuse sizes that would take hours or all memory before weights are looked at.

    Args:
      fields: of a model, JSON types.
      shape: of one example's inputs.

    Raises:
      TypeError: the shape is no list of one to three numbers.
      ValueError: a field is too large, naming it.
    """
    if not isinstance(shape, list) or not 1 <= len(shape) <= 3:
        raise TypeError(f"input.shape is {shape!r}, expected a list of one to three numbers")
    for field, value in [*fields.items(), ("input.shape", shape)]:
        values = value if isinstance(value, list) else [value]
        if len(values) > MOST_PARTS or any(isinstance(one, (list, dict)) for one in values):
            raise ValueError(f"{field} holds more than {MOST_PARTS} parts, or parts of parts")
        most = MOST.get(field, MOST_OTHERS)
        for one in values:
            if isinstance(one, (int, float)) and not -most <= one <= most:
                raise ValueError(f"{field} is {one}, expected at most {most:,}")
