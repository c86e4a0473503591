"""Show a record of `experiments.memory`: a page with a table, and a picture."""

import pathlib
from typing import TYPE_CHECKING, Any

from pspike_jax.analysis.canvas import PALETTE, WIDTH, save_figure
from pspike_jax.training.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASKS = {
    "copying": "copying",
    "selective_copying": "selective copying",
    "induction": "induction",
    "parity": "parity",
    "waiting_digits": "digits, then a pause",
}
NOTES = """\
Each number is the length of the longest examples of which a model answered the threshold's share of
the questions on validation, in steps; thresholds are

{thresholds}.

0 says that it did not pass the shortest ones, of 8 steps (digits: 16, one for each pixel); {steps}
is the longest that was tried. In brackets is the share of the test examples' questions that it
answered at the length where it failed; chance is 13 % of 8 symbols, 50 % of a parity, 10 % of the
digits. `t` and a number mark a row that was ended by its processor time, after so many of the
{level_steps} updates that a length may take: the model might go further, it is the machine that did
not. A dash was not reached by this run.

- **copying:** three of 8 symbols, a pause, then the three again in their order: each is kept for
  the length less three steps.
- **selective copying:** the same, with the symbols scattered over the pause.
- **induction:** a marker somewhere, and at the end again: what followed it?
- **parity:** is the number of ones so far odd? It needs a state that turns, not one that fades.
- **digits:** 16 pixels in {digit_tokens} grey values, then blanks; named at the last one.

The tasks are generated (`pspike_jax.data`: `copying`, `selective_copying`, `induction`, `parity`,
`waiting_digits`) but for the digits, which scikit-learn ships. A length that is passed is followed
by one twice as long, with the weights learnt so far. All models have two layers of 32 features,
states of 16 where they have states, and one learning rate, {rate:g}, which none was tuned for; one
seed, batches of {batch}, at most {level_steps} updates a length. This ranks how readily a model
learns such tasks at this size, not what its family can do. Short examples of parity and induction
are so few that test examples are among those of training.
"""


def write_page(record: dict[str, Any], path: pathlib.Path) -> None:
    """Write the page and the picture beside a record.

    Args:
      record: as `experiments.memory` makes it.
      path: of the record.
    """
    atomic_write(path.with_suffix(".md"), page(record, path.stem))
    if record["models"]:
        save_figure(draw(record), path.with_suffix(".png"))


def page(record: dict[str, Any], name: str) -> str:
    """Write a record as Markdown.

    Args:
      record: as `experiments.memory` makes it.
      name: of the record.

    Returns:
      The page.
    """
    settings, fields = record["settings"], record["fields"]
    notes = NOTES.format(
        thresholds=", ".join(
            f"{TASKS[task]} {100 * share:g} %" for task, share in record["thresholds"].items()
        ),
        digit_tokens=17, rate=fields["rate"], batch=fields["batch"], **settings,
    )
    rows = [("model", "parameters", "spikes per neuron and step", *TASKS.values())]
    rows.append(("---", *["---:"] * (len(rows[0]) - 1)))
    for spiking, title in ((False, "*dense*"), (True, "*spiking*")):
        rows.append((title, *[""] * (len(rows[0]) - 1)))
        rows += [_cells(*one) for one in _ranked(record, spiking)]
    table = _table(rows)
    left_out = "".join(
        f"`{model}` is not here: {why}.\n\n" for model, why in record["left_out"].items()
    )
    versions = ", ".join(f"{package} {number}" for package, number in record["versions"].items())
    commits = sorted({
        row["commit"] or "no clone"
        for model in record["models"].values() for row in model["tasks"].values()
    })
    return (
        "# Who remembers what, and for how long\n\n"
        f"{table}\n\n{_side_by_side(record)}\n\n"
        f"![The longest examples that each model passed]({name}.png)\n\n{notes}\n"
        f"{left_out}{_missing(record)}"
        f"All of it comes from\n\n```bash\npython -m experiments.memory\n```\n\n"
        f"which goes on where it was stopped. The [record]({name}.json) holds every length. "
        f"Source: commit {', '.join(commits)}. Versions: {versions}.\n"
    )


def _table(rows):
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _side_by_side(record):
    """Count the models of each kind that passed every length, and those that passed none."""
    longest = record["settings"]["steps"]
    rows = [("", "dense: all lengths", "none", "spiking: all lengths", "none")]
    rows.append(("---", *["---:"] * 4))
    for task, title in TASKS.items():
        cells = [title]
        for spiking in (False, True):
            found = [model["tasks"].get(task) for _, model in _ranked(record, spiking)]
            found = [row["remembers"] for row in found if row is not None]
            cells += [f"{found.count(longest)} of {len(found)}", str(found.count(0))]
        rows.append(tuple(cells))
    return _table(rows)


def _ranked(record, spiking):
    """Return (name, model) of one kind, those that remember most first."""
    chosen = [one for one in record["models"].items() if one[1]["spiking"] == spiking]
    total = lambda model: sum(row["remembers"] for row in model["tasks"].values())
    return sorted(chosen, key=lambda one: (-len(one[1]["tasks"]), -total(one[1]), one[0]))


def _cells(name, model):
    rates = [row["firing_rate"] for row in model["tasks"].values()]
    rates = [rate for rate in rates if rate is not None]
    rate = f"{100 * sum(rates) / len(rates):.0f} %" if rates else ""
    return f"`{name}`", f"{model['parameters']:,}", rate, *(
        _cell(model["tasks"].get(task)) for task in TASKS
    )


def _cell(row):
    if row is None:
        return "-"
    failed = row["levels"][-1]
    if failed["passed"]:
        return f"**{row['remembers']}**"
    mark = f" t{failed['updates']}" if row["ended"] == "seconds" else ""
    return f"{row['remembers']} ({100 * failed['test']:.0f} %){mark}"


def _missing(record):
    """Say which models the record lacks, and how many rows of those that it has."""
    names = [f"`{name}`" for name in record.get("not_reached", ()) if name not in record["models"]]
    text = f"This run did not reach {', '.join(names)}. " if names else ""
    lacking = sum(len(TASKS) - len(model["tasks"]) for model in record["models"].values())
    text += f"It lacks {lacking} rows of the models above. " if lacking else ""
    return f"{text.strip()}\n\n" if text else ""


def draw(record: dict[str, Any]) -> "Figure":
    """Plot the longest examples that each model passed, a panel for each task.

    Args:
      record: as `experiments.memory` makes it.

    Returns:
      Figure.
    """
    from matplotlib.figure import Figure

    models = _ranked(record, False) + _ranked(record, True)
    fig = Figure(figsize=(WIDTH, 1.2 + 0.2 * len(models)), layout="constrained")
    for ax, (task, title) in zip(fig.subplots(1, len(TASKS), sharey=True), TASKS.items()):
        for place, (_, model) in enumerate(models):
            row = model["tasks"].get(task)
            if row is not None:  # 4, left of the shortest, stands for none
                color = PALETTE[1 if model["spiking"] else 0]
                ax.plot([4, max(4, row["remembers"])], [place] * 2, color=color, linewidth=4)
                if row["ended"] == "seconds":
                    ax.plot(max(4, row["remembers"]), place, ">", color=color, clip_on=False)
        ax.set_xscale("log", base=2)
        ax.set_xlim(4, 1.2 * record["settings"]["steps"])
        ax.set_title(title.replace(", ", ",\n"), loc="left", fontsize=9)
        ax.set_xticks([8, 16, 32, 64][: record["settings"]["steps"].bit_length() - 3])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    ax.set_yticks(range(len(models)), [name for name, _ in models])
    ax.invert_yaxis()
    fig.supxlabel(
        "steps of the longest examples that were passed; blue dense, red spiking; an arrow: out of "
        "time", fontsize=9,
    )
    return fig
