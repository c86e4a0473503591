"""Real series of the UEA and TSER archives, by oscillators, state spaces and spikes of one size.

  python -m experiments.archive --data=FOLDER --workdir=runs/archive

Trains every set of the config `archive` with every model there, with three seeds each; a seed also
chooses the validation examples. Each is tested once, at its best step by validation, on the
archive's own test file. FOLDER is aeon/datasets/data of the unpacked wheel of aeon 1.6.0. The
record, experiments/results/archive.json, and the page and picture beside it are written after every
run: what is there is not run again. With --page the page alone is written.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments.configs import archive
from experiments.series import outcome
from pspike_jax.analysis.canvas import GREY, PALETTE, WIDTH, save_figure
from pspike_jax.command.processes import keep_programs
from pspike_jax.training.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORD = pathlib.Path(__file__).resolve().parent / "results" / "archive.json"
SEEDS = (0, 1, 2)
TITLES = {
    "covid": "Covid3Month: a country's death rate from three months of daily cases (RMSE)",
    "motions": "BasicMotions: 4 activities from a watch's acceleration and rotation (accuracy)",
    "gaps": "BasicMotions, three in four frames lost, `dt` given (accuracy)",
    "untold": "BasicMotions, three in four frames lost, `dt` not given (accuracy)",
}
ONLY = {"gaps": ("s5", "pspikessm"), "untold": ("s5", "pspikessm")}  # one dense, one spiking
NOTES = """\
Means over the seeds that are there, of {count}, with a standard error where there are several; of
{draws} draws each where spikes are drawn. The seed also chooses the fifth of the training file that
selects the step; the test file is the archive's. All models have two layers of 16 features with
states of 16, one learning rate that none was tuned for, and 400 updates. RMSE: lower is better;
*plain* is the mean of the training targets, or the commonest class. The sets are small (140
countries to learn from and 61 for the test; 40 series and 40): that the path from a published file
to a number works for each kind of model is what they show; they rank nobody. The long sets that
LinOSS reports are not here.
"""


def every_run() -> Iterator[tuple[str, str, int]]:
    """Yield the set, the model and the seed of each run."""
    for seed in SEEDS:
        for name in TITLES:
            for model in ONLY.get(name, archive.MODELS):
                yield name, model, seed


def run(name: str, model: str, seed: int, data: pathlib.Path, workdir: pathlib.Path):
    """Train and test one model on one set with one seed.

    Args:
      name: a key of TITLES.
      model: a key of the config's MODELS.
      seed: of training and of the choice of validation examples.
      data: folder of the sets.
      workdir: folder of all runs.

    Returns:
      A row of the record.
    """
    config = archive.get_config(f"{name}-{model}")
    config.training.seed = config.task.seed = seed
    config.task.source_dir = str(data / config.task.dataset)
    row = {"set": name, "model": model, "seed": seed}
    return row | outcome(config.to_dict(), workdir / f"{name}_{model}_{seed}")


def scores(record: dict[str, Any], name: str, model: str) -> tuple[list[float], float]:
    """Return the test scores of a model on a set, of all seeds, and the plain answer's."""
    rows = [row for row in record["runs"] if (row["set"], row["model"]) == (name, model)]
    if not rows:
        return [], float("nan")
    if "commonest" in rows[0]["plain"]:
        return [row["metrics"]["accuracy"]["mean"] for row in rows], rows[0]["plain"]["commonest"]
    plain = [row["plain"]["mean"] ** 0.5 for row in rows]
    return [row["metrics"]["mse"]["mean"] ** 0.5 for row in rows], float(np.mean(plain))


def page(record: dict[str, Any]) -> str:
    """Write a record as Markdown.

    Args:
      record: {"runs": rows, "versions", "hardware", "draws"}.

    Returns:
      The page.
    """
    rows = [("set", "plain", *(f"`{model}`" for model in archive.MODELS))]
    rows.append(("---", *["---:"] * (len(rows[0]) - 1)))
    for name, title in TITLES.items():
        found = {model: scores(record, name, model) for model in archive.MODELS}
        plain = [one for values, one in found.values() if values]
        if plain:
            cells = [_cell(name, values) for values, _ in found.values()]
            rows.append((title, _cell(name, plain[:1]), *cells))
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    counts = {row["model"]: f"{row['parameters']:,}" for row in record["runs"]}
    sizes = ", ".join(f"`{model}` {count}" for model, count in counts.items())
    lacking = len(list(every_run())) - len(record["runs"])
    lacking = f" This record lacks {lacking} runs." if lacking else ""
    commits = ", ".join(sorted({row["commit"] or "no clone" for row in record["runs"]}))
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    notes = NOTES.format(count=len(SEEDS), draws=record["draws"])
    return (
        f"# Small sets of the archives\n\n{table}\n\n"
        f"![Test scores of each seed, and the plain answer](archive.png)\n\n{notes}\n"
        f"Parameters, of the last set above: {sizes}.{lacking} All of it comes from\n\n"
        "```bash\npip download aeon==1.6.0 --no-deps && "
        "unzip -q aeon-1.6.0-*.whl -d data/raw/aeon\n"
        "python -m experiments.archive --data=data/raw/aeon/aeon/datasets/data "
        "--workdir=runs/archive\n```\n\nThe [record](archive.json) holds every seed. "
        f"Source: commit {commits}. Versions: {versions}.\n"
    )


def _cell(name, values):
    if not values:
        return "-"
    share = "accuracy" in TITLES[name]
    scale, digits = (100, 1) if share else (1, 4)
    text = f"{scale * np.mean(values):.{digits}f}"
    if len(values) > 1:
        error = np.std(values, ddof=1) / len(values) ** 0.5
        text += f" ± {scale * error:.{digits}f}"
    return f"{text} %" if share else text


def draw(record: dict[str, Any]) -> "Figure":
    """Plot the test scores of all seeds, a panel for each set, the plain answer as a line.

    Args:
      record: as `page` takes it.

    Returns:
      Figure.
    """
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    models = list(archive.MODELS)
    names = [name for name in TITLES if any(row["set"] == name for row in record["runs"])]
    axes = fig.subplots(1, len(names), sharey=True, squeeze=False).flat
    for ax, name in zip(axes, names):
        title = TITLES[name]
        for place, model in enumerate(models):
            values, plain = scores(record, name, model)
            color = PALETTE[1 if model == "pspikessm" else 0]
            ax.plot(values, [place] * len(values), "o", color=color, markersize=4, alpha=0.7)
            ax.axvline(plain, color=GREY, linewidth=1)
        share = "accuracy" in title
        lost = {"gaps": "\n3/4 lost, dt given", "untold": "\n3/4 lost, no dt"}.get(name, "")
        ax.set_title(title.partition(":")[0].partition(",")[0] + lost, loc="left", fontsize=9)
        ax.set_xlabel("accuracy" if share else "RMSE", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    ax.set_yticks(range(len(models)), models)
    ax.set_ylim(len(models) - 0.5, -0.5)
    return fig


def write(record: dict[str, Any], path: pathlib.Path) -> None:
    """Write the record, its page and its picture."""
    atomic_write(path, json.dumps(record, indent=1) + "\n")
    atomic_write(path.with_suffix(".md"), page(record))
    save_figure(draw(record), path.with_suffix(".png"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Complete the record, or write its page."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.archive", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=pathlib.Path, help="folder of the sets")
    parser.add_argument("--workdir", type=pathlib.Path, help="folder of all runs")
    parser.add_argument("--record", type=pathlib.Path, default=RECORD)
    parser.add_argument("--page", action="store_true", help="write the page alone")
    asked = parser.parse_args(arguments)
    if not asked.page and None in (asked.data, asked.workdir):
        parser.error("--data or --workdir is missing")
    record = {
        "draws": archive.get_config().evaluation.draws,
        "hardware": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")},
        "runs": [],
    }
    if asked.record.exists():
        record = json.loads(asked.record.read_text())
    done = {(row["set"], row["model"], row["seed"]) for row in record["runs"]}
    if not asked.page:
        keep_programs(None)  # seeds share them
        for name, model, seed in every_run():
            if (name, model, seed) not in done:
                record["runs"].append(run(name, model, seed, asked.data, asked.workdir))
                write(record, asked.record)
                jax.clear_caches()  # the next model's programs are its own
    write(record, asked.record)


if __name__ == "__main__":
    main()
