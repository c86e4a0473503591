"""What the seeds of a comparison say: means with their errors, and which differences stand."""

import statistics
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from pspike_jax.analysis import costs
from pspike_jax.analysis.energy import Energy

CONFIDENCE = 0.95


def _nanojoules(cost: str, state_updates: bool = True):
    given = {"state_updates": state_updates, "cost": costs.COSTS[cost]}
    return lambda operations: operations.spiking(**given) / 1e3


# What an example costs in nanojoules, by each way to count.
COSTS = {
    "energy, nJ": _nanojoules("operations"),
    "without states, nJ": _nanojoules("operations", state_updates=False),
    "synapses alone, nJ": _nanojoules("synaptic operations"),
    "memory of 32 kB, nJ": _nanojoules("memory of 32 kB"),
}
ENERGY = COSTS["energy, nJ"]


class Summary(NamedTuple):
    """A model on one data set.

    Attributes:
      accuracies: of each seed, by its name.
      accuracy: their mean.
      error: its standard error over seeds; NaN for one.
      firing_rate: mean over seeds, None where nothing spikes.
      operations: mean over seeds.
      examples: of the test split.
    """

    accuracies: dict[str, float]
    accuracy: float
    error: float
    firing_rate: float | None
    operations: Energy
    examples: int


class Difference(NamedTuple):
    """How far one model is above another, seed by seed.

    Attributes:
      mean: over the seeds that both have.
      error: its standard error over them; NaN for one.
      seeds: their number.
      examples_error: standard error from the number of test examples, as if each model had been
        tested on examples of its own, which is too large.
    """

    mean: float
    error: float
    seeds: int
    examples_error: float

    @property
    def stands(self) -> bool:
        """Whether it is larger than chance makes it, over seeds and over examples."""
        if self.seeds < 2:
            return False
        level = (1 + CONFIDENCE) / 2
        over_seeds = stats.t.ppf(level, self.seeds - 1) * self.error
        return abs(self.mean) > max(over_seeds, stats.norm.ppf(level) * self.examples_error)


def error_of_mean(values: list[float]) -> float:
    """Return the standard error of a mean; NaN for one value."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")


def summarize(found: dict[str, Any]) -> Summary | None:
    """Summarize what a record holds of a model on one data set.

    Args:
      found: its "seeds" and "test_examples".

    Returns:
      The summary of the seeds that were trained to their end, or None.
    """
    seeds = {seed: run for seed, run in found["seeds"].items() if "accuracy" in run}
    if not seeds:
        return None
    accuracies = {seed: run["accuracy"] for seed, run in seeds.items()}
    rates = [run["firing_rate"] for run in seeds.values()]
    operations = [list(run["operations"].values()) for run in seeds.values()]
    values = list(accuracies.values())
    return Summary(
        accuracies, statistics.fmean(values), error_of_mean(values),
        None if None in rates else statistics.fmean(rates),
        Energy(*np.mean(operations, axis=0).tolist()), found["test_examples"],
    )


def summaries(record: dict[str, Any], task: str) -> dict[str, Summary]:
    """Return {row: summary} of one data set, the most accurate first."""
    found = {
        row: summarize(kept["tasks"][task])
        for row, kept in record["models"].items() if task in kept["tasks"]
    }
    present = {row: one for row, one in found.items() if one is not None}
    return dict(sorted(present.items(), key=lambda one: (-one[1].accuracy, one[0])))


def difference(one: Summary, other: Summary) -> Difference:
    """Compare two models on one data set, paired by seed."""
    shared = [seed for seed in one.accuracies if seed in other.accuracies]
    values = [one.accuracies[seed] - other.accuracies[seed] for seed in shared]
    if not values:
        return Difference(float("nan"), float("nan"), 0, float("nan"))
    variances = [a * (1 - a) / one.examples for a in (one.accuracy, other.accuracy)]
    return Difference(
        statistics.fmean(values), error_of_mean(values), len(values), sum(variances) ** 0.5
    )


def front(found: dict[str, Summary], energy) -> list[str]:
    """Return the rows that no other is both as accurate as and cheaper than, the cheapest first.

    Args:
      found: from `summaries`.
      energy: function of a model's operations.
    """
    best, chosen = -1.0, []
    for row, one in sorted(found.items(), key=lambda one: (energy(one[1].operations), one[0])):
        if one.accuracy > best:
            best = one.accuracy
            chosen.append(row)
    return chosen
