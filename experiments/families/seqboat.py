"""SeqBoat on ListOps of at most 200 tokens: what its router attends to, and what that earns.

The model of `configs/seqboat_listops.py`, smaller and on fewer steps, against
the same with attention at every step, and at none.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.configs import seqboat_listops
from experiments.families import SEEDS, kept, mean_and_spread, of_name, table, tested
from experiments.sweep import train_once
from pspike_jax.analysis import plots
from pspike_jax.command.experiment import Experiment
from pspike_jax.data.listops import OPERATORS, VOCABULARY
from pspike_jax.training import FitResult

CAPTION = (
    "Above, an expression, and the steps at which each layer attends. Below, accuracy against the "
    "share of steps that attend, and which kinds of tokens they are"
)
ATTEND = ("learnt", "always", "never")
SIZES = {  # of a small run
    "task": {"num_train": 12_000, "num_validation": 500, "num_test": 2000},
    "model": {"d_model": 24, "d_qk": 12, "n_layers": 2, "d_state": 4, "window": 8},
    "training": {
        "steps": 700, "batch_size": 16, "log_every": 50, "eval_every": 350, "checkpoint_every": 700,
    },
    "optimizer": {"warmup_steps": 70},
}
KINDS = {"operator": OPERATORS, "digit": tuple("0123456789"), "closing bracket": ("]",)}


def runs(asked: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return a run for each way to attend and seed."""
    return {
        f"{attend}_{seed}": functools.partial(
            train_once, make_config(attend, seed, asked.smoke),
            asked.workdir / "seqboat" / f"{attend}_{seed}", measure,
        )
        for seed in SEEDS for attend in ATTEND
    }


def make_config(attend: str, seed: int, smoke: bool) -> dict[str, Any]:
    """Return the config of a run."""
    config = seqboat_listops.get_config("smoke" if smoke else None)
    if not smoke:
        for section, fields in SIZES.items():
            config[section].update(fields)
    config.model.attend = attend
    config.training.seed = seed
    return config.to_dict()


def measure(experiment: Experiment, trained: FitResult) -> dict[str, Any]:
    """Return what the test split says; where the router learns, of an expression, too."""
    found = tested(experiment, trained)
    if experiment.model.config.attend != "learnt":
        return found
    split = experiment.task.test
    shortest = np.argsort(split.lengths, kind="stable")[:256]
    tokens, lengths = split.inputs[shortest], split.lengths[shortest]
    aux = experiment.model.apply(trained.variables, tokens, lengths, capture=True)[1]
    active = np.asarray(aux["sites"]["router"]["spike_array"])[..., 0]  # (layers, B, L)
    kinds = {
        kind: np.isin(tokens, [VOCABULARY.index(one) for one in members])
        for kind, members in KINDS.items()
    }
    expression = tokens[0, : lengths[0]]
    return found | {
        "shares": {kind: kept(active[:, chosen].mean(axis=1)) for kind, chosen in kinds.items()},
        "expression": [VOCABULARY[one] for one in expression],
        "active": active[:, 0, : lengths[0]].astype(int).tolist(),
    }


def page(rows: dict[str, Any]) -> str:
    """Write accuracy and active share."""
    lines = []
    for attend in ATTEND:
        found = of_name(rows, attend)
        if not found:
            continue
        layers = zip(*(row["firing_rates"]["router"] for row in found))
        lines.append((
            attend, mean_and_spread([row["accuracy"] for row in found], ".1f", 100),
            *(mean_and_spread(layer, ".1f", 100) for layer in layers),
        ))
    first = rows[f"{ATTEND[0]}_0"]
    config, depth = first["config"], len(first["firing_rates"]["router"])
    model, training = config["model"], config["training"]
    return (
        f"ListOps of {config['task']['min_length']} to {config['task']['max_length']} tokens, "
        f"{config['task']['num_train']:,} expressions; {depth} layers of {model['d_model']} "
        f"features, {model['d_state']} averages each, window {model['window']}, "
        f"{first['parameters']:,} parameters; {training['steps']:,} steps of "
        f"{training['batch_size']} examples. Test accuracy and share of steps that attend, %, mean "
        f"and standard deviation over {len(of_name(rows, ATTEND[0]))} seeds:\n\n"
        + table(
            ("attention", "accuracy", *(f"active, layer {i + 1}" for i in range(depth))), *lines
        )
    )


def draw(rows: dict[str, Any]):
    """Draw an expression with its active steps, accuracies, and shares by kind of token."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(plots.WIDTH, 5.0), layout="constrained")
    axes = figure.subplot_mosaic([["expression"] * 2, ["accuracy", "kinds"]],
                                 height_ratios=(1, 2.4))
    row = rows["learnt_0"]
    axis, active = axes["expression"], np.array(row["active"])
    axis.imshow(active, cmap="Blues", vmin=0, vmax=1.3, aspect="auto", interpolation="nearest")
    axis.set_xticks(range(len(row["expression"])), row["expression"], rotation=90, fontsize=6.5)
    axis.set_yticks(range(len(active)), [f"layer {i + 1}" for i in range(len(active))])
    axis.tick_params(length=0)
    for attend, colour, mark in zip(ATTEND, plots.PALETTE, "osD"):
        found = of_name(rows, attend)
        share = [100 * np.mean(one["firing_rates"]["router"]) for one in found]
        axes["accuracy"].plot(share, [100 * one["accuracy"] for one in found], mark, color=colour,
                              label=attend, alpha=0.8)
    axes["accuracy"].set(xlabel="steps that attend, all layers (%)", ylabel="test accuracy (%)")
    axes["accuracy"].legend(frameon=False, fontsize=9)
    learnt = of_name(rows, "learnt")
    for layer, colour in zip(range(len(active)), plots.PALETTE[3:]):
        shares = [[100 * one["shares"][kind][layer] for kind in KINDS] for one in learnt]
        places = np.arange(len(KINDS)) + 0.35 * layer
        axes["kinds"].bar(places, np.mean(shares, axis=0), 0.33, yerr=np.std(shares, axis=0),
                          color=colour, label=f"layer {layer + 1}")
    axes["kinds"].set_xticks(np.arange(len(KINDS)) + 0.17, KINDS)
    axes["kinds"].set(ylabel="steps that attend (%)", ylim=(0, 1.3 * axes["kinds"].get_ylim()[1]))
    axes["kinds"].legend(frameon=False, fontsize=9)
    for name in ("accuracy", "kinds"):
        axes[name].spines[["top", "right"]].set_visible(False)
    return figure
