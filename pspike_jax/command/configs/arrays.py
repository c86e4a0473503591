"""Your own arrays: an .npz file with inputs and targets, and perhaps lengths, dt, groups, split.

  pspike train arrays --config.task.path=FILE.npz --workdir=RUN

`pspike_jax.data.load_arrays` says what is read, and what else the task takes. A variant names the
model, `arrays:silif`; `arrays:smoke` runs every part in seconds and learns nothing.
"""

from typing import Any

from pspike_jax.command.configs.shared import own_data

TASK = {"name": "arrays", "objective": None, "horizon": None, "vocab_size": None}


def get_config(variant: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the config; variant None, "smoke" or the name of a model."""
    return own_data(TASK, variant)
