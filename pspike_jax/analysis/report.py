"""The account of a trained run: its merit, activity, energy and pictures, in one call."""

import functools
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import numpy as np

from pspike_jax import models
from pspike_jax.analysis import activity, plots
from pspike_jax.analysis.canvas import number
from pspike_jax.analysis.costs import COSTS, Cost
from pspike_jax.analysis.energy import Energy
from pspike_jax.analysis.files import atomic_path
from pspike_jax.analysis.measure import Findings, measure
from pspike_jax.analysis.spike_plots import NEAR_ZERO
from pspike_jax.analysis.tables import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BANDWIDTH = 0.02  # of the density over the histogram of probabilities


def report(
    model: nn.Module,
    variables: Mapping[str, Any],
    task: Any,
    *,
    key: jax.Array,
    evaluation: Mapping[str, Mapping[str, float]],
    workdir: str | os.PathLike,
    history: Sequence[Mapping[str, float]],
    initial_poles: np.ndarray | None = None,
) -> str:
    """Measure a trained model on up to 256 test examples; write report.json and pictures.

    Args:
      model: module of the zoo.
      variables: its parameters, and batch statistics where it has any.
      task: task with a `test` split and an objective.
      key: PRNG key of the spikes; consumed.
      evaluation: {"sampled" | "mean_field" | "threshold": {"mean", "sem", "draws"}}, the merit on
        the test split with its standard error over noise draws, and "sem_examples", over
        examples, where it is known.
      workdir: folder for report.json; learning_curve.png where there is a history; poles.png and
        modes.png where there are state spaces; kernels.png where layers are linear between
        spikes; raster.png, probabilities.png, active_ratio.png, and traces.png or membranes.png
        where there are spikes; input.png; confusion.png, or predictions.png and residuals.png, as
        the objective has them.
      history: lines of metrics, see `plots.learning_curve`; may be empty.
      initial_poles: (layers, H, N), those before training, for the picture; or None.

    Returns:
      The final table as text.

    Raises:
      ValueError: the task has no test split.
    """
    if task.test is None:
        raise ValueError(f"task {task.name!r} has no test split to report on")
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    findings, merit = measure(model, variables, task.test, key), task.objective.merit[0]
    answers = task.objective.summary(findings.outputs, findings.targets, findings.all_lengths)
    with atomic_path(workdir / "report.json") as partial:
        content = summary(findings, evaluation, merit=merit, answers=answers)
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    poles = models.poles(model, variables)
    words = caption(task.objective, findings)
    pictures = _spike_pictures(findings, words) | _answer_pictures(answers)
    if findings.first_input is not None:
        seen = findings.first_input[: findings.lengths[0]]
        pictures["input.png"] = lambda: plots.example_input(seen, words)
    if poles is not None:
        pictures["poles.png"] = lambda: plots.poles(poles, initial_poles)
        pictures["modes.png"] = lambda: plots.modes(poles, initial_poles)
    if findings.kernels:
        pictures["kernels.png"] = lambda: plots.kernels(findings.kernels)
    if history:
        pictures["learning_curve.png"] = lambda: plots.learning_curve(history, merit)
    for name, draw in pictures.items():
        plots.save_figure(draw(), workdir / name)
    return table(findings, evaluation, merit=merit)


def summary(
    findings: Findings,
    evaluation: Mapping[str, Mapping[str, float]],
    *,
    merit: str,
    answers: Mapping[str, Any],
) -> dict[str, Any]:
    """Gather what report.json holds.

    Args:
      findings: from `measure`.
      evaluation: see `report`.
      merit: name of what is evaluated.
      answers: from the objective's `summary`, over the examples of the findings.

    Returns:
      Nested dict of plain numbers, lists and strings; energies in picojoules per example. What is
      not a finite number is None.
    """
    content: dict[str, Any] = {
        "merit": merit,
        "evaluation": _plain(evaluation),
        "examples": findings.examples,
        "answers": _plain(answers),
        "activity": {
            site: {name: values.tolist() for name, values in shares._asdict().items()}
            for site, shares in findings.shares.items()
        },
        # Share of the probabilities of the first batch, of neurons that reset of silent steps.
        "near_zero": {
            site: np.mean(
                activity.valid_values(fields["probability_array"], findings.lengths) < NEAR_ZERO, -1
            ).tolist()
            for site, fields in findings.captured.items()
        },
    }
    if findings.operations is not None:
        operations = findings.operations
        content["operations"] = operations._asdict()
        content["energy"] = {
            name: {
                "spiking_picojoules": operations.spiking(state_updates=state_updates),
                "dense_picojoules": operations.dense(state_updates=state_updates),
                "ratio": _plain(operations.ratio(state_updates=state_updates)),
            }
            for name, state_updates in (
                ("without_state_updates", False), ("with_state_updates", True)
            )
        }
        content["costs"] = {
            name: _by_cost(operations, cost) | {
                "crossover_rates": {
                    site: rates.tolist() for site, rates in findings.crossover.get(name, {}).items()
                }
            } for name, cost in COSTS.items()
        }
        content["neurobench"] = dict(findings.neurobench)
        if merit == "accuracy":
            first = next(iter(evaluation.values()))
            content["neurobench"]["ClassificationAccuracy"] = first["mean"]
    return content


def _by_cost(operations: Energy, cost: Cost) -> dict[str, float | None]:
    """Return the energy of an example, state updates among it, by the prices of one table."""
    given = {"state_updates": True, "cost": cost}
    return {
        "spiking_picojoules": operations.spiking(**given),
        "dense_picojoules": operations.dense(**given),
        "ratio": _plain(operations.ratio(**given)),
    }


def caption(objective: Any, findings: Findings) -> str:
    """Say which example the raster shows, what is true of it and what the model answered.

    Args:
      objective: of the task.
      findings: from `measure`.

    Returns:
      A line.
    """
    target, output = findings.targets[0], np.asarray(findings.outputs[0], np.float64)
    steps = f"Test example 1, {int(findings.lengths[0])} steps"
    if objective.per_step or not objective.needs_targets or np.ndim(target) > 1:
        return steps
    if getattr(objective, "num_classes", None) is not None and np.ndim(target) == 0:
        names = objective.names or tuple(map(str, range(objective.num_classes)))
        answer = int(output.argmax())
        share = 100 / np.exp(output - output[answer]).sum()
        return f"{steps}: label {names[target]}, answer {names[answer]} ({share:.0f} %)"
    shown = (", ".join(map(number, np.ravel(x)[:4])) for x in (target, output))
    return "{}: target {}, answer {}".format(steps, *shown)


def _spike_pictures(findings: Findings, caption: str) -> dict[str, Callable[[], "Figure"]]:
    """Return what draws each picture of spikes, by file name."""
    captured, lengths = findings.captured, findings.lengths
    if not captured:
        return {}
    spikes = {site: fields["spike_array"] for site, fields in captured.items()}
    p = {site: fields["probability_array"] for site, fields in captured.items()}
    return {
        "raster.png": lambda: plots.spike_raster(
            {site: array[:, 0, : lengths[0]] for site, array in spikes.items()}, caption
        ),
        "probabilities.png": lambda: plots.probability_histogram(
            {site: activity.valid_values(array, lengths) for site, array in p.items()},
            bandwidth=BANDWIDTH,
        ),
        "active_ratio.png": lambda: plots.active_neurons(
            {site: activity.active_ratio(array, lengths) for site, array in spikes.items()}
        ),
    } | _traces(captured, lengths[0])


def _traces(captured: activity.Sites, length: int) -> dict[str, Callable[[], "Figure"]]:
    """Draw single neurons of the last site with probabilities, and of the last with membranes."""
    found = {}
    for site, fields in captured.items():
        spikes, p = fields["spike_array"], fields["probability_array"]
        by_chance = not np.array_equal(spikes, p)
        values = p if by_chance else fields.get("drive_array")
        if values is None:
            continue
        name = "traces.png" if by_chance else "membranes.png"
        parts = (array[:, 0, :length] for array in (spikes, values))
        found[name] = functools.partial(
            plots.layer_traces, *parts, site, membranes=not by_chance
        )
    return found


def _answer_pictures(answers: Mapping[str, Any]) -> dict[str, Callable[[], "Figure"]]:
    """Return what draws each picture of answers, by file name; as the objective tells of them."""
    pictures = {}
    if {"confusion", "names"} <= answers.keys():
        pictures["confusion.png"] = lambda: plots.confusion(answers["confusion"], answers["names"])
    if {"targets", "predictions"} <= answers.keys():
        both = answers["targets"], answers["predictions"]
        pictures["predictions.png"] = lambda: plots.predictions(*both)
        pictures["residuals.png"] = lambda: plots.residuals(*both)
    if {"rates", "counts"} <= answers.keys():
        pairs = (np.reshape(answers[name], (-1, 1)) for name in ("counts", "rates"))
        pictures["predictions.png"] = functools.partial(plots.predictions, *pairs)
    return pictures


def _plain(value: Any) -> Any:
    """Return arrays as lists, and what is not a finite number as None: JSON has no other."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
