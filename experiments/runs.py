"""What a finished run of the main job has left in its workdir, in the form that records keep."""

import json
import pathlib
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pspike_jax.command.files import make_config, read_json

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Where the data are is no part of a run: records name the folders that the documents use.
PLACES = {"data_dir": "data", "source_dir": "FILES"}
KEPT_LINES = 20  # of metrics with a validation, and as many of the others
DIGITS = 5  # significant ones, of metrics


def read_run(folder: pathlib.Path) -> dict[str, Any]:
    """Read the files of one finished run.

    Args:
      folder: its workdir.

    Returns:
      {"description", "evaluation", "report", "metrics", "minutes"}: config.json with the folders of
      data as the documents name them; the metrics thinned; the minutes that all steps took, without
      validation.

    Raises:
      FileNotFoundError: the run is not finished.
    """
    names = {"description": "config", "evaluation": "evaluation", "report": "report"}
    run = {key: read_json(folder / f"{name}.json") for key, name in names.items()}
    task = run["description"]["config"]["task"]
    task |= {key: place for key, place in PLACES.items() if key in task}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return run | {
        "metrics": thin(lines),
        "minutes": _minutes(lines, run["description"]["config"]["training"]["steps"]),
    }


def thin(lines: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Choose lines of metrics evenly, the last one among them, and round their numbers.

    Args:
      lines: of metrics.jsonl.

    Returns:
      Up to 20 lines with a validation and 20 without, without times, which no other run repeats.
    """
    chosen: list[Mapping[str, float]] = []
    for validated in (True, False):
        group = [line for line in lines if ("validation/accuracy" in line) == validated]
        chosen += group[::-1][:: -(-len(group) // KEPT_LINES) or 1]
    return [
        {
            key: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
            for key, value in line.items() if not key.startswith("time/")
        }
        for line in sorted(chosen, key=lambda line: line["step"])
    ]


def _minutes(lines: Sequence[Mapping[str, float]], steps: int) -> float:
    parts = ("time/data", "time/compute", "time/save")
    paces = [sum(line.get(part, 0.0) for part in parts) for line in lines]
    return float(f"{steps * statistics.fmean(paces) / 60:.3g}")


def name_in_repository(config_file: str) -> str:
    """Return what documents call a config file: its path from the root of this repository.

    Args:
      config_file: its path, with :VARIANT after its name for a variant.

    Returns:
      The same from the root; a path elsewhere is left as it is.
    """
    path, colon, variant = config_file.partition(":")
    place = pathlib.Path(path).resolve()
    if place.is_relative_to(ROOT):
        path = place.relative_to(ROOT).as_posix()
    return f"{path}{colon}{variant}"


def command(config_file: str, config: Mapping[str, Any], workdir: str) -> str:
    """Write the command that repeats a run.

    Args:
      config_file: the config that it was started from, with :VARIANT after its name for a variant.
      config: of the run, see `read_run`.
      workdir: what the command calls the folder of the run.

    Returns:
      The command; what the run changed of the config file stands in its arguments.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the run was not started from this config: its keys are others.
    """
    written, found = read_config(config_file), _flatten(config)
    # A record may be older than a setting; what it lacks had no effect then.
    if not written.keys() >= found.keys():
        differing = sorted(found.keys() - written.keys())
        raise ValueError(f"the run is not of {config_file}: they differ in the keys {differing}")
    name = name_in_repository(config_file)
    words = ["python", "-m", "experiments.main", f"--config={name}", f"--workdir={workdir}"]
    words += [
        f"--config.{key}={value}" for key, value in found.items()
        if value != written[key] and not key.startswith("mesh.")
    ]
    return shlex.join(words)


def read_config(config_file: str) -> dict[str, Any]:
    """Read a config file.

    Args:
      config_file: its path, with :VARIANT after its name for a variant.

    Returns:
      {"section.key": value}, with the folders of data as the documents name them.
    """
    path, _, variant = config_file.partition(":")
    config = make_config(path, variant).to_dict()
    config = json.loads(json.dumps(config))  # as a run writes it down
    task = config["task"]
    task |= {key: place for key, place in PLACES.items() if key in task}
    return _flatten(config)


def _flatten(config: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{section}.{key}": value for section, keys in config.items() for key, value in keys.items()
    }
