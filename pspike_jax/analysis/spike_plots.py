"""Pictures of spikes: arrays that a model captured in, a Matplotlib figure out."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pspike_jax.analysis.activity import probability_density
from pspike_jax.analysis.canvas import (
    GREY, PALETTE, WIDTH, add_legend, grid, layer_colors, panels_of, words,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN = 1.75  # inches that a panel of a raster needs for its title
NEAR_ZERO = 0.05  # probabilities below it count as near zero
MAX_POINTS = 200  # of a line over time; longer ones are drawn as means of equal windows


def spike_raster(spikes: Mapping[str, np.ndarray], caption: str = "") -> "Figure":
    """Show which neurons fire when, for one example: a row of panels per layer.

    Args:
      spikes: {site: (layers, L, H)} in {0, 1}.
      caption: which example it is, its label and the model's answer; over all panels.

    Returns:
      Figure with a column per site; each panel is an image (H, L), dark where a neuron fires.
    """
    layers = max(len(array) for array in spikes.values())
    fig, axes = grid(layers, len(spikes), height=0.8 + 1.8 * layers, sharey=False)
    fig.set_figwidth(max(WIDTH, COLUMN * len(spikes)))
    if caption:
        fig.suptitle(caption, x=0.01, ha="left", fontsize=10)
    for column, (site, array) in enumerate(spikes.items()):
        for layer, image in enumerate(array):
            length, neurons = image.shape
            ax = axes[layer, column]
            # Long sequences have more steps than pixels: averaging shows density, not aliases.
            ax.imshow(image.T, cmap="Greys", vmin=0, vmax=1, aspect="auto", origin="lower",
                      interpolation="antialiased", extent=(0.5, length + 0.5, 0.5, neurons + 0.5))
            rate = 100 * np.mean(image, dtype=np.float64)
            ax.set_title(f"{words(site)}\nrate {rate:.1f} %", loc="left", fontsize=9)
            ax.set_yticks([1, neurons])
        axes[len(array) - 1, column].set_xlabel("time step")
        for ax in axes[len(array):, column]:
            ax.remove()
    for layer, ax in enumerate(axes[:, 0]):
        ax.set_ylabel(f"layer {layer + 1}\nneuron")
    return fig


def example_input(inputs: np.ndarray, caption: str = "") -> "Figure":
    """Show what a model reads, for one example.

    Args:
      inputs: (L,) tokens, or (L, F) numbers; up to six features are lines, more are an image.
      caption: which example it is, its label and the model's answer.

    Returns:
      Figure with one panel over time.
    """
    inputs = np.asarray(inputs)
    fig, axes = grid(1, 1, height=2.2, sharey=False)
    ax = axes[0, 0]
    steps = np.arange(1, len(inputs) + 1)
    if inputs.ndim == 1:
        ax.plot(steps, inputs, ".", color=PALETTE[0], markersize=3)
        ax.set_ylabel("token")
    elif inputs.shape[1] <= len(PALETTE):
        for feature, color in zip(inputs.T, PALETTE):
            ax.plot(steps, feature, color=color, linewidth=1.2)
        ax.set_ylabel("input" if inputs.shape[1] == 1 else f"{inputs.shape[1]} inputs")
    else:
        extent = (0.5, len(inputs) + 0.5, 0.5, inputs.shape[1] + 0.5)
        image = ax.imshow(inputs.T, cmap="Greys", aspect="auto", origin="lower", extent=extent,
                          interpolation="antialiased")
        ax.set_ylabel("input")
        ax.set_yticks([1, inputs.shape[1]])
        fig.colorbar(image, ax=ax)
    ax.set_xlim(0.5, len(inputs) + 0.5)
    ax.set_xlabel("time step")
    ax.set_title(caption, loc="left", fontsize=10)
    return fig


def layer_traces(
    spikes: np.ndarray, values: np.ndarray, site: str, membranes: bool = False
) -> "Figure":
    """Plot a neuron of each layer over time: its spikes over its probability, or its membrane.

    Args:
      spikes: (layers, L, H) in {0, 1}, of one example.
      values: (layers, L, H), probabilities in [0, 1], or membranes less thresholds.
      site: name of what fires.
      membranes: which of both.

    Returns:
      Figure with a row for each of the first four layers: the neuron that fires most often among
      those that fire less than half of the time, or the first.
    """
    spikes, values = np.asarray(spikes)[:4], np.asarray(values)[:4]
    layers, length, _ = spikes.shape
    fig, axes = grid(layers, 1, height=0.7 + 1.3 * layers, sharey=not membranes)
    steps = np.arange(1, length + 1)
    for layer, ax in enumerate(axes[:, 0]):
        rate = spikes[layer].mean(axis=0)
        neuron = int(np.argmax(np.where(rate < 0.5, rate, -1)))
        fired = steps[spikes[layer, :, neuron] > 0]
        line = values[layer, :, neuron]
        ax.plot(steps, line, color=PALETTE[0], linewidth=1.0)
        low, high = (min(0, line.min()), max(0, line.max())) if membranes else (0.0, 1.0)
        size = high - low or 1.0
        ax.vlines(fired, high + 0.08 * size, high + 0.25 * size, color="black", linewidth=0.8)
        ax.set_ylim(low - 0.03 * size, high + 0.3 * size)
        if membranes:
            ax.axhline(0, color=GREY, linewidth=0.8, linestyle="--")
            ax.set_yticks([0, high + 0.16 * size], ["threshold", "spikes"])
        else:
            ax.set_yticks([0, 0.5, 1, 1.16], ["0", "0.5", "1", "spikes"])
        ax.set_ylabel(f"layer {layer + 1}")
        ax.set_title(
            f"{words(site)}, neuron {neuron + 1}: {len(fired)} spikes",
            loc="left", fontsize=10,
        )
    axes[-1, 0].set_xlim(0.5, length + 0.5)
    axes[-1, 0].set_xlabel("time step")
    return fig


def probability_histogram(
    probabilities: Mapping[str, np.ndarray], *, bins: int = 50, bandwidth: float | None = None
) -> "Figure":
    """Plot how spike probabilities are distributed (Bal & Sengupta 2024, Fig. 4).

    Args:
      probabilities: {site: (layers, n)} in [0, 1], padding left out.
      bins: number of equal bins.
      bandwidth: of the exponential kernel whose density is drawn over the histogram; None for no
        density.

    Returns:
      Figure with a panel per site and a line per layer: the share of probabilities in each bin
      (%), on a logarithmic axis. A density f is drawn as the share 100 f / bins.
    """
    fig, panels = panels_of(
        len(probabilities), row_height=2.7, xlabel="spike probability",
        ylabel=f"share per bin of {1 / bins:g} (%)",
    )
    edges = np.linspace(0, 1, bins + 1)
    points = np.linspace(0, 1, 501)
    lowest = 100.0
    for ax, (site, values) in zip(panels, probabilities.items()):
        for layer, color in enumerate(layer_colors(len(values))):
            share = 100 * np.histogram(values[layer], edges)[0] / np.size(values[layer])
            lowest = min(lowest, share[share > 0].min())
            ax.stairs(share, edges, color=color, linewidth=1.6, baseline=None,
                      label=f"layer {layer + 1}")
            if bandwidth is not None:
                density = probability_density(values[layer], points, bandwidth)
                ax.plot(points, 100 * density / bins, color=color, linewidth=1, linestyle="--")
        near_zero = 100 * np.mean(np.asarray(values) < NEAR_ZERO)
        ax.set_title(f"{words(site)}: {near_zero:.0f} % below {NEAR_ZERO}", loc="left", fontsize=10)
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        ax.set_xlim(-0.01, 1.01)
    panels[0].set_ylim(lowest / 2, 200)  # a density's tail can be lower than any single count
    if bandwidth is not None:
        panels[0].plot([], [], color=GREY, linewidth=1, linestyle="--",
                       label="exponential-kernel density")
    add_legend(fig, panels)
    return fig


def active_neurons(ratio: Mapping[str, np.ndarray]) -> "Figure":
    """Plot the share of neurons that fire at each step (Bal & Sengupta 2024, Fig. 1c).

    Args:
      ratio: {site: (layers, L)} in [0, 1], see `activity.active_ratio`; NaN leaves a gap.

    Returns:
      Figure with a panel per site and a line per layer (%). Where L is over 200 a point is the
      mean of a window of steps, and the axis says so.
    """
    length = next(iter(ratio.values())).shape[1]
    window = -(-length // MAX_POINTS)
    points = length // window
    centers = (np.arange(points) + 0.5) * window + 0.5
    xlabel = f"time step (means of {window})" if window > 1 else "time step"
    fig, panels = panels_of(len(ratio), row_height=2.3, xlabel=xlabel, ylabel="active neurons (%)")
    for ax, (site, values) in zip(panels, ratio.items()):
        means = np.reshape(values[:, : points * window], (-1, points, window)).mean(axis=-1)
        for layer, color in enumerate(layer_colors(len(values))):
            ax.plot(centers, 100 * means[layer], color=color, linewidth=1.4,
                    label=f"layer {layer + 1}")
        ax.set_title(
            f"{words(site)}: mean {100 * np.nanmean(values):.1f} %",
            loc="left", fontsize=10,
        )
    panels[0].set_ylim(bottom=0)
    add_legend(fig, panels)
    return fig


def neuron_trace(spikes: np.ndarray, probability: np.ndarray) -> "Figure":
    """Plot the spikes of one neuron over its spike probability (Bal & Sengupta 2024, Fig. 1b).

    Args:
      spikes: (L,) in {0, 1}.
      probability: (L,) in [0, 1].

    Returns:
      Figure; spikes are ticks above the line of probabilities.
    """
    fig, axes = grid(1, 1, height=2.4, sharey=False)
    ax = axes[0, 0]
    steps = np.arange(1, len(spikes) + 1)
    fired = steps[np.asarray(spikes) > 0]
    ax.plot(steps, probability, color=PALETTE[0], linewidth=1.2)
    ax.vlines(fired, 1.08, 1.22, color="black", linewidth=1)
    ax.set_ylim(-0.03, 1.28)
    ax.set_yticks([0, 0.5, 1, 1.15], ["0", "0.5", "1", "spikes"])
    ax.set_xlim(0.5, len(steps) + 0.5)
    ax.set_xlabel("time step")
    ax.set_ylabel("spike probability")
    ax.set_title(f"One neuron: {len(fired)} spikes in {len(steps)} steps", loc="left", fontsize=10)
    return fig
