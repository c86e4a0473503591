"""Where activations lie on a mesh: an example stays with its devices, a feature with its own.

Without a word from the model, the compiler may split activations as it finds parameters split, and
send them around at every layer. Outside a mesh, and inside `shard_map`, nothing happens.
"""

import jax
from jax.sharding import AxisType, PartitionSpec

BATCH_AXES = ("data", "fsdp")
FEATURE_AXIS = "model"


def place(x: jax.Array) -> jax.Array:
    """Keep the batch split over "data" and "fsdp", features over "model"; time as it is.

    Args:
      x: (B, L, H).

    Returns:
      x; an axis that the mesh cannot split evenly is on every device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    named = {*BATCH_AXES, FEATURE_AXIS} <= set(mesh.axis_names)
    if not named or any(kind != AxisType.Auto for kind in mesh.axis_types):
        return x
    sizes = mesh.shape
    batch = BATCH_AXES if x.shape[0] % (sizes["data"] * sizes["fsdp"]) == 0 else None
    features = FEATURE_AXIS if x.shape[2] % sizes[FEATURE_AXIS] == 0 else None
    spec = PartitionSpec(batch, PartitionSpec.UNCONSTRAINED, features)
    return jax.lax.with_sharding_constraint(x, spec)
