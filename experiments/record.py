"""Keep what finished runs found: one JSON record with pictures, and its place in the documents.

  python -m experiments.record --name=quickstart --config=experiments/configs/quickstart.py RUN ...

The runs are of one config file. Those that differ in their training seed alone give an accuracy
with its error over seeds; those that differ in the neurons of a layer, too, give accuracy against
neurons (Fig. 3 of arXiv 2406.02923). experiments/results/NAME.json gets commands, configs,
versions, hardware, evaluations, reports, tables and thinned metrics; experiments/results/NAME/ the
first run's pictures, or that of accuracy against neurons. The page of all records is made anew.
Where docs/results.md has a place for this record, it gets the table of the first run.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import re
import statistics
from collections.abc import Sequence
from typing import Any

from experiments.figures import gather_accuracies
from experiments.results_page import PAGE, RESULTS, page, read_records, workdirs
from experiments.runs import ROOT, command, name_in_repository, read_run
from pspike_jax.analysis import plots
from pspike_jax.analysis.files import whole_file
from pspike_jax.training.files import atomic_write

PICTURES = tuple(
    f"{name}.png" for name in ("raster", "learning_curve", "active_ratio", "probabilities", "poles")
)
COLORS = 256  # of a kept picture: a third of its bytes, and no difference to the eye
WAYS = ("sampled", "mean_field", "threshold")


def make_record(name: str, config_file: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put runs into a record.

    Args:
      name: of the record.
      config_file: that they were started from, with its variant.
      runs: from `read_run`.

    Returns:
      {"config", "commands", "seeds", "hardware", "runs"}, and "over_seeds" for runs that differ in
      their seed alone, or else "neurons" and "accuracies" against them.

    Raises:
      ValueError: the runs differ in more, two of them are the same, or they are of another config.
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
    """Return the mean test accuracy and its standard error.

    Args:
      runs: that differ in their seed alone.
      way: to run a model, "sampled", "mean_field" or "threshold".

    Returns:
      {"mean", "sem", "seeds"}; of one run, the error of noise draws and test examples.
    """
    results = [run["evaluation"][way] for run in runs]
    if len(results) == 1:
        error = math.hypot(results[0]["sem"], results[0]["sem_examples"])
        return {"mean": results[0]["mean"], "sem": error, "seeds": 1}
    return over_seeds([result["mean"] for result in results])


def over_seeds(values: list[float]) -> dict[str, float]:
    """Return the mean of one number of each seed, and its standard error; NaN for one seed."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return {"mean": statistics.fmean(values), "sem": error, "seeds": len(values)}


def hardware() -> dict[str, Any]:
    """Return what this machine is."""
    info = pathlib.Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.*)", info.read_text()) if info.exists() else []
    processor = names[0] if names else platform.processor()
    return {"processor": processor, "cores": os.cpu_count(), "system": platform.system()}


def keep_pictures(record: dict[str, Any], run: pathlib.Path, folder: pathlib.Path) -> None:
    """Write the pictures of a record, in few colours.

    Args:
      record: from `make_record`.
      run: workdir of the first run.
      folder: where they go; made if need be.
    """
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
    """Copy a picture in few colours.

    Args:
      source: .png.
      target: where to write.
    """
    from PIL import Image

    with Image.open(source) as image, whole_file(target) as partial:
        few = image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
        few.save(partial, format="png", optimize=True)


def fill(text: str, marker: str, content: str) -> str:
    """Put content between <!-- marker --> and <!-- end of marker --> of a text."""
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- end of {marker} -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{content}{m[2]}", text, flags=re.DOTALL)


def summary(name: str, record: dict[str, Any]) -> str:
    """Return the lines of docs/results.md about a record: table of a run, picture, seeds."""
    accuracies = ", ".join(
        f"{way.replace('_', ' ')} {100 * value['mean']:.1f} +- {100 * value['sem']:.1f} %"
        for way, value in record["over_seeds"].items()
    )
    return (
        f"It ends with\n\n```\n{record['table']}```\n\n"
        f"![Spikes of one picture, layer by layer](../experiments/results/{name}/raster.png)\n\n"
        f"Test accuracy over {len(record['seeds'])} training seeds (mean and standard "
        f"error): {accuracies}. [Record](../experiments/results/{name}.json).\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the record of the runs that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.record", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, help="of the record")
    parser.add_argument("--config", required=True, help="file, with :VARIANT after its name")
    parser.add_argument("runs", nargs="+", type=pathlib.Path, help="workdirs of finished runs")
    asked = parser.parse_args(arguments)
    try:
        record = make_record(asked.name, asked.config, [read_run(folder) for folder in asked.runs])
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    if "over_seeds" in record:
        record["table"] = (asked.runs[0] / "report.txt").read_text()
    keep_pictures(record, asked.runs[0], RESULTS / asked.name)
    atomic_write(RESULTS / f"{asked.name}.json", json.dumps(record, indent=1) + "\n")
    atomic_write(PAGE, page(read_records()))
    if "over_seeds" in record:
        shown = ROOT / "docs" / "results.md"
        content = summary(asked.name, record)
        atomic_write(shown, fill(shown.read_text(), f"{asked.name} output", content))
    print(record.get("over_seeds") or record["accuracies"])


if __name__ == "__main__":
    main()
