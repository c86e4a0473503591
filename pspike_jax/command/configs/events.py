"""Your own events: lists of times and channels in an .npz or HDF5 file.

  pspike train events --config.task.path=FILE.h5 --config.task.unit=s --workdir=RUN

`pspike_jax.data.load_events` says what is read, and what else the task takes. A variant names the
model, `events:silif`; `events:smoke` runs every part in seconds and learns nothing.
"""

from typing import Any

from pspike_jax.command.configs.shared import own_data

TASK = {
    "name": "events", "test_path": None, "unit": None, "bin_width": 0.01, "duration": None,
    "num_channels": None, "dt_unit": "s",
}


def get_config(variant: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the config; variant None, "smoke" or the name of a model."""
    return own_data(TASK, variant)
