"""What pages of docs/models/ say was measured: a module for each family, and what they share.

A module has CAPTION, of its picture; `runs(asked)`, {key of a row of its record: what makes the
row}; `page(rows)`, Markdown; and `draw(rows)`, a figure. `python -m experiments.families` runs
them.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from pspike_jax.analysis.activity import summarize
from pspike_jax.command.experiment import Experiment
from pspike_jax.objectives import metrics
from pspike_jax.training import FitResult, run_split

SEEDS = range(3)
DIGITS = 5  # significant ones, of curves that are kept to be drawn


def table(*rows: Sequence[Any]) -> str:
    """Write rows as a table in Markdown, the first its header; numbers stand to the right."""
    sides = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (rows[0], sides, *rows[1:]))


def mean_and_spread(values: Sequence[float], form: str = ".3f", scale: float = 1.0) -> str:
    """Write the mean of runs that differ in their seed, and their standard deviation."""
    values = [scale * value for value in values]
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{statistics.fmean(values):{form}} ± {statistics.stdev(values):{form}}"


def of_name(rows: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the rows whose keys are NAME_SEED, in the order of the seeds."""
    return [row for key, row in sorted(rows.items()) if key.rpartition("_")[0] == name]


def kept(values: Any) -> list[Any]:
    """Return numbers as a record keeps them, with as many digits as a picture needs."""
    values = np.asarray(values)
    if values.ndim > 1:
        return [kept(row) for row in values]
    return [float(f"{value:.{DIGITS}g}") for value in values]


def tested(experiment: Experiment, trained: FitResult) -> dict[str, Any]:
    """Run the test split once; return the merit, and the firing rates of each site's layers."""
    measured, aux = run_split(
        experiment.model, trained.variables, experiment.task.test,
        objective=experiment.task.objective, key=jax.random.key(experiment.evaluation.seed),
        batch_size=experiment.training.eval_batch_size, mesh=experiment.mesh,
    )
    merit = experiment.task.objective.merit[0]
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(trained.variables["params"])),
        "best_step": trained.best_step,
        merit: metrics.mean(measured[merit]),
        "firing_rates": {
            site: found.firing_rate.tolist() for site, found in summarize(aux["sites"]).items()
        },
    }
