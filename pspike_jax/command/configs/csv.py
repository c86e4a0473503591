"""Your own table: a .csv file in long format, a line a step, with columns id, time, label.

  pspike train csv --config.task.path=FILE.csv --config.task.target=label --workdir=RUN

`pspike_jax.data.load_csv` says what is read, and what else the task takes. A variant names the
model, `csv:silif`; `csv:smoke` runs every part in seconds and learns nothing.
"""

from typing import Any

from pspike_jax.command.configs.shared import own_data

TASK = {"name": "csv", "target": "label", "id": "id", "time": "time"}


def get_config(variant: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the config; variant None, "smoke" or the name of a model."""
    return own_data(TASK, variant)
