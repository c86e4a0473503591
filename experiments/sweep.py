"""Run every choice that a config names, one after another.

  python -m experiments.sweep --config=experiments/configs/psmnist.py --workdir=runs/psmnist_sweep
  python -m experiments.sweep --config=experiments/configs/psmnist_cpu.py:search \
      --workdir=runs/psmnist_search --record=psmnist_search

The first runs the main job for every choice of the config's `sweep`, in folders named after what
they change; with --print_only the commands are printed, one a line, for a scheduler. The second
trains every choice of the config's `search`, never reads the test split, and writes what came of
each on the validation split to experiments/results/NAME.json and NAME.md.

The same command goes on with a sweep that was killed: what is finished is left alone. What stands
behind -- goes to every run, for example -- --config.training.steps=1000.
"""

import argparse
import importlib.metadata
import json
import logging
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.record import RESULTS, hardware
from pspike_jax.analysis.files import atomic_write
from pspike_jax.command import overrides
from pspike_jax.command.experiment import Experiment, build
from pspike_jax.command.files import import_config
from pspike_jax.training import FitResult, fit

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def collect(declare: Callable[..., None]) -> list[dict[str, Any]]:
    """Return the choices that a config's function calls `add` with, {"section.key": value} each."""
    choices = []
    declare(lambda **fields: choices.append(fields))
    return choices


def command(config: str, workdir: str, fields: dict[str, Any], more: list[str]) -> list[str]:
    """Write the arguments of the main job for one choice.

    `config` names the file and its variant, `workdir` the folder of all runs, `fields` what the
    choice changes; every run gets `more`.
    """
    name = "_".join(f"{key.rpartition('.')[2]}_{value}" for key, value in fields.items())
    changes = [f"--config.{key}={value}" for key, value in fields.items()]
    return [
        sys.executable, "-m", "experiments.main", f"--config={config}",
        f"--workdir={pathlib.Path(workdir) / name}", *changes, *more,
    ]


def train_once(
    config: dict[str, Any],
    folder: pathlib.Path,
    measure: Callable[[Experiment, FitResult], dict[str, Any]],
) -> dict[str, Any]:
    """Train one config, unless its folder holds what came of it; checkpoints are not kept.

    Returns {"config", "seconds"} and what `measure` finds, JSON types by name. Raises ValueError
    where the folder holds another config, or a field is unknown.
    """
    finished = folder / "result.json"
    config = json.loads(json.dumps(config))
    if finished.exists():
        result = json.loads(finished.read_text())
        if result["config"] != config:
            raise ValueError(f"{folder} holds a run of another config; give another --workdir")
        return result
    experiment, start = build(config), time.monotonic()
    trained = fit(
        experiment.model, experiment.task, experiment.training,
        workdir=folder, config=config, mesh=experiment.mesh, progress=False,
    )
    seconds = time.monotonic() - start
    result = {"config": config, "seconds": seconds} | measure(experiment, trained)
    atomic_write(finished, json.dumps(result, indent=1) + "\n")
    shutil.rmtree(folder / "checkpoints")
    return result


def complete(
    rows: dict[str, Any], runs: Mapping[str, Callable[[], Any]], save: Callable[[], None]
) -> None:
    """Run what `rows` lack of {key: run}, and save after each: a killed job goes on from there."""
    for key, run in runs.items():
        if key not in rows:
            rows[key] = run()
            save()


def validations(experiment: Experiment, trained: FitResult) -> dict[str, Any]:
    """Return the lines of metrics with a validation."""
    name = f"validation/{experiment.task.objective.merit[0]}"
    return {"validation": [line for line in trained.history if name in line]}


def page(name: str, command: str, results: list[dict[str, Any]]) -> str:
    """Return the table of a search in Markdown, best first."""
    columns = ("what differs", "steps", "train loss", "validation accuracy", "firing rate")
    rows = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for result in sorted(results, key=lambda one: -one["validation"][-1]["validation/accuracy"]):
        last = result["validation"][-1]
        what = ", ".join(f"`{key}={value}`" for key, value in result["fields"].items())
        rows.append(
            f"| {what or 'nothing'} | {last['step']} | {last['train/loss']:.3f} | "
            f"{100 * last['validation/accuracy']:.2f} % | {100 * last['train/firing_rate']:.1f} % |"
        )
    table = "\n".join(rows)
    return (
        f"# Search: {name}\n\nShort runs, one seed each; the test split was not read. "
        f"Made by `{command}`.\n\n{table}\n"
    )


def search(choices: list[dict[str, Any]], asked: argparse.Namespace) -> None:
    """Train every choice, and write their record and its page."""
    results = []
    for number, fields in enumerate(choices):
        print(f"{number}: {fields}", flush=True)
        config = overrides.read(asked.config, asked.more)
        for key, value in fields.items():
            section, _, name = key.partition(".")
            config[section][name] = value
        result = train_once(config, pathlib.Path(asked.workdir) / str(number), validations)
        results.append({"fields": fields} | result)
    name = asked.record
    words = ["python", "-m", "experiments.sweep", f"--config={asked.config}"]
    words += [f"--workdir=runs/{name}", f"--record={name}", *["--"][: len(asked.more)], *asked.more]
    record = {
        "hardware": hardware(),
        "versions": {one: importlib.metadata.version(one) for one in PACKAGES},
        "runs": results,
        "command": shlex.join(words),
    }
    atomic_write(RESULTS / f"{name}.json", json.dumps(record, indent=1) + "\n")
    atomic_write(RESULTS / f"{name}.md", page(name, record["command"], results))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, or print, what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.sweep", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="file, with :VARIANT after its name")
    parser.add_argument("--workdir", required=True, help="folder of all runs")
    parser.add_argument("--print_only", action="store_true", help="print the commands")
    parser.add_argument("--record", metavar="NAME", help="search by validation; name of its record")
    parser.add_argument("more", nargs="*", help="behind --: arguments of every run")
    asked = parser.parse_args(arguments)
    logging.getLogger("absl").setLevel(logging.WARNING)  # below that, Orbax tells of every file
    function = "sweep" if asked.record is None else "search"
    try:
        config = import_config(asked.config.partition(":")[0])
    except OSError as error:
        raise SystemExit(f"error: {error}") from error
    if not hasattr(config, function):
        raise SystemExit(f"error: {asked.config} has no function {function}(add)")
    choices = collect(getattr(config, function))
    if asked.record is not None:
        search(choices, asked)
        return
    for fields in choices:
        words = command(asked.config, asked.workdir, fields, asked.more)
        print(shlex.join(words), flush=True)
        status = 0 if asked.print_only else subprocess.run(words).returncode
        if status:
            raise SystemExit(f"error: the run with {fields} ended with status {status}")


if __name__ == "__main__":
    main()
