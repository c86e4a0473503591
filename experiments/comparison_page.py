"""Show a record of `experiments.compare`: the page, whose text follows from the numbers."""

import json
import pathlib
from typing import Any

from experiments import comparison
from experiments.comparison_notes import DATA, NOTES
from experiments.comparison_plots import energy_figure, memory_figure, memory_of
from experiments.comparison_statistics import (
    COSTS, ENERGY, Summary, difference, front, summaries
)
from pspike_jax.analysis.canvas import number, save_figure
from pspike_jax.training.files import atomic_write

MEMORY = pathlib.Path(__file__).resolve().parent / "results" / "memory.json"
MEMORY_TASK = "digits"


def write_page(record: dict[str, Any], path: pathlib.Path) -> None:
    """Write the page and the pictures beside a record.

    Args:
      record: as `experiments.compare` makes it.
      path: of the record.
    """
    memory = json.loads(MEMORY.read_text())
    atomic_write(path.with_suffix(".md"), page(record, memory, path.stem))
    if any(summaries(record, task) for task in DATA):
        titles = {task: title for task, (title, *_) in DATA.items()}
        figure = energy_figure(record, titles, ENERGY)
        save_figure(figure, path.with_name(f"{path.stem}_energy.png"))
    if summaries(record, MEMORY_TASK):
        figure = memory_figure(record, memory, MEMORY_TASK, DATA[MEMORY_TASK][0])
        save_figure(figure, path.with_name(f"{path.stem}_memory.png"))


def page(record: dict[str, Any], memory: dict[str, Any], name: str) -> str:
    """Write a record as Markdown.

    Args:
      record: as `experiments.compare` makes it.
      memory: as `experiments.memory` makes it.
      name: of the record.

    Returns:
      The page.
    """
    found = {task: one for task in DATA if (one := summaries(record, task))}
    settings, models = record["settings"], record["models"].values()
    notes = NOTES.format(
        **settings | {
            "dropout": settings["fields"]["dropout"],
            "steps": ", ".join(f"{n} on {_words(task)}" for task, n in settings["steps"].items()),
            "rates": ", ".join(f"{rate:g}" for rate in settings["rates"]),
            "tuned_on": _words(settings["tuned_on"]),
            "largest": sum(row["learning_rate"] == max(settings["rates"]) for row in models),
            "models": len(models),
        }
    )
    shared = [row for row in record["models"] if memory_of(memory, row)]
    return "\n".join([
        "# Every model at one size", "", _missing(record), _short(found), "",
        f"![Accuracy against energy]({name}_energy.png)", "",
        *(line for task, one in found.items() for line in _section(record, task, one)),
        *_twins(found), *_memory(name, shared), *_steps(record), notes, _source(record, name),
    ])


def _short(found: dict[str, dict[str, Summary]]) -> str:
    """Say what a reader should choose, and what the differences do not say."""
    lines = ["In short:", ""]
    for task, rows in found.items():
        best = next(iter(rows))
        gaps = {
            row: gap for row, one in rows.items()
            if row != best and (gap := difference(rows[best], one)).seeds > 1
        }
        tied = [row for row, gap in gaps.items() if not gap.stands]
        title, classes, _ = DATA[task]
        silent = [row for row, one in rows.items() if one.accuracy < 2 / classes]
        seeds = sorted({len(one.accuracies) for one in rows.values()})
        text = (
            f"- **{title}** ({_count(seeds)} seeds): `{best}` is first, "
            f"{100 * rows[best].accuracy:.1f} %. "
        )
        if len(gaps) > 1:
            text += (
                f"{len(tied)} of {len(gaps)} others of more than one seed cannot be told from it"
                + (f": {_names(tied)}. " if tied else ". ")
            )
        text += f"None is both as accurate as and cheaper than {_names(front(rows, ENERGY))}."
        if silent:
            text += f" Near chance: {_names(silent)}."
        lines.append(text)
    return "\n".join(lines) if found else "Nothing has been trained yet."


def _section(record, task, rows):
    title, _, text = DATA[task]
    columns = (
        "model", "accuracy", "behind", "rate", "additions", "products", *COSTS, "parameters",
        "width", "learning rate",
    )
    best = next(iter(rows.values()))
    lines = [f"## {title}", "", text, "", _line(columns), _line(_rule(columns))]
    for row, one in rows.items():
        kept, operations = record["models"][row], one.operations
        spikes = one.firing_rate is not None
        products = operations.real_products + operations.state_macs
        gap = difference(best, one)
        behind = _spread(gap.mean, gap.error)
        lines.append(_line((
            f"`{row}`",
            f"{_spread(one.accuracy, one.error)} %",
            "" if one is best else f"**{behind}**" if gap.stands else behind,
            f"{100 * one.firing_rate:.1f} %" if spikes else "",
            f"{operations.synaptic_ops:,.0f}" if spikes else "",
            f"{products:,.0f}",
            *(number(cost(operations)) if cost(operations) else "" for cost in COSTS.values()),
            f"{kept['tasks'][task]['parameters']:,}",
            str(kept["tasks"][task]["width"]),
            f"{kept['learning_rate']:g}",
        )))
    stopped = [
        f"`{row}`, seed {seed}: {run['error']}"
        for row, kept in record["models"].items()
        for seed, run in kept["tasks"].get(task, {"seeds": {}})["seeds"].items() if "error" in run
    ]
    return [*lines, "", *(f"Stopped: {'; '.join(stopped)}.\n" for _ in stopped[:1])]


def _twins(found):
    """Set spiking rows beside dense ones that carry information over time in the same way."""
    columns = ("spiking", "dense", *(f"{DATA[task][0]}, points" for task in found),
               *(f"{DATA[task][0]}, energy" for task in found))
    lines = []
    for row, twin in comparison.TWINS.items():
        pairs = [(rows.get(row), rows.get(twin)) for rows in found.values()]
        if not any(one and other for one, other in pairs):
            continue
        gaps, costs = [], []
        for one, other in pairs:
            gap = difference(one, other) if one and other else None
            text = _spread(gap.mean, gap.error, "+") if gap else "-"
            gaps.append(f"**{text}**" if gap and gap.stands else text)
            costs.append(_ratio(one, other) if gap else "-")
        lines.append(_line((f"`{row}`", f"`{twin}`", *gaps, *costs)))
    if not lines:
        return []
    text = (
        "Each spiking model beside the dense one that carries information over time in the same "
        "way, both at the common size: points of accuracy won or lost, bold where the difference "
        "stands, and the energy of an example beside that of the dense one."
    )
    head = ["## What spikes cost", "", text, "", _line(columns), _line(_rule(columns))]
    return [*head, *lines, ""]


def _memory(name, shared):
    text = (
        "Steps that a model remembers are the geometric mean of what it passed of the five tasks "
        "of [the page of memory](memory.md), at a third of this size; none counts as 4 steps."
    )
    if not shared:
        return ["## Accuracy against memory", "", f"{text} No model there has passed through all "
                "tasks yet.", ""]
    return [
        "## Accuracy against memory", "",
        f"{text} All five were run with {len(shared)} of the models here.", "",
        f"![Accuracy against length of memory]({name}_memory.png)", "",
    ]


def _steps(record):
    timed = record.get("steps")
    if not timed:
        return ["## A training step", "", "Time and memory of a step were not measured yet.", ""]
    columns = ("model", "ms", "from", "to", "temporary memory, MB")
    lines = [
        _line((
            f"`{row}`", *(f"{1e3 * step[name]:.1f}" for name in ("median", "q1", "q3")),
            f"{step['temporary_bytes'] / 1e6:.1f}",
        )) for row, step in sorted(timed.items(), key=lambda one: one[1]["median"])
    ]
    about = record["timed"]
    text = (
        f"Median and quartiles of {about['steps']} steps of {_words(about['task'])}, batches of "
        f"{record['settings']['batch']}, on {about['hardware']['cores']} cores, "
        f"{about['hardware']['processor']}; compilation is not in it. Memory is what the compiled "
        "program needs beside its arguments and results, as XLA says."
    )
    return ["## A training step", "", text, "", _line(columns), _line(_rule(columns)), *lines, ""]


def _missing(record):
    """Say what a record lacks; empty where it is whole."""
    left_out, tasks = record["left_out"], record["settings"]["steps"]
    text = "".join(f"`{row}` is not here: {why}.\n\n" for row, why in left_out.items())
    for task in tasks:
        lacking = [
            row for row in comparison.rows() if row not in left_out
            and not record["models"].get(row, {"tasks": {}})["tasks"].get(task, {}).get("seeds")
        ]
        if len(lacking) == len(comparison.rows()) - len(left_out):
            text += f"Nothing was run yet on {_words(task)}.\n\n"
        elif lacking:
            text += f"Not run yet on {_words(task)}: {_names(lacking)}.\n\n"
    return text


def _source(record, name):
    commits = sorted({
        run["commit"] or "no clone" for kept in record["models"].values()
        for found in kept["tasks"].values() for run in found["seeds"].values()
    })
    versions = ", ".join(f"{package} {number}" for package, number in record["versions"].items())
    return (
        "All of it comes from\n\n```bash\npython -m experiments.compare --data_dir=FILES\n"
        "python -m experiments.compare --data_dir=FILES --time_only\n```\n\n"
        f"which go on where they were stopped. The [record]({name}.json) holds every seed. "
        f"Source: commit {', '.join(commits)}. Versions: {versions}.\n"
    )


def _ratio(one, other):
    """Say how the energy of one model compares with that of another."""
    ratio = ENERGY(other.operations) / ENERGY(one.operations)
    return f"{ratio:.2g} times less" if ratio >= 1 else f"{1 / ratio:.2g} times more"


def _spread(mean, error, sign=""):
    """Write a mean and its error in percent; of one seed, the value alone."""
    text = f"{100 * mean:{sign}.1f}"
    return text if error != error else f"{text} ± {100 * error:.1f}"


def _names(rows):
    return ", ".join(f"`{row}`" for row in rows)


def _count(numbers):
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _words(task):
    title = DATA[task][0]
    return title if title.startswith("Japanese") else title.lower()


def _line(cells):
    return f"| {' | '.join(cells)} |"


def _rule(columns):
    return ("---", *["---:"] * (len(columns) - 1))
