"""The figures of the P-SpikeSSM paper (arXiv 2406.02923), drawn from runs of the main job.

  python -m experiments.figures --figure=1b --output=spikes.png runs/listops
  python -m experiments.figures --figure=1c --output=active.png runs/listops
  python -m experiments.figures --figure=3 --output=neurons.png runs/sweep/*
  python -m experiments.figures --figure=4 --output=probabilities.png runs/listops
  python -m experiments.figures --figure=energy --output=energy.txt runs/listops

  1b      spikes and spike probability of one neuron over the steps of one test example
  1c      share of each layer's neurons that fire, step by step, on a batch of test examples
  3       test accuracy against neurons, over finished runs that differ in d_model and seed alone
  4       spike probabilities of each layer on that batch, with their exponential-kernel density
  energy  operations and energy beside the dense twin, with their formula, with and without the
          state updates that the paper's count leaves out; of a finished run

A run is the workdir of any config; the best checkpoint is read, and its test examples.
"""

import argparse
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from pspike_jax.analysis import activity, plots, report
from pspike_jax.analysis.files import atomic_write
from pspike_jax.analysis.measure import Findings, measure
from pspike_jax.command.files import read_json
from pspike_jax.command.outcome import load_best


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
      arguments: of the command; None takes those of this process.

    Returns:
      What they say.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.figures", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--figure", required=True, choices=["1b", "1c", "3", "4", "energy"])
    parser.add_argument(
        "--output", required=True, type=pathlib.Path, help=".png, or for energy .txt"
    )
    parser.add_argument("--site", help="1b: which spikes; by default those behind the SSM")
    parser.add_argument("--layer", type=int, default=1, help="1b: from 1")
    parser.add_argument(
        "--neuron", type=int, help="1b: from 0; by default the median of those that fire"
    )
    parser.add_argument("--example", type=int, default=0, help="1b: test example, from 0")
    parser.add_argument(
        "--bandwidth", type=float, default=report.BANDWIDTH, help="4: of the kernel"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the spikes' noise")
    parser.add_argument("runs", nargs="+", type=pathlib.Path, help="workdirs")
    return parser.parse_args(arguments)


def run_best(workdir: pathlib.Path, key: jax.Array) -> Findings:
    """Run the best checkpoint of a workdir on test examples.

    Args:
      workdir: of a run.
      key: of the spikes' noise; consumed.

    Returns:
      What the model did.

    Raises:
      ValueError: the model has no spikes.
    """
    experiment, result = load_best(workdir)
    findings = measure(experiment.model, result.variables, experiment.task.test, key)
    if not findings.captured:
        raise ValueError(f"{workdir}: the model has no spikes")
    return findings


def draw_neuron(
    findings: Findings, *, site: str | None, layer: int, neuron: int | None, example: int
):
    """Draw one neuron (Fig. 1b).

    Args:
      findings: of a run.
      site: a key of the captured aux; None for the last that is no second branch.
      layer: from 1.
      neuron: from 0; None for the median, by spikes in this example, of those that fire.
      example: from 0, of the captured batch.

    Returns:
      Figure.

    Raises:
      ValueError: a number or a name is out of range.
    """
    if site is None:
        site = [name for name in findings.captured if not name.endswith("_reverse")][-1]
    if site not in findings.captured:
        raise ValueError(f"site is {site!r}, expected one of {[*findings.captured]}")
    spikes = np.asarray(findings.captured[site]["spike_array"])
    p = np.asarray(findings.captured[site]["probability_array"])
    given = {"layer": layer - 1, "example": example, "neuron": neuron or 0}
    for (name, index), size in zip(given.items(), (*spikes.shape[:2], spikes.shape[3])):
        if not 0 <= index < size:
            raise ValueError(f"{name} {index + (name == 'layer')} is not there: there are {size}")
    if neuron is None:
        count = spikes[layer - 1, example, : findings.lengths[example]].sum(axis=0)
        firing = np.flatnonzero(count)
        order = firing[np.argsort(count[firing], kind="stable")]
        given["neuron"] = int(order[len(order) // 2]) if len(order) else 0
    trace = activity.neuron_trace(spikes, p, lengths=findings.lengths, **given)
    figure = plots.neuron_trace(*trace)
    figure.axes[0].set_title(
        f"Neuron {given['neuron']} of layer {layer}, {site.replace('_', ' ')}: "
        f"{int(trace[0].sum())} spikes in {len(trace[0])} steps", loc="left",
    )
    return figure


def gather_accuracies(
    runs: Sequence[Mapping[str, Any]],
) -> tuple[list[int], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Gather accuracy against neurons (Fig. 3).

    Args:
      runs: {"config": of the config file, "task": name, "evaluation": of evaluation.json} each.

    Returns:
      Numbers of neurons in rising order; {label: (mean, standard error)} over the seeds of each
      number, or of one run over noise draws and examples.

    Raises:
      ValueError: runs of one label differ in more than neurons and seed, or labels in neurons.
    """
    points: dict[str, dict[int, list[Mapping[str, float]]]] = {}
    budgets: dict[str, dict[str, Any]] = {}
    for run in runs:
        config = json.loads(json.dumps(run["config"]))
        config["training"].pop("seed")
        model = config["model"]
        size = model.pop("d_model") if "d_model" in model else model.pop("widths")[0]
        label = f"{run['task']}, {model['name']}"
        if budgets.setdefault(label, config) != config:
            raise ValueError(f"the runs of {label!r} differ in more than neurons and seed")
        points.setdefault(label, {}).setdefault(size, []).append(run["evaluation"]["sampled"])
    neurons = sorted(next(iter(points.values())))
    accuracies = {}
    for label, sizes in points.items():
        if sorted(sizes) != neurons:
            raise ValueError(f"{label!r} has {sorted(sizes)} neurons, others {neurons}")
        values = [over_seeds(sizes[size]) for size in neurons]
        accuracies[label] = tuple(np.array(values).T)
    return neurons, accuracies


def over_seeds(results: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Return the mean merit of evaluations, and its standard error over seeds.

    Of one, the error of noise draws and test examples.
    """
    means = [result["mean"] for result in results]
    if len(means) > 1:
        return statistics.fmean(means), statistics.stdev(means) / len(means) ** 0.5
    return means[0], float(np.hypot(results[0]["sem"], results[0]["sem_examples"]))


def draw(asked: argparse.Namespace) -> None:
    """Draw one figure and write it.

    Args:
      asked: from `parse`.

    Raises:
      FileNotFoundError: a folder is no run, or not a finished one where that is needed.
      ValueError: the runs, or the numbers asked for, do not fit the figure.
    """
    if asked.figure == "3":
        runs = []
        for workdir in asked.runs:
            described = read_json(workdir / "config.json")
            runs.append({
                "config": described["config"], "task": described["task"]["name"],
                "evaluation": read_json(workdir / "evaluation.json"),
            })
        plots.save_figure(plots.accuracy_against_neurons(*gather_accuracies(runs)), asked.output)
        return
    if len(asked.runs) != 1:
        raise ValueError(f"figure {asked.figure} is of one run, not of {len(asked.runs)}")
    findings = run_best(asked.runs[0], jax.random.key(asked.seed))
    if asked.figure == "energy":
        table = report.table(findings, read_json(asked.runs[0] / "evaluation.json"))
        print(table)
        atomic_write(asked.output, table + "\n")
        return
    captured, lengths = findings.captured, findings.lengths
    if asked.figure == "1b":
        drawn = draw_neuron(
            findings, site=asked.site, layer=asked.layer, neuron=asked.neuron,
            example=asked.example,
        )
    elif asked.figure == "1c":
        drawn = plots.active_neurons({
            site: activity.active_ratio(fields["spike_array"], lengths)
            for site, fields in captured.items()
        })
    else:
        values = {
            site: activity.valid_values(fields["probability_array"], lengths)
            for site, fields in captured.items()
        }
        drawn = plots.probability_histogram(values, bandwidth=asked.bandwidth)
    plots.save_figure(drawn, asked.output)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the figure that the command line names."""
    asked = parse(arguments)
    logging.set_verbosity(logging.WARNING)  # below that, Orbax tells of every file
    try:
        draw(asked)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{asked.output}: figure {asked.figure}")


if __name__ == "__main__":
    main()
