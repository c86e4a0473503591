"""Choose settings by short runs on the validation split; the test split is not read.

  python -m experiments.search --config=experiments/configs/psmnist_cpu.py:search \
      --workdir=runs/psmnist_search --name=psmnist_search

Trains each choice that the config's `search` names, for the steps of the config, and writes what
came of all to experiments/results/NAME.json and NAME.md. A finished choice is not run again.
"""

import importlib.metadata
import json
import pathlib
import shutil
import time
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from pspike_jax.command.experiment import build
from experiments.record import RESULTS, hardware
from pspike_jax.command.files import import_config
from experiments.sweep import collect
from pspike_jax.training import fit
from pspike_jax.training.files import atomic_write


def run(config: dict[str, Any], fields: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """Train one choice, unless the folder holds what came of it.

    Args:
      config: as a dict.
      fields: what the choice changes, {"section.key": value}.
      folder: its own.

    Returns:
      {"fields", "config", "seconds", "validation": lines with a validation}.

    Raises:
      ValueError: a field is unknown, or the folder holds another config.
    """
    config = json.loads(json.dumps(config))
    for key, value in fields.items():
        section, _, name = key.partition(".")
        config[section][name] = value
    finished = folder / "result.json"
    if finished.exists():
        result = json.loads(finished.read_text())
        if result["config"] != config:
            raise ValueError(f"{folder} holds a run of another config; give another --workdir")
        return result
    experiment = build(config)
    start = time.monotonic()
    trained = fit(
        experiment.model, experiment.task, experiment.training,
        workdir=folder, config=config, mesh=experiment.mesh,
    )
    lines = [line for line in trained.history if "validation/accuracy" in line]
    result = {
        "fields": fields, "config": config, "seconds": time.monotonic() - start,
        "validation": lines,
    }
    atomic_write(finished, json.dumps(result, indent=1) + "\n")
    shutil.rmtree(folder / "checkpoints")
    return result


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


def main(argv: list[str]) -> None:
    """Run the search that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    logging.set_verbosity(logging.WARNING)  # below that, Orbax tells of every file
    asked, name = flags.FLAGS["config"].config_filename, flags.FLAGS.name
    workdir = pathlib.Path(flags.FLAGS.workdir)
    config = import_config(asked.partition(":")[0])
    results = []
    for number, fields in enumerate(collect(config.search)):
        print(f"{number}: {fields}", flush=True)
        results.append(run(flags.FLAGS.config.to_dict(), fields, workdir / str(number)))
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    record = {
        "hardware": hardware(),
        "versions": {one: importlib.metadata.version(one) for one in packages},
        "runs": results,
    }
    command = f"python -m experiments.search --config={asked} --workdir=runs/{name} --name={name}"
    record["command"] = command
    atomic_write(RESULTS / f"{name}.json", json.dumps(record, indent=1) + "\n")
    atomic_write(RESULTS / f"{name}.md", page(name, command, results))


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "Config file, with :VARIANT after its name.")
    flags.DEFINE_string("workdir", None, "Folder of all runs.")
    flags.DEFINE_string("name", None, "Name of the record.")
    flags.mark_flags_as_required(["config", "workdir", "name"])
    app.run(main)
