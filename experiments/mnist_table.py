"""The price of spikes on sequential MNIST: a table of the records of experiments/configs/mnist_cpu.

  python -m experiments.mnist_table

Records are named after the variants of that config. The page, experiments/results/mnist.md, is made
of those that are there, and names those that are not; nothing is run.
"""

import math
from collections.abc import Mapping
from typing import Any

from experiments.configs.mnist_cpu import MODELS, ORDERS
from experiments.record import RESULTS
from experiments.results_page import read_records
from pspike_jax.analysis.files import atomic_write

PAGE = RESULTS / "mnist.md"
TWIN = "s4d"
HEAD = """# Sequential MNIST, four models at one budget

Two causal layers of 128 features, 8 passes over 54,000 pictures, one seed each; what they share
stands in [the config](../configs/mnist_cpu.py). Accuracy is that of the 10,000 published pictures,
spikes drawn 8 times where they are drawn at all, with the standard error of pictures and draws.
Differences below a point may be those of the seed. Energy is a count of operations at 45 nm, for a
picture. Minutes are those of a clock, of runs bound to one core while others kept the machine busy:
they say nothing about speed.
"""
COLUMNS = (
    "model", "accuracy", "points below the dense twin", "firing rate", "nJ without state updates",
    "nJ with them", "minutes",
)


def accuracy(record: Mapping[str, Any]) -> tuple[float, float]:
    """Return the accuracy of a record's run with drawn spikes, and its standard error."""
    found = record["runs"][0]["evaluation"]["sampled"]
    return found["mean"], math.hypot(found["sem"], found["sem_examples"])


def row(name: str, record: Mapping[str, Any], twin: Mapping[str, Any] | None) -> list[str]:
    """Return the cells of a model."""
    mean, error = accuracy(record)
    price = "" if name == TWIN else "not trained"
    if name != TWIN and twin is not None:
        dense, dense_error = accuracy(twin)
        price = f"{100 * (dense - mean):.1f} ± {100 * math.hypot(error, dense_error):.1f}"
    run = record["runs"][0]
    rates = [rate for site in run["report"]["activity"].values() for rate in site["firing_rate"]]
    rate = f"{100 * sum(rates) / len(rates):.0f} %" if rates else "none"
    joules = [
        f"{run['report']['energy'][counted]['spiking_picojoules'] / 1000:,.0f}"
        for counted in ("without_state_updates", "with_state_updates")
    ]
    shown = f"{100 * mean:.2f} ± {100 * error:.2f} %"
    return [f"`{name}`", shown, price, rate, *joules, f"{run['minutes']:.0f}"]


def validations(record: Mapping[str, Any]) -> str:
    """Return the validation accuracies of a run, in the order of its passes."""
    lines = record["runs"][0]["metrics"]
    found = [line["validation/accuracy"] for line in lines if "validation/accuracy" in line]
    return ", ".join(f"{100 * one:.1f}" for one in found)


def page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page of what there is."""
    parts = [HEAD]
    for order in ORDERS:
        found = {name: records.get(f"{order}_{name}") for name in MODELS}
        lines = [f"## {order}", "", f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|"]
        lines += [
            f"| {' | '.join(row(name, record, found[TWIN]))} |"
            for name, record in found.items() if record
        ]
        lines += ["", "Validation after each pass, in %:", ""]
        lines += [f"- `{name}`: {validations(record)}" for name, record in found.items() if record]
        if missing := [f"`{name}`" for name, record in found.items() if not record]:
            lines += ["", f"Not trained yet: {', '.join(missing)}."]
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    atomic_write(PAGE, page(read_records()))
