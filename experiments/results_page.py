"""The pages of experiments/results/: of every experiment, the paper's figure and what was found.

Everything on them comes from the records beside them, but for the papers' figures, which stand here
with their source. `experiments.record` writes them after each record.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from pspike_jax.analysis.files import atomic_write
from pspike_jax.data.catalog import CATALOG
from pspike_jax.pretrained import list_pretrained

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGE = RESULTS / "README.md"

# Test accuracy in percent and its source, by task and model; quoted, not measured here.
PAPERS = {
    ("psmnist", "pspikessm"): (98.4, "arXiv 2406.02923"),
    ("listops", "pspikessm"): (
        55.70, "arXiv 2406.02923v1, as quoted by arXiv 2408.14909 and 2410.03530"
    ),
}
HEAD = """\
# Results

Every figure under "here" was measured by a run whose record stands beside this page: configs,
seeds, versions, hardware, evaluations, thinned metrics. A figure under "paper" is quoted from its
source. Records and this page are made by `python -m experiments.record`.

Accuracies are of the test split, read once by each run, at its best step by validation; spikes are
sampled, and a run is the mean over its noise draws. The error is the standard error over training
seeds; of a single seed, that of noise draws and test examples together, which says nothing about
other seeds.
"""
PICTURES = {
    "raster.png": "Spikes of one test example, layer by layer",
    "learning_curve.png": "Loss, accuracy and firing rate over the training steps",
    "active_ratio.png": "Share of neurons that fire, step by step",
    "probabilities.png": "Spike probabilities", "poles.png": "Poles of the state spaces",
}
MODEL_FIELDS = {
    "preset": "preset", "d_model": "H", "widths": "H of the layers", "d_state": "N",
    "n_layers": "layers", "norm": "norm", "causal": "causal", "bidirectional": "bidirectional",
    "dropout": "dropout",
}


def read_records(folder: pathlib.Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Return the records of a folder by name, in the order of their names."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Write all records, by name, as Markdown; comparisons and searches have pages of their own."""
    rows = [("experiment", "paper", "here", "gap", "conditions")]
    sections = []
    for name, record in records.items():
        if "seeds" not in record:
            searched = "models" not in record and "command" in record
            what = "short runs, validation alone" if searched else "models of equal size"
            what = record.get("about", what)
            rows.append((f"[{name}]({name}.md)", "none", "a table of its own", "", what))
            continue
        rows.append((f"[{name}](#{name})", *_compared(record), _conditions_in_short(record)))
        sections.append(_section(name, record))
    rows.insert(1, ("---",) * len(rows[0]))
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return "\n".join([HEAD, table, "", *sections])


def workdirs(name: str, runs: int) -> list[str]:
    """Return what the documents call the workdirs of a record's runs."""
    return [f"runs/{name}{f'_{number}' if runs > 1 else ''}" for number in range(runs)]


def _paper(run):
    """Return the figure and the source that a run is compared with, or None."""
    task, _, different = run["description"]["task"]["name"].partition(" (")
    figure = PAPERS.get((task, run["description"]["config"]["model"]["name"]))
    return figure, different.rstrip(")")


def _compared(record):
    """Return the cells "paper", "here" and "gap" of a record."""
    figure, different = _paper(record["runs"][0])
    best, error = _best(record)
    here = f"{100 * best:.1f} ± {100 * error:.1f} %"
    if figure is None:
        return "none", here, ""
    gap = f"{100 * best - figure[0]:+.1f} points"
    return f"{figure[0]:g} %", here, f"{gap}, on a {different} set" if different else gap


def _best(record):
    """Return accuracy and error of a record; of a sweep, at its largest number of neurons."""
    if "over_seeds" in record:
        sampled = record["over_seeds"]["sampled"]
        return sampled["mean"], sampled["sem"]
    line = next(iter(record["accuracies"].values()))
    return line["mean"][-1], line["sem"][-1]


def _conditions_in_short(record):
    config = record["runs"][0]["description"]["config"]
    epochs, seeds = _epochs(record["runs"][0]), len(set(record["seeds"]))
    sizes = record.get("neurons") or [_neurons(config["model"])]
    return (
        f"{config['model']['name']}, H {', '.join(map(str, sizes))}; {epochs:.3g} epochs; "
        f"{seeds} seed{'s' * (seeds > 1)}"
    )


def _neurons(model):
    return model["d_model"] if "d_model" in model else model["widths"][0]


def _epochs(run):
    training = run["description"]["config"]["training"]
    examples = run["description"]["task"]["inputs"]["train"][0]
    return training["steps"] / (examples // training["batch_size"])


def _section(name: str, record: Mapping[str, Any]) -> str:
    """Write what a record holds: comparison, conditions, commands, table, pictures."""
    figure, _ = _paper(record["runs"][0])
    paper, here, gap = _compared(record)
    source = f", {figure[1]}" if figure else "; none is known for this task and model"
    lines = [
        f"## {name}\n",
        f"- **Paper:** {paper}{source}",
        f"- **Here:** {here}" + (f"; gap {gap}" if gap else ""),
        *_conditions(record),
        *_weights(name),
        "\n```bash", *_commands(name, record), "```\n",
    ]
    if "neurons" in record:
        lines += _against_neurons(record)
        titles = {"neurons.png": "Accuracy against neurons"}
    else:
        lines += [
            "<details><summary>Accuracy, activity and energy of the first run</summary>\n",
            f"```\n{record['table']}```\n", "</details>\n",
        ]
        titles = PICTURES
    lines += [
        f"![{title}]({name}/{file})\n" for file, title in titles.items()
        if (RESULTS / name / file).exists()
    ]
    return "\n".join([*lines, f"[Record]({name}.json)\n"])


def _conditions(record):
    run = record["runs"][0]
    described, config = run["description"], run["description"]["config"]
    sizes = described["task"]["inputs"]
    splits = ("train", "validation", "test")
    examples = ", ".join(f"{sizes[split][0]:,} {split}" for split in splits)
    model = dict(config["model"])
    if "neurons" in record:
        model["d_model"] = " to ".join(map(str, (record["neurons"][0], record["neurons"][-1])))
    shown = ((label, model[key]) for key, label in MODEL_FIELDS.items() if key in model)
    fields = ", ".join(f"{label} {value}" for label, value in shown)
    training, optimizer = config["training"], config["optimizer"]
    machine, versions = record["hardware"], described["versions"]
    minutes = ", ".join(f"{run['minutes']:g}" for run in record["runs"] if "minutes" in run)
    return [
        f"- **Data:** {described['task']['name']}; {examples}; inputs {tuple(sizes['test'][1:])}",
        f"- **Model:** `{model['name']}`; {fields}",
        f"- **Training:** {training['steps']:,} steps of {training['batch_size']} examples "
        f"({_epochs(run):.3g} epochs); learning rate {optimizer['learning_rate']:g}, of the "
        f"dynamics {optimizer['dynamics_rate']:g}, {optimizer['schedule']}; weight decay "
        f"{optimizer['weight_decay']:g}; seeds {', '.join(map(str, record['seeds']))}",
        f"- **Evaluation:** {config['evaluation']['draws']} noise draws",
        f"- **Machine:** {machine['processor']}, {machine['cores']} cores, "
        f"{described['platform']}; " + (f"minutes of steps: {minutes}; " if minutes else "")
        + ", ".join(f"{key} {value}" for key, value in versions.items()),
        f"- **Source:** commit {described['commit']}",
    ]


def _weights(name):
    if name not in list_pretrained():
        return []
    card = f"../../pspike_jax/pretrained/{name}.json"
    return [f'- **Weights:** `pspike_jax.load_pretrained("{name}")`, of one run; [card]({card})']


def _commands(name, record):
    config, task = record["config"], record["runs"][0]["description"]["config"]["task"]
    lines = []
    if task["name"] == "prepared":
        dataset = task["dataset"]
        how = f"python -m experiments.prepare --dataset={dataset} --data_dir=data"
        lines.append(how if dataset in CATALOG else f"# data/{dataset}: see the head of {config}")
    runs = " ".join(workdirs(name, len(record["runs"])))
    again = f"python -m experiments.record --name={name} --config={config} {runs}"
    return [*lines, *record["commands"], again]


def _against_neurons(record):
    rows = [("neurons", *record["accuracies"])]
    rows.append(("---:",) * len(rows[0]))
    for i, size in enumerate(record["neurons"]):
        cells = (
            f"{100 * line['mean'][i]:.1f} ± {100 * line['sem'][i]:.1f} %"
            for line in record["accuracies"].values()
        )
        rows.append((str(size), *cells))
    return [*(f"| {' | '.join(cells)} |" for cells in rows), ""]


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


def write_page() -> None:
    """Write the page of the records that are there, and their part of docs/results.md."""
    records = read_records()
    atomic_write(PAGE, page(records))
    shown = ROOT / "docs" / "results.md"
    text = shown.read_text()
    for name, record in records.items():
        if "over_seeds" in record:
            text = fill(text, f"{name} output", summary(name, record))
    atomic_write(shown, text)
