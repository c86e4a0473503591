"""The account of a trained run: accuracies, activity, energy and pictures, in one call."""

import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax

from pspike_jax import models
from pspike_jax.analysis import activity, energy, plots
from pspike_jax.analysis.files import whole_file
from pspike_jax.analysis.measure import Findings, measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BANDWIDTH = 0.02  # of the density over the histogram of probabilities

EVALUATIONS = {
    "sampled": "sampled spikes",
    "mean_field": "mean field",
    "threshold": "threshold 0.5",
}
SCOPE = """\
  Counted: additions that spikes trigger (AC; in the twin a multiply-accumulate, MAC, per step
  and synapse); encoder and head, whose inputs are real numbers in both; state updates where the
  line says so (per conjugate pair and step 4 MAC to decay it and 2 to read it out).
  Energy = 0.9 pJ x AC + 4.6 pJ x MAC, summed over the lines (45 nm).
  Not counted: memory traffic, normalisation and affine maps, activation functions, pooling,
  residual sums, potentials of neurons that reset, drawing the noise."""


def report(
    model: nn.Module,
    variables: Mapping[str, Any],
    task: Any,
    *,
    key: jax.Array,
    evaluation: Mapping[str, Mapping[str, float]],
    workdir: str | os.PathLike,
    history: Sequence[Mapping[str, float]],
) -> str:
    """Measure a trained model on up to 256 test examples; write report.json and pictures.

    Args:
      model: module of the zoo.
      variables: its parameters, and batch statistics where it has any.
      task: task with a `test` split (inputs, lengths, labels).
      key: PRNG key of the spikes; consumed.
      evaluation: {"sampled" | "mean_field" | "threshold": {"mean", "sem", "draws"}}, test
        accuracies in [0, 1] with their standard error over noise draws, and "sem_examples", over
        examples, where it is known.
      workdir: folder for report.json; learning_curve.png where there is a history; poles.png
        where there are state spaces; raster.png, probabilities.png and active_ratio.png where
        there are spikes.
      history: lines of metrics, see `plots.learning_curve`; may be empty.

    Returns:
      The final table as text.

    Raises:
      ValueError: the task has no test split.
    """
    if task.test is None:
        raise ValueError(f"task {task.name!r} has no test split to report on")
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    findings = measure(model, variables, task.test, key)
    with whole_file(workdir / "report.json") as partial:
        content = summary(findings, evaluation)
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    poles = models.poles(model, variables)
    if poles is not None:
        plots.save_figure(plots.poles(poles), workdir / "poles.png")
    for name, draw in _pictures(findings, history).items():
        plots.save_figure(draw(), workdir / name)
    return table(findings, evaluation)


def summary(
    findings: Findings, evaluation: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Gather what report.json holds.

    Args:
      findings: from `measure`.
      evaluation: test accuracies, see `report`.

    Returns:
      Nested dict of plain numbers, lists and strings; energies in picojoules per example. An
      infinite ratio is None.
    """
    content: dict[str, Any] = {
        "evaluation": {name: dict(values) for name, values in evaluation.items()},
        "examples": findings.examples,
        "activity": {
            site: {name: values.tolist() for name, values in shares._asdict().items()}
            for site, shares in findings.shares.items()
        },
    }
    if findings.operations is not None:
        operations = findings.operations
        content["operations"] = operations._asdict()
        content["energy"] = {
            name: {
                "spiking_picojoules": operations.spiking(state_updates=state_updates),
                "dense_picojoules": operations.dense(state_updates=state_updates),
                "ratio": _finite(operations.ratio(state_updates=state_updates)),
            }
            for name, state_updates in (
                ("without_state_updates", False), ("with_state_updates", True)
            )
        }
    return content


def table(findings: Findings, evaluation: Mapping[str, Mapping[str, float]]) -> str:
    """Lay out accuracies, activity and energy as text in aligned columns.

    Args:
      findings: from `measure`.
      evaluation: test accuracies, see `report`.

    Returns:
      Lines of at most 100 characters.
    """
    parts = ["Test accuracy", _columns(_accuracy_rows(evaluation))]
    if findings.operations is None:
        parts += ["", "The model has no spikes, so no activity and no energy to compare."]
        return "\n".join(parts)
    parts += ["", f"Activity on {findings.examples} test examples"]
    parts.append(_columns(_activity_rows(findings.shares)))
    parts += ["", f"Operations and energy per example (mean of {findings.examples})"]
    parts += [_columns(_energy_rows(findings.operations)), SCOPE]
    return "\n".join(parts)


def _accuracy_rows(evaluation: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    rows = [("", "mean", "s.e. of draws", "s.e. of examples", "draws")]
    for name, values in evaluation.items():
        percents = (
            f"{100 * values[part]:.2f} %" if part in values else "-"
            for part in ("mean", "sem", "sem_examples")
        )
        rows.append((EVALUATIONS.get(name, name), *percents, str(values["draws"])))
    return rows


def _activity_rows(shares: Mapping[str, activity.Activity]) -> list[tuple[str, ...]]:
    rows = [("layer, site", "firing rate", "mean p", "dead", "saturated", "surrogate > 0")]
    layers = max(len(values.firing_rate) for values in shares.values())
    for layer in range(layers):
        for site, values in shares.items():
            if layer < len(values.firing_rate):
                percents = (f"{100 * share[layer]:.2f} %" for share in values)
                rows.append((f"{layer + 1}, {site.replace('_', ' ')}", *percents))
    return rows


def _energy_rows(operations: energy.Energy) -> list[tuple[str, ...]]:
    rows = [("", "spiking", "dense twin", "dense / spiking")]
    counts = {
        "synaptic operations": (operations.synaptic_ops, "AC", operations.dense_macs),
        "encoder": (operations.encoder_macs, "MAC", operations.encoder_macs),
        "head": (operations.head_macs, "MAC", operations.head_macs),
        "state updates": (operations.state_macs, "MAC", operations.state_macs),
    }
    for name, (spiking, unit, dense) in counts.items():
        rows.append((name, f"{spiking:,.0f} {unit}", f"{dense:,.0f} MAC", ""))
    for state_updates in (False, True):
        spiking = operations.spiking(state_updates=state_updates)
        dense = operations.dense(state_updates=state_updates)
        rows.append((
            f"energy {'with' if state_updates else 'without'} state updates",
            f"{spiking / 1e3:,.1f} nJ", f"{dense / 1e3:,.1f} nJ",
            f"{operations.ratio(state_updates=state_updates):.2f}",
        ))
    return rows


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Align the first column left and the others right, indented by two spaces."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = (
        "  ".join(["", row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _pictures(
    findings: Findings, history: Sequence[Mapping[str, float]]
) -> dict[str, Callable[[], "Figure"]]:
    """Return what draws each picture, by file name."""
    captured, lengths = findings.captured, findings.lengths
    pictures = {}
    if history:
        pictures["learning_curve.png"] = lambda: plots.learning_curve(history)
    if captured:
        spikes = {site: fields["spike_array"] for site, fields in captured.items()}
        p = {site: fields["probability_array"] for site, fields in captured.items()}
        pictures["raster.png"] = lambda: plots.spike_raster(
            {site: array[:, 0, : lengths[0]] for site, array in spikes.items()}
        )
        pictures["probabilities.png"] = lambda: plots.probability_histogram(
            {site: activity.valid_values(array, lengths) for site, array in p.items()},
            bandwidth=BANDWIDTH,
        )
        pictures["active_ratio.png"] = lambda: plots.active_neurons(
            {site: activity.active_ratio(array, lengths) for site, array in spikes.items()}
        )
    return pictures


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
