"""What a run writes down about itself, so that a folder belongs to one run and says which."""

import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import re
import subprocess
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from etils import epath

from pspike_jax.data.batches import Task
from pspike_jax.training.files import write_whole
from pspike_jax.training.settings import TrainSettings

CONFIG = "config.json"
PLACE = "config.mesh"  # where a run is, not what it is: it may go on elsewhere
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe(
    model: nn.Module, task: Task, settings: TrainSettings, config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Write down everything that decides a run, as JSON types.

    Args:
      model: its class and all its fields.
      task: its name, classes and shapes.
      settings: the run's settings.
      config: what the run was started from, or None.

    Returns:
      A tree of dicts, lists, numbers, strings and None.
    """
    fields = {
        field.name: getattr(model, field.name)
        for field in dataclasses.fields(model)
        if field.name not in ("parent", "name")
    }
    description = {
        "model": {"class": type(model).__name__, **fields},
        "task": {
            "name": task.name,
            "num_classes": task.num_classes,
            "vocab_size": task.vocab_size,
            "inputs": {name: split.inputs.shape for name, split in task.splits().items()},
        },
        "training": dataclasses.asdict(settings),
        "config": dict(config or {}),
    }
    return json.loads(json.dumps(description, default=_plain, sort_keys=True))


def _plain(value: Any) -> Any:
    """Return a JSON type for a value that has none, the same in every process."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    # An address in memory is all that tells two runs of one program apart.
    return getattr(value, "__name__", None) or re.sub(" at 0x[0-9a-f]+", "", str(value))


def claim_workdir(workdir: epath.Path, description: Mapping[str, Any]) -> None:
    """Make a folder this run's own, or see that it already is.

    Args:
      workdir: the folder; made if it does not exist.
      description: of the run.

    Raises:
      ValueError: the folder belongs to another run, naming what differs.
    """
    if (workdir / CONFIG).exists():
        check_workdir(workdir, description)
        return
    workdir.mkdir(parents=True, exist_ok=True)
    foreign = [name for name in ("checkpoints", "metrics.jsonl") if (workdir / name).exists()]
    if foreign:
        raise ValueError(f"workdir {workdir} holds {foreign} but no {CONFIG}, expected neither")
    write_whole(
        workdir / CONFIG, json.dumps({**description, **_circumstances()}, indent=1) + "\n"
    )


def check_workdir(workdir: epath.Path, description: Mapping[str, Any]) -> None:
    """See that a folder is this run's.

    Args:
      workdir: the folder.
      description: of the run.

    Raises:
      FileNotFoundError: the folder holds no run.
      ValueError: the folder belongs to another run, naming what differs.
    """
    path = workdir / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"workdir {workdir} holds no run: there is no {CONFIG}")
    try:
        found = dict(json.loads(path.read_text()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, expected the description of a run") from error
    here, there = _flatten(description), _flatten({key: found.get(key) for key in description})
    differing = [
        f"{key} is {there.get(key, 'not set')!r} there and {here.get(key, 'not set')!r} here"
        for key in sorted(here.keys() | there.keys())
        if here.get(key, "not set") != there.get(key, "not set") and not key.startswith(PLACE)
    ]
    if differing:
        raise ValueError(f"{path} belongs to another config; " + "; ".join(differing))


def _circumstances() -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version(), **versions},
        "commit": source_commit(),
        "platform": f"{device.platform} {device.device_kind}, {platform.machine()}",
    }


def source_commit() -> str | None:
    """Return the commit of the sources, marked where they were changed; None outside a clone."""
    folder = pathlib.Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    return {
        path: leaf
        for key, value in tree.items()
        for path, leaf in _flatten(value, f"{prefix}.{key}" if prefix else key).items()
    }
