"""Numbers in place of classes: a regression and a forecast, by oscillators and by spikes.

  python -m experiments.series --workdir=runs/series

Trains the configs `oscillations` and `mackey_glass`, each with the models that they name, tests
each once at its best step by validation, and writes experiments/results/series.json and the page
beside it after every one: what is in the record is not run again, and a killed run goes on. With
--page the page alone is written.
"""

import argparse
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.configs import mackey_glass, oscillations
from experiments.sweep import complete
from pspike_jax.command.experiment import Experiment, build
from pspike_jax.command.outcome import test
from pspike_jax.data import Split
from pspike_jax.objectives import Classification
from pspike_jax.training import fit
from pspike_jax.training.files import atomic_write
from pspike_jax.training.workdir import source_commit

RECORD = pathlib.Path(__file__).resolve().parent / "results" / "series.json"
CONFIGS = {"oscillations": oscillations, "mackey_glass": mackey_glass}
TITLES = {
    "oscillations": "regression: log frequency of noisy oscillations, every 32 steps",
    "mackey_glass": "forecast: Mackey-Glass, delay 17, 15 steps ahead",
}
COLUMNS = (
    "task", "model", "parameters", "RMSE", "of it by the plain answer", "share of it that is left"
)
NOTES = """\
Errors are root mean squares over the test split, which was read once for each row, at the best step
by validation; of spikes, over {draws} draws. The plain answer is the mean of the training targets
for the regression, and for the forecast the better one of that and "nothing changes". A share of
100 % says that nothing was learnt. One seed; generated data, so that no figure of a paper stands
beside these.
"""


def run(name: str, variant: str | None, workdir: pathlib.Path) -> dict[str, Any]:
    """Train and test one config.

    Args:
      name: a key of CONFIGS.
      variant: of the config.
      workdir: folder of all runs.

    Returns:
      A row of the record.
    """
    config = CONFIGS[name].get_config(variant).to_dict()
    where = f"experiments/configs/{name}.py" + (f":{variant}" if variant else "")
    row = {"task": name, "model": config["model"]["name"], "config": where}
    return row | outcome(config, workdir / f"{name}_{variant or config['model']['name']}")


def outcome(config: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """Train what a config says, and test it once at its best step by validation.

    Args:
      config: of a sequence model.
      folder: of the run; one that was begun goes on.

    Returns:
      {"parameters", "best_step", "metrics", "plain", "commit"}.
    """
    experiment = build(config)
    trained = fit(
        experiment.model, experiment.task, experiment.training, workdir=folder, config=config,
        mesh=experiment.mesh, progress=False,
    )
    evaluation = test(experiment, trained.variables)["sampled"]
    leaves = jax.tree.leaves(trained.variables["params"])
    return {
        "parameters": int(sum(leaf.size for leaf in leaves)),
        "best_step": trained.best_step,
        "metrics": evaluation["metrics"],
        "plain": plain_answers(experiment),
        "commit": source_commit(),
    }


def every_run() -> list[tuple[str, str, str | None]]:
    """Return (name in the record, config, variant) of each run."""
    return [
        (f"{name}_{variant or mackey_glass.MODELS[None]['name']}", name, variant)
        for variant in mackey_glass.MODELS for name in CONFIGS
    ]


def plain_answers(experiment: Experiment) -> dict[str, float]:
    """Return the mean squared errors on test examples of answers that look at nothing, or little.

    Args:
      experiment: whose task is a forecast, or has numbers as targets; or classes.

    Returns:
      {"mean": of the mean of the training targets, and of a forecast "unchanged"}; of classes,
      {"commonest": the share of test examples in the commonest class of training}.
    """
    task = experiment.task
    if isinstance(task.objective, Classification):
        commonest = np.argmax(np.bincount(task.train.targets))
        return {"commonest": float(np.mean(task.test.targets == commonest))}
    horizon = getattr(task.objective, "horizon", None)
    center = np.nanmean(_targets(task.train, horizon))
    errors = {"mean": float(np.nanmean((_targets(task.test, horizon) - center) ** 2))}
    if horizon is not None:
        now = np.float64(task.test.inputs[:, :-horizon])
        errors["unchanged"] = float(np.mean((_targets(task.test, horizon) - now) ** 2))
    return errors


def _targets(split: Split, horizon: int | None) -> np.ndarray:
    return np.float64(split.targets if horizon is None else split.inputs[:, horizon:])


def page(record: dict[str, Any]) -> str:
    """Write a record as Markdown.

    Args:
      record: {"models": rows by name, "versions", "hardware", "draws"}.

    Returns:
      The page.
    """
    rows = [COLUMNS, ("---", "---", *["---:"] * (len(COLUMNS) - 2))]
    for row in record["models"].values():
        error, plain = row["metrics"]["mse"]["mean"] ** 0.5, min(row["plain"].values()) ** 0.5
        rows.append((
            TITLES[row["task"]], f"`{row['model']}`", f"{row['parameters']:,}", f"{error:.4f}",
            f"{plain:.4f}", f"{100 * error / plain:.1f} %",
        ))
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    configs = "\n".join(
        f"python -m experiments.main --config={row['config']} --workdir=runs/{name}"
        for name, row in record["models"].items()
    )
    commits = ", ".join(sorted({row["commit"] or "no clone" for row in record["models"].values()}))
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lacking = [f"`{key}`" for key, *_ in every_run() if key not in record["models"]]
    lacking = f"This run did not reach {', '.join(lacking)}.\n\n" if lacking else ""
    return (
        f"# Regression and forecast\n\n{table}\n\n{NOTES.format(draws=record['draws'])}\n{lacking}"
        "All of it comes from\n\n```bash\npython -m experiments.series --workdir=runs/series\n"
        f"```\n\nand single rows from\n\n```bash\n{configs}\n```\n\n"
        f"The [record](series.json) holds all metrics. Source: commit {commits}. Versions: "
        f"{versions}.\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Complete the record, or write its page."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.series", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", type=pathlib.Path, help="folder of all runs")
    parser.add_argument("--record", type=pathlib.Path, default=RECORD)
    parser.add_argument("--page", action="store_true", help="write the page alone")
    asked = parser.parse_args(arguments)
    if not asked.page and asked.workdir is None:
        parser.error("--workdir is missing")
    record = {
        "draws": mackey_glass.get_config().evaluation.draws,
        "hardware": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")},
        "models": {},
    }
    if asked.record.exists():
        record = json.loads(asked.record.read_text())

    def save():
        atomic_write(asked.record, json.dumps(record, indent=1) + "\n")
        atomic_write(asked.record.with_suffix(".md"), page(record))
        jax.clear_caches()  # the next model's programs are its own

    if not asked.page:
        runs = {
            key: functools.partial(run, name, variant, asked.workdir)
            for key, name, variant in every_run()
        }
        complete(record["models"], runs, save)
    atomic_write(asked.record.with_suffix(".md"), page(record))


if __name__ == "__main__":
    main()
