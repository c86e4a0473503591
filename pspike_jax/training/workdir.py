"""What a run writes down about itself, so that a folder belongs to one run and says which."""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from pspike_jax.analysis.files import atomic_write, is_file
from pspike_jax.data.batches import Task
from pspike_jax.training.settings import TrainSettings

CONFIG = "config.json"
PLACE = "config.mesh"  # where a run is, not what it is: it may go on elsewhere
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Description(NamedTuple):
    """What decides a run, by dotted name, as JSON types.

    `tree` has the sections "model", "task", "training" and "config"; `defaults` those of the fields
    of "model" and "training" that have one.
    """

    tree: dict[str, Any]
    defaults: dict[str, Any]


def describe(
    model: nn.Module,
    task: Task,
    settings: TrainSettings,
    config: Mapping[str, Any] | None,
    *,
    frozen: Sequence[str] | str | None = None,
    own_optimizer: bool = False,
) -> Description:
    """Write down everything that decides a run, the same in every process.

    The arguments are those of `fit`.
    """
    shapes = {
        name: getattr(split, "examples", split).inputs.shape
        for name, split in task.splits().items()
    }
    frozen = [frozen] if isinstance(frozen, str) else list(frozen or ())
    options = {"frozen": frozen, "own_optimizer": own_optimizer}
    tree = {
        "model": _fields(model),
        "task": {
            "name": task.name,
            "objective": _fields(task.objective),
            "vocab_size": task.vocab_size,
            "inputs": shapes,
        },
        "training": _fields(settings) | options,
        "config": dict(config or {}),
    }
    defaults = {
        "model": _defaults(model),
        "training": _defaults(settings) | {"frozen": [], "own_optimizer": False},
    }
    return Description(_as_json(tree), _as_json(defaults))


def _as_json(tree: Any) -> Any:
    return json.loads(json.dumps(tree, default=_plain, sort_keys=True))


def _names(value: Any) -> list[str]:
    """Return the fields of a dataclass; Flax adds two that decide nothing."""
    return [f.name for f in dataclasses.fields(value) if f.name not in ("parent", "name")]


def _fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass and of those in it, and their classes."""
    if not dataclasses.is_dataclass(value):
        return {"class": type(value).__name__}
    return {"class": type(value).__name__} | {
        name: _fields(found) if dataclasses.is_dataclass(found) else found
        for name in _names(value)
        for found in (getattr(value, name),)
    }


def _defaults(value: Any) -> dict[str, Any]:
    """Return the defaults of the fields of a dataclass, and of those in it."""
    found = {}
    for field in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
        inside = getattr(value, field.name, None)
        if dataclasses.is_dataclass(inside):
            found[field.name] = _defaults(inside)
        elif field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def _plain(value: Any) -> Any:
    """Return a JSON type for a value that has none, the same in every process."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        return value.item()
    if isinstance(value, Mapping):  # a ConfigDict
        return dict(value)
    # An address in memory is all that tells two runs of one program apart.
    return getattr(value, "__name__", None) or re.sub(" at 0x[0-9a-f]+", "", str(value))


def claim_workdir(workdir: epath.Path, description: Description) -> None:
    """Make a folder, new or not, this run's own, or see that it already is.

    More steps than before are written down; ValueError names what differs in another run's.
    """
    path = workdir / CONFIG
    if is_file(path):
        check_workdir(workdir, description)
        found = json.loads(path.read_text())
        if _differences(found, description, growing=False):
            found["training"] = found["training"] | {
                "steps": description.tree["training"]["steps"]
            }
            atomic_write(path, json.dumps(found, indent=1) + "\n")
        return
    workdir.mkdir(parents=True, exist_ok=True)
    foreign = [n for n in ("checkpoints", "metrics.jsonl", CONFIG) if (workdir / n).exists()]
    if foreign:
        raise ValueError(f"workdir {workdir} holds {foreign} but no {CONFIG}, expected neither")
    atomic_write(path, json.dumps({**description.tree, **_circumstances()}, indent=1) + "\n")


def check_workdir(workdir: epath.Path, description: Description) -> None:
    """See that a folder is this run's, or that of the same run with fewer steps.

    Raises FileNotFoundError where there is no run, and ValueError, naming what differs, for another
    one.
    """
    path = workdir / CONFIG
    if not is_file(path):
        raise FileNotFoundError(f"workdir {workdir} holds no run: there is no {CONFIG}")
    try:
        found = dict(json.loads(path.read_text()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, expected the description of a run") from error
    differing = _differences(found, description, growing=True)
    if differing:
        raise ValueError(f"{path} belongs to another config; " + "; ".join(differing))


def _differences(found: Mapping[str, Any], description: Description, growing: bool) -> list[str]:
    """Compare what both know, and take defaults for fields that one of them is too old for."""
    here = _flatten(description.tree)
    there = _flatten({key: found.get(key, {}) for key in description.tree})
    defaults = _flatten(description.defaults)
    differing = []
    for key in sorted(here.keys() | there.keys()):
        if key.startswith(PLACE) or (key not in here or key not in there) and key not in defaults:
            continue
        first, second = (side.get(key, defaults.get(key)) for side in (there, here))
        if json.dumps(first) == json.dumps(second):  # as text, for NaN is not NaN
            continue
        if growing and key == "training.steps" and isinstance(first, int) and first < second:
            continue
        told = lambda side: repr(side[key]) if key in side else "not set"
        differing.append(f"{key} is {told(there)} there and {told(here)} here")
    return differing


def _circumstances() -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version(), **versions},
        "commit": source_commit(),
        "platform": f"{device.platform} {device.device_kind}, {platform.machine()}",
    }


def source_commit() -> str | None:
    """Return the commit of the sources, marked where they were changed; None outside a clone.

    The sources may lie in somebody else's repository, whose commit says nothing of them. Records
    decide nothing: a command that writes one, row by row, does not change its own sources.
    """
    root = pathlib.Path(__file__).resolve().parents[2]
    try:
        if pathlib.Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root:
            return None
        _git(root, "ls-files", "--error-unmatch", "setup.cfg", "pspike_jax/training/workdir.py")
        records = (f":(exclude){folder}/results" for folder in ("benchmarks", "experiments"))
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *records)
        return _git(root, "rev-parse", "HEAD") + "-dirty" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: pathlib.Path, *arguments: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, env=clean
    )
    return done.stdout.strip()


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    return {
        path: leaf
        for key, value in tree.items()
        for path, leaf in _flatten(value, f"{prefix}.{key}" if prefix else key).items()
    }
