"""Keep what finished runs found: one JSON record with pictures, and its place in the documents.

  python -m experiments.record --name=quickstart --config=experiments/configs/quickstart.py RUN ...
  python -m experiments.record --page

The runs are of one config file. Those that differ in their training seed alone give an accuracy
with its error over seeds; those that differ in the neurons of a layer, too, give accuracy against
neurons (Fig. 3 of arXiv 2406.02923). experiments/results/NAME.json gets commands, configs,
versions, hardware, evaluations, reports, tables and thinned metrics; experiments/results/NAME/ the
first run's pictures, or that of accuracy against neurons. The page of all records is made anew,
with --page nothing else. Where docs/results.md has a place for this record, it gets the table of
the first run.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.figures import gather_accuracies, over_seeds
from experiments.results_page import PICTURES, RESULTS, ROOT, workdirs, write_page
from pspike_jax import describe_model
from pspike_jax.analysis import plots
from pspike_jax.analysis.files import atomic_path, atomic_write
from pspike_jax.command.files import make_config, read_json

# Where the data are is no part of a run: records name the folders that the documents use.
PLACES = {"data_dir": "data", "source_dir": "FILES"}
KEPT_LINES = 20  # of metrics with a validation, and as many of the others
DIGITS = 5  # significant ones, of metrics
COLORS = 256  # of a kept picture: a third of its bytes, and no difference to the eye
WAYS = ("sampled", "mean_field", "threshold")


def read_run(folder: pathlib.Path) -> dict[str, Any]:
    """Read the files of one finished run; FileNotFoundError where it is not finished.

    Returns {"description", "evaluation", "report", "metrics", "minutes"}: config.json with the
    folders of data as the documents name them; the metrics thinned; the minutes that all steps
    took, without validation.
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

    Up to 20 with a validation and 20 without; without times, which no other run repeats.
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
    """Return what documents call a config file, FILE[:VARIANT]: its path from the root."""
    path, colon, variant = config_file.partition(":")
    place = pathlib.Path(path).resolve()
    if place.is_relative_to(ROOT):
        path = place.relative_to(ROOT).as_posix()
    return f"{path}{colon}{variant}"


def command(config_file: str, config: Mapping[str, Any], workdir: str) -> str:
    """Write the command that repeats a run, with what it changed of its config file.

    `config_file` is FILE[:VARIANT], `config` that of the run, `workdir` what the command calls its
    folder. Raises FileNotFoundError where there is no such file, and ValueError where the run was
    not started from it: its keys are others.
    """
    written, found = read_config(config_file), _flatten(config)
    # A record may be older than a setting; what it lacks had no effect then. And a file may have
    # come to leave a field of the model to its default.
    fields = {f"model.{field.name}" for field in describe_model(config["model"]["name"]).fields}
    if differing := sorted(found.keys() - written.keys() - fields):
        raise ValueError(f"the run is not of {config_file}: they differ in the keys {differing}")
    name = name_in_repository(config_file)
    words = ["python", "-m", "experiments.main", f"--config={name}", f"--workdir={workdir}"]
    words += [
        f"--config.{key}={value}" for key, value in found.items()
        if value != written.get(key) and not key.startswith("mesh.")
    ]
    return shlex.join(words)


def read_config(config_file: str) -> dict[str, Any]:
    """Read FILE[:VARIANT]: {"section.key": value}, with folders of data as in documents."""
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


def make_record(name: str, config_file: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put runs, from `read_run`, that were started from one config file into a record.

    Returns {"config", "commands", "seeds", "hardware", "runs"}, and "over_seeds" for runs that
    differ in their seed alone, or else "neurons" and "accuracies" against them. Raises ValueError
    where they differ in more, two are the same, or they are of another config.
    """
    configs = [run["description"]["config"] for run in runs]
    commands = [
        command(config_file, config, workdir)
        for config, workdir in zip(configs, workdirs(name, len(runs)))
    ]
    if len({json.dumps(config, sort_keys=True) for config in configs}) < len(runs):
        raise ValueError("two of the runs have one config: give each a seed of its own")
    neurons, accuracies = gather_accuracies([
        {
            "config": run["description"]["config"], "task": run["description"]["task"]["name"],
            "evaluation": run["evaluation"],
        } for run in runs
    ])
    found = {"over_seeds": {way: spread(runs, way) for way in WAYS}}
    if len(neurons) > 1:
        found = {
            "neurons": neurons,
            "accuracies": {
                label: {"mean": mean.tolist(), "sem": sem.tolist()}
                for label, (mean, sem) in accuracies.items()
            },
        }
    seeds = [config["training"]["seed"] for config in configs]
    return {
        "config": name_in_repository(config_file), "commands": commands, "seeds": seeds, **found,
        "hardware": hardware(), "runs": list(runs),
    }


def spread(runs: Sequence[dict[str, Any]], way: str) -> dict[str, float]:
    """Return {"mean", "sem", "seeds"} of one of `WAYS` over runs that differ in their seed."""
    mean, error = over_seeds([run["evaluation"][way] for run in runs])
    return {"mean": mean, "sem": error, "seeds": len(runs)}


def hardware() -> dict[str, Any]:
    """Return what this machine is."""
    info = pathlib.Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.*)", info.read_text()) if info.exists() else []
    processor = names[0] if names else platform.processor()
    return {"processor": processor, "cores": os.cpu_count(), "system": platform.system()}


def keep_pictures(record: dict[str, Any], run: pathlib.Path, folder: pathlib.Path) -> None:
    """Write the pictures of a record, of which `run` is the first workdir, to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if "neurons" in record:
        lines = {
            label: (line["mean"], line["sem"]) for label, line in record["accuracies"].items()
        }
        picture = folder / "neurons.png"
        plots.save_figure(plots.accuracy_against_neurons(record["neurons"], lines), picture)
        shrink(picture, picture)
        return
    for name in PICTURES:
        if (run / name).exists():  # a model without spikes has poles and a curve alone
            shrink(run / name, folder / name)


def shrink(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy a picture, .png, in few colours."""
    from PIL import Image

    with Image.open(source) as image, atomic_path(target) as partial:
        few = image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
        few.save(partial, format="png", optimize=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the record of the runs that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.record", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", help="of the record")
    parser.add_argument("--config", help="file, with :VARIANT after its name")
    parser.add_argument("--page", action="store_true", help="only make the page anew")
    parser.add_argument("runs", nargs="*", type=pathlib.Path, help="workdirs of finished runs")
    asked = parser.parse_args(arguments)
    if asked.page:
        write_page()
        return
    if not (asked.name and asked.config and asked.runs):
        parser.error("expected --name, --config and workdirs, or --page")
    try:
        record = make_record(asked.name, asked.config, [read_run(folder) for folder in asked.runs])
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    if "over_seeds" in record:
        record["table"] = (asked.runs[0] / "report.txt").read_text()
    keep_pictures(record, asked.runs[0], RESULTS / asked.name)
    atomic_write(RESULTS / f"{asked.name}.json", json.dumps(record, indent=1) + "\n")
    write_page()
    print(record.get("over_seeds") or record["accuracies"])


if __name__ == "__main__":
    main()
