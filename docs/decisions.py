"""What the table "which model for which job" says in figures: those of the comparison's record."""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from experiments.comparison_statistics import ENERGY, summaries  # noqa: E402
from pspike_jax.analysis.canvas import number  # noqa: E402

RECORD = ROOT / "experiments" / "results" / "comparison.json"
TASKS = {"digits": "digits", "japanese_vowels": "vowels", "spoken_digits": "speech"}
COLUMNS = (*(f"{short}, %" for short in TASKS.values()), "rate, %", "energy, nJ", "step, ms")


def with_figures(text: str) -> str:
    """Add columns to the first table of a page: of the first model that each row names.

    Accuracies are means over seeds; rate and energy are of an example of the digits, the time is of
    a training step on them. What the record does not have stays empty.
    """
    record = json.loads(RECORD.read_text())
    found = {task: summaries(record, task) for task in TASKS}
    lines = text.split("\n")
    first = next(row for row, line in enumerate(lines) if line.startswith("|"))
    for row in range(first, lines.index("", first)):
        name = re.search(r"`(\w+)`", lines[row])
        if row == first:
            cells = COLUMNS
        elif row == first + 1:
            cells = ("---:",) * len(COLUMNS)
        else:
            cells = _figures(name and name[1], record, found)
        lines[row] += "".join(f" {cell} |" for cell in cells)
    return "\n".join(lines)


def _figures(name, record, found):
    accuracies = [
        f"{100 * found[task][name].accuracy:.1f}" if name in found[task] else "" for task in TASKS
    ]
    rate = energy = ""
    if digits := found["digits"].get(name):
        energy = number(ENERGY(digits.operations))
        rate = "" if digits.firing_rate is None else f"{100 * digits.firing_rate:.1f}"
    step = record.get("steps", {}).get(name)
    return (*accuracies, rate, energy, number(1e3 * step["median"]) if step else "")
