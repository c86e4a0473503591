"""What a parameter is, said where it is made: its logical axes and its group.

A `Role` is a box around a parameter in what `init` returns. Modules read parameters without their
boxes; optimizers take the groups, shardings take the axes, and a training state keeps neither.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax

# Poles, time constants, leaks, thresholds and step sizes are where their equations need them:
# weight decay would pull them away, so it acts on "decay" and, as the rest is, on "readout".
GROUPS = ("dynamics", "step_size", "threshold", "readout", "no_decay", "decay")


class Role(flax.struct.PyTreeNode, nn.meta.AxisMetadata):
    """A parameter with its role.

    Attributes:
      value: the array.
      axes: a name for each of its axes ("features", "inputs", "tokens", "state", "layers"), None
        for one that is never split over devices.
      group: one of `GROUPS`.
    """

    value: Any
    axes: tuple[str | None, ...] = flax.struct.field(pytree_node=False)
    group: str = flax.struct.field(pytree_node=False)

    def unbox(self) -> Any:
        """Return the array."""
        return self.value

    def replace_boxed(self, val: Any) -> "Role":
        """Return the same role of another array."""
        return self.replace(value=val)

    def to_nnx_metadata(self) -> dict[str, Any]:
        """Return what `flax.nnx.bridge` keeps beside the array of an NNX variable."""
        return {"value": self.value, "axes": self.axes, "group": self.group}

    @classmethod
    def from_nnx_metadata(cls, metadata: dict[str, Any]) -> "Role":
        """Return the role of an NNX variable; what NNX keeps there for itself is left out."""
        return cls(**{name: metadata[name] for name in ("value", "axes", "group")})

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Role":
        """Return the role of arrays stacked along a new axis, as `nn.scan` stacks layers."""
        axes = list(self.axes)
        axes.insert(index, params.get(nn.PARTITION_NAME))
        return self.replace(axes=tuple(axes))

    def remove_axis(self, index: int, params: dict[Any, Any]) -> "Role":
        """Return the role of one of the stacked arrays."""
        del params
        return self.replace(axes=self.axes[:index] + self.axes[index + 1 :])


def role(init: Callable, axes: tuple[str | None, ...], group: str) -> Callable:
    """Make an initializer say what its parameter is.

    Args:
      init: initializer, called with a key and whatever else.
      axes: as in `Role`.
      group: one of `GROUPS`.

    Returns:
      Initializer whose result is a `Role`.
    """
    if group not in GROUPS:
        raise ValueError(f"group is {group!r}; expected one of {', '.join(map(repr, GROUPS))}")
    return lambda *args, **kwargs: Role(init(*args, **kwargs), axes, group)


def is_role(leaf: Any) -> bool:
    """Return whether a leaf is boxed."""
    return isinstance(leaf, Role)


def groups(boxed: Any) -> Any:
    """Return the group of each parameter: a tree like that of the unboxed parameters.

    A parameter without a role, as a model from elsewhere has them, is in the group "decay".
    """
    return jax.tree.map(
        lambda leaf: leaf.group if is_role(leaf) else "decay", boxed, is_leaf=is_role
    )


def axes(boxed: Any) -> Any:
    """Return the axes of each parameter, tuples; of one without a role, None for each axis."""
    return jax.tree.map(
        lambda leaf: leaf.axes if is_role(leaf) else (None,) * leaf.ndim, boxed, is_leaf=is_role
    )
