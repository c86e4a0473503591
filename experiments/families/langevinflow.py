"""LangevinFlow on Lorenz spikes, its control without Langevin dynamics, and a spiking encoder.

Rates of held-out trials against the rates that made the spikes, and bits per spike against mean
rates; beside them counts smoothed by a Gaussian of the best width. One setting for all, that of
`configs/langevinflow_lorenz.py`, smaller.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.configs import langevinflow_lorenz
from experiments.families import SEEDS, kept, mean_and_spread, of_name, table, tested
from experiments.sweep import train_once
from pspike_jax.analysis import plots
from pspike_jax.analysis.canvas import grid
from pspike_jax.command.experiment import Experiment
from pspike_jax.data.lorenz import LorenzSettings, lorenz_spikes, rates_explained
from pspike_jax.training import FitResult, predict

CAPTION = (
    "Spikes of three neurons in one held-out trial, the rates that made them, and the rates that "
    "each model tells from all neurons' spikes"
)
VARIANTS = {
    "langevin": (None, "GRU and Langevin dynamics"), "control": ("control", "GRU alone"),
    "spiking": ("spiking", "SiLIF encoder and Langevin dynamics"),
    "early": ("control", "GRU alone, a quarter of the updates"),
}
SIZES = {  # of a small run
    "task": {"conditions": 32}, "model": {"feedforward": 128, "kl_ramp": 1600},
    "training": {
        "steps": 1600, "batch_size": 32, "log_every": 20, "eval_every": 160,
        "checkpoint_every": 1600,
    },
}
SHOWN = (0, 1, 2)  # neurons of the picture, and the first test trial
WIDTHS = (1, 2, 3, 4, 6, 8)  # bins, of the Gaussian


def runs(asked: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return smoothing, and a run for each variant and seed."""
    trained = {
        f"{name}_{seed}": functools.partial(
            train_once, make_config(name, seed, asked.smoke),
            asked.workdir / "langevinflow" / f"{name}_{seed}", measure,
        )
        for seed in SEEDS for name in VARIANTS
    }
    return {"trial": functools.partial(trial, make_config("langevin", 0, asked.smoke))} | trained


def make_config(name: str, seed: int, smoke: bool) -> dict[str, Any]:
    """Return the config of a run."""
    config = langevinflow_lorenz.get_config("smoke" if smoke else VARIANTS[name][0])
    if not smoke:
        for section, fields in SIZES.items():
            config[section].update(fields)
    if name == "early" and not smoke:  # before it begins to give its inputs back
        steps = config.training.steps // 4
        config.training.update(steps=steps, eval_every=steps // 10, checkpoint_every=steps)
        config.model.kl_ramp = steps
    config.training.seed = seed
    return config.to_dict()


def held_out(task: dict[str, Any]) -> Any:
    """Return the test trials of a config's task, with their rates."""
    return lorenz_spikes(LorenzSettings(**{k: v for k, v in task.items() if k != "name"}))["test"]


def trial(config: dict[str, Any]) -> dict[str, Any]:
    """Return a trial to be drawn, and how much of the rates smoothed counts explain."""
    from scipy.ndimage import gaussian_filter1d

    test = held_out(config["task"])
    smoothed = {
        width: rates_explained(gaussian_filter1d(np.float64(test.counts), width, axis=1),
                               test.rates)["r2"]
        for width in WIDTHS
    }
    width = max(smoothed, key=smoothed.get)
    return {
        "config": config, "width": width, "r2": smoothed[width],
        "counts": test.counts[0][:, SHOWN].T.tolist(), "rates": kept(test.rates[0][:, SHOWN].T),
    }


def measure(experiment: Experiment, trained: FitResult) -> dict[str, Any]:
    """Return what the test split says, and the rates of the trial that is drawn."""
    objective, task = experiment.task.objective, experiment.task
    test = held_out({
        "seed": 0, "conditions": len(task.test.inputs) // LorenzSettings().test_trials,
        "bins": task.test.inputs.shape[1], "neurons": objective.num_outputs,
    })
    rates = np.exp(predict(
        experiment.model, trained.variables, task.test.inputs, lengths=task.test.lengths,
        key=jax.random.key(experiment.evaluation.seed), draws=experiment.evaluation.draws,
    ))
    return tested(experiment, trained) | rates_explained(rates, test.rates) | {
        "draws": experiment.evaluation.draws, "told": kept(rates[0][:, SHOWN].T)
    }


def page(rows: dict[str, Any]) -> str:
    """Write R^2 and bits per spike."""
    lines = []
    for name, (_, words) in VARIANTS.items():
        found = of_name(rows, name)
        if not found:
            continue
        rates = [rate for row in found for rate in row["firing_rates"].values()]
        lines.append((
            words, f"{found[0]['parameters']:,}",
            *(mean_and_spread([row[key] for row in found])
              for key in ("r2", "r2_swapped", "bits_per_spike")),
            f"{100 * np.mean(rates):.1f} %" if rates else "nothing spikes",
        ))
    first = rows["langevin_0"]
    config, smoothed = first["config"], rows["trial"]
    return (
        f"{config['task']['conditions']} conditions, {config['task']['neurons']} neurons, "
        f"{config['task']['bins']} bins; {config['training']['steps']} steps of "
        f"{config['training']['batch_size']} trials, coordinated dropout, the best step by "
        f"validation; mean and standard deviation over {len(of_name(rows, 'control'))} seeds of "
        "training on one data set. R² is of the true rates of held-out trials, log rates averaged "
        f"over {first['draws']} draws; swapped, with rates and truth exchanged, as the program "
        "prints it; bits per spike are of one draw:\n\n"
        + table(
            ("model", "parameters", "R²", "R² swapped", "bits per spike", "encoder's firing rate"),
            *lines,
            (f"counts smoothed over {smoothed['width']} bins", "", f"{smoothed['r2']:.3f}", "", "",
             ""),
        )
    )


def draw(rows: dict[str, Any]):
    """Draw spikes and rates of three neurons, by model."""
    figure, axes = grid(len(SHOWN), 1, height=5.0, sharey=False)
    trial = rows["trial"]
    for number, axis in enumerate(axes[:, 0]):
        true = trial["rates"][number]
        bins = np.arange(len(true))
        axis.plot(bins, true, color="black", linewidth=2, label="true rate")
        top = max(true)
        for (name, (_, words)), colour in zip(VARIANTS.items(), plots.PALETTE):
            for row in of_name(rows, name)[:1]:
                told = row["told"][number]
                axis.plot(bins, told, color=colour, linewidth=1.2, label=words)
                top = max(top, *told)
        counts = np.array(trial["counts"][number])
        for count in range(1, counts.max(initial=0) + 1):
            when = np.flatnonzero(counts >= count)
            axis.plot(when, np.full(len(when), top * (1.05 + 0.09 * count)), "|", color=plots.GREY,
                      markersize=7)
        axis.set_ylabel(f"neuron {SHOWN[number] + 1}\nspikes a bin")
    axes[-1, 0].set_xlabel("bin")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure
