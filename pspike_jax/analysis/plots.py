"""Pictures of training and answers: arrays in, a Matplotlib figure out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pspike_jax.analysis.canvas import (
    DPI, GREY, PALETTE, WIDTH, grid, number, panels_of, save_figure, words,
)
from pspike_jax.analysis.dynamics_plots import kernels, modes, poles
from pspike_jax.analysis.spike_plots import (
    active_neurons, example_input, layer_traces, neuron_trace, probability_histogram, spike_raster,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "DPI", "GREY", "PALETTE", "WIDTH", "accuracy_against_neurons", "active_neurons", "confusion",
    "example_input", "kernels", "layer_traces", "learning_curve", "modes", "neuron_trace", "poles",
    "predictions", "probability_histogram", "residuals", "save_figure", "spike_raster",
]
READABLE = 20  # classes whose names and counts can be read in a picture
LETTERS = 16  # of a name


def learning_curve(
    history: Sequence[Mapping[str, float]], merit: str = "accuracy"
) -> "Figure":
    """Plot loss, merit and firing rate against training steps.

    Args:
      history: lines of metrics in order of "step"; a line holds any of "train/loss",
        "validation/loss", the same of the merit, and "train/firing_rate".
      merit: the metric by which models are selected; accuracies are drawn in percent.

    Returns:
      Figure with a panel for loss, one for the merit where it is another, and one for the firing
      rate (%) where the history has one.
    """
    panels = [("loss", 1.0, "Cross-entropy (nats)" if merit == "accuracy" else "Loss")]
    if merit != "loss":
        panels.append((merit, *((100.0, "Accuracy (%)") if merit == "accuracy" else
                                (1.0, words(merit).capitalize()))))
    if any("train/firing_rate" in line for line in history):
        panels.append(("firing_rate", 100.0, "Firing rate (%)"))
    fig, axes = grid(1, len(panels), height=2.7, sharey=False)
    for ax, (metric, scale, title) in zip(axes[0], panels):
        for split, color, width in zip(("train", "validation"), PALETTE, (1.0, 1.8)):
            steps, values = _series(history, f"{split}/{metric}")
            if steps.size:
                ax.plot(steps, scale * values, color=color, linewidth=width, label=split)
        ax.set_title(title, loc="left", fontsize=10)
        ax.set_xlabel("training step")
        ax.locator_params(axis="x", nbins=4)  # numbers of five digits do not touch
        if metric == "firing_rate" or (metric == "loss" and merit == "accuracy"):
            ax.set_ylim(bottom=0)
        if len(ax.lines) > 1:
            ax.legend(frameon=False)
    return fig


def confusion(counts: np.ndarray, names: Sequence[str]) -> "Figure":
    """Show which class was taken for which.

    Args:
      counts: (K, K) integers, rows the true classes, columns the answers.
      names: (K,) of the classes.

    Returns:
      Figure: an image of each row's shares, with the counts written in where they can be read.
    """
    counts, size = np.asarray(counts), len(names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = np.arange(0, size, -(-size // READABLE))
    labels = [_short(str(names[i])) for i in shown]
    longest = max(map(len, labels))
    turned = 90 if longest > 2 else 0
    side, beside = 0.42 * min(size, READABLE), 0.08 * longest
    # A title and a bar of colours need some width, whatever the image is.
    fig, axes = grid(1, 1, height=1.4 + max(1.2, side) + (beside if turned else 0), sharey=False)
    fig.set_figwidth(min(WIDTH, 2.6 + max(1.2, side) + beside))
    ax = axes[0, 0]
    image = ax.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    if size <= READABLE:
        for row, column in np.ndindex(counts.shape):
            ax.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=8,
                    color="white" if share[row, column] > 0.5 else "black")
    ax.set_xticks(shown, labels, rotation=turned)
    ax.set_yticks(shown, labels)
    ax.set_xlabel("answer")
    ax.set_ylabel("true class")
    right = np.trace(counts) / max(1, counts.sum())
    ax.set_title(f"{100 * right:.1f} % of {counts.sum():,} right", loc="left", fontsize=10)
    fig.colorbar(image, ax=ax, label="share of\nthe class (%)")
    return fig


def predictions(targets: np.ndarray, found: np.ndarray) -> "Figure":
    """Plot predictions against targets, and the identity.

    Args:
      targets: (m, K) numbers.
      found: (m, K) predictions.

    Returns:
      Figure with a panel for each of the first four outputs; at most 5,000 points in each.
    """
    targets, found = np.asarray(targets), np.asarray(found)
    shown = slice(None, None, -(-len(targets) // 5000) or 1)
    fig, panels = panels_of(
        min(targets.shape[1], 4), row_height=2.9, xlabel="target", ylabel="prediction", shared=False
    )
    for output, ax in enumerate(panels):
        x, y = targets[shown, output], found[shown, output]
        ax.plot(x, y, ".", color=PALETTE[0], markersize=3, alpha=0.5)
        ends = np.array([np.nanmin(x), np.nanmax(x)])
        ax.plot(ends, ends, color=GREY, linewidth=0.8)
        error = np.sqrt(np.nanmean((targets[:, output] - found[:, output]) ** 2))
        ax.set_title(
            f"output {output + 1}: root mean square error {number(error)}",
            loc="left", fontsize=10,
        )
    return fig


def residuals(targets: np.ndarray, found: np.ndarray) -> "Figure":
    """Plot how errors are distributed, and whether they grow with the target.

    Args:
      targets: (m, K) numbers.
      found: (m, K) predictions.

    Returns:
      Figure with a row for each of the first three outputs: a histogram of prediction less
      target, and the same against the target; at most 5,000 points.
    """
    targets, found = np.asarray(targets), np.asarray(found)
    count = min(targets.shape[1], 3)
    fig, axes = grid(count, 2, height=0.6 + 2.0 * count, sharey=False, sharex=False)
    shown = slice(None, None, -(-len(targets) // 5000) or 1)
    for output, (left, right) in enumerate(axes):
        error = found[:, output] - targets[:, output]
        error, known = error[np.isfinite(error)], targets[:, output]
        left.hist(error, bins=min(50, max(10, len(error) // 10)), color=PALETTE[0])
        left.axvline(0, color=GREY, linewidth=0.8)
        left.set_title(
            f"output {output + 1}: mean {number(error.mean())}, "
            f"deviation {number(error.std())}", loc="left", fontsize=10,
        )
        left.set_ylabel("examples or steps")
        right.plot(known[shown], (found[:, output] - known)[shown], ".", color=PALETTE[0],
                   markersize=3, alpha=0.5)
        right.axhline(0, color=GREY, linewidth=0.8)
        right.set_ylabel("prediction - target")
    axes[-1, 0].set_xlabel("prediction - target")
    axes[-1, 1].set_xlabel("target")
    return fig


def accuracy_against_neurons(
    neurons: Sequence[int], accuracies: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> "Figure":
    """Plot accuracy against the neurons of a layer (Bal & Sengupta 2024, Fig. 3).

    Args:
      neurons: (K,) numbers of neurons.
      accuracies: {label: (mean (K,), standard error (K,))}, in [0, 1]; at most six labels.

    Returns:
      Figure with a line and error bars of one standard error per label (%).
    """
    if len(accuracies) > len(PALETTE):
        raise ValueError(f"{len(accuracies)} labels, expected at most {len(PALETTE)}")
    fig, axes = grid(1, 1, height=3.0, sharey=False)
    ax = axes[0, 0]
    for (label, (mean, sem)), color in zip(accuracies.items(), PALETTE):
        ax.errorbar(neurons, 100 * np.asarray(mean), yerr=100 * np.asarray(sem), label=label,
                    color=color, marker="o", markersize=4, linewidth=1.4, capsize=3)
    ax.set_xscale("log", base=2)
    ax.set_xticks(neurons, [str(number) for number in neurons])
    ax.minorticks_off()
    ax.set_xlabel("neurons per layer")
    ax.set_ylabel("accuracy (%)")
    ax.set_title("Accuracy against neurons; bars are standard errors", loc="left", fontsize=10)
    if len(accuracies) > 1:
        ax.legend(frameon=False)
    return fig


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "\u2026"


def _series(history: Sequence[Mapping[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps and the values of the lines that hold `name`."""
    found = [(line["step"], line[name]) for line in history if name in line]
    steps, values = np.array(found, np.float64).reshape(-1, 2).T
    return steps, values
