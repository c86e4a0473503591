"""What arrays say of the mesh that they lie on, where a function must know.

Inside `jax.shard_map` the type of an array names the axes along which its value differs from device
to device; under a mesh with explicit axes it names the axes that split it. Both are empty in other
programs, and then nothing here does anything.
"""

from typing import Any

import jax


def vary_alike(tree: Any) -> Any:
    """Let all arrays vary over every axis of `shard_map` that one of them varies over.

    A function with a backward pass of its own returns cotangents that vary as its cotangent does.
    Where an argument varied less, as a parameter that all devices share, what is missing is the sum
    over the devices; behind this function it comes by itself.

    Args:
      tree: pytree of arrays.

    Returns:
      The same values.
    """
    axes = frozenset().union(*(_varying(leaf) for leaf in jax.tree.leaves(tree)))

    def spread(leaf):
        missing = tuple(sorted(axes - _varying(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(spread, tree) if axes else tree


def is_split(tree: Any) -> bool:
    """Tell whether explicit axes of a mesh split an array of the tree."""
    shardings = (jax.typeof(leaf).sharding for leaf in jax.tree.leaves(tree))
    return any(axis is not None for sharding in shardings for axis in sharding.spec)


def _varying(array) -> frozenset[str]:
    return jax.typeof(array).manual_axis_type.varying
