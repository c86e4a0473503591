"""Data sets, one file per source; every one is a `Task` and yields the same batches."""

from pspike_jax.data.batches import (
    Split,
    Task,
    check_split,
    eval_batches,
    from_arrays,
    take,
    train_batch,
    train_rows,
)
from pspike_jax.data.digits import load_digits

# What a config may name; each is called with the config's other fields.
TASKS = {"digits": load_digits}

__all__ = [
    "TASKS",
    "Split",
    "Task",
    "check_split",
    "eval_batches",
    "from_arrays",
    "load_digits",
    "take",
    "train_batch",
    "train_rows",
]
