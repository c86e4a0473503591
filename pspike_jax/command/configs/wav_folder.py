"""Your own sound: a folder for each class, and in it .wav files.

  pspike train wav_folder --config.task.path=FOLDER --config.task.frame=160 --workdir=RUN

`pspike_jax.data.load_wav_folder` says what is read, and what else the task takes. A variant names
the model, `wav_folder:silif`; `wav_folder:smoke` runs every part in seconds and learns nothing.
"""

from typing import Any

from pspike_jax.command.configs.shared import own_data

TASK = {"name": "wav_folder", "frame": 160}


def get_config(variant: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the config; variant None, "smoke" or the name of a model."""
    return own_data(TASK, variant)
