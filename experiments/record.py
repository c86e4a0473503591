"""Keep what finished runs found: one JSON record, and its place in the README.

  python -m experiments.record --name=quickstart RUN [RUN ...]

The runs differ in their training seed alone. experiments/results/NAME.json gets their configs,
versions, evaluations, reports and thinned metrics, and the spread over seeds; the first run's
printed table and raster go to the README and to experiments/results/NAME/.
"""

import json
import os
import pathlib
import platform
import re
import shutil
import statistics
from typing import Any

from absl import app, flags

from pspike_jax.training.files import write_whole

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
KEPT_LINES = 40
PICTURES = tuple(
    f"{name}.png" for name in ("raster", "learning_curve", "active_ratio", "probabilities", "poles")
)
WAYS = ("sampled", "mean_field", "threshold")


def read_run(folder: pathlib.Path) -> dict[str, Any]:
    """Read the files of one finished run.

    Args:
      folder: its workdir.

    Returns:
      {"description", "evaluation", "report", "metrics"}, the metrics thinned.

    Raises:
      FileNotFoundError: the run is not finished.
    """
    names = {"description": "config", "evaluation": "evaluation", "report": "report"}
    run = {key: json.loads((folder / f"{name}.json").read_text()) for key, name in names.items()}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    stride = -(-len(lines) // KEPT_LINES)
    return run | {"metrics": lines[::-1][::stride][::-1]}


def check_alike(runs: list[dict[str, Any]]) -> list[int]:
    """Return the runs' seeds.

    Raises:
      ValueError: the runs differ in more than their seed, or share one.
    """
    configs = [json.loads(json.dumps(run["description"]["config"])) for run in runs]
    seeds = [config["training"].pop("seed") for config in configs]
    if any(config != configs[0] for config in configs) or len(set(seeds)) < len(seeds):
        raise ValueError(f"expected runs of one config with seeds of their own, got seeds {seeds}")
    return seeds


def spread(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the mean test accuracy over seeds and its standard error, for each way to run."""
    return {way: over_seeds([run["evaluation"][way]["mean"] for run in runs]) for way in WAYS}


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


def fill(text: str, marker: str, content: str) -> str:
    """Put content between <!-- marker --> and <!-- end of marker --> of a text."""
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- end of {marker} -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{content}{m[2]}", text, flags=re.DOTALL)


def summary(name: str, spreads: dict, table: str) -> str:
    """Return the README's lines about a record: the table of a run, a picture, the seeds."""
    accuracies = ", ".join(
        f"{way.replace('_', ' ')} {100 * value['mean']:.1f} +- {100 * value['sem']:.1f} %"
        for way, value in spreads.items()
    )
    return (
        f"It ends with\n\n```\n{table}```\n\n"
        f"![Spikes of one picture, layer by layer](experiments/results/{name}/raster.png)\n\n"
        f"Test accuracy over {spreads['sampled']['seeds']} training seeds (mean and standard "
        f"error): {accuracies}. [Record](experiments/results/{name}.json).\n"
    )


def main(argv: list[str]) -> None:
    """Write the record of the runs that the arguments name."""
    folders, name = [pathlib.Path(folder) for folder in argv[1:]], flags.FLAGS.name
    if not folders:
        raise app.UsageError("expected the workdirs of one or more finished runs")
    runs = [read_run(folder) for folder in folders]
    seeds, spreads = check_alike(runs), spread(runs)
    record = {"seeds": seeds, "over_seeds": spreads, "hardware": hardware(), "runs": runs}
    (RESULTS / name).mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        shutil.copyfile(folders[0] / picture, RESULTS / name / picture)
    write_whole(RESULTS / f"{name}.json", json.dumps(record, indent=1) + "\n")
    readme = ROOT / "README.md"
    content = summary(name, spreads, (folders[0] / "report.txt").read_text())
    write_whole(readme, fill(readme.read_text(), f"{name} output", content))
    print(f"test accuracy over seeds {seeds}: {spreads}")


if __name__ == "__main__":
    flags.DEFINE_string("name", None, "Name of the record.", required=True)
    app.run(main)
