"""Pictures of training, spikes and dynamics: arrays in, a Matplotlib figure out.

The figures use Matplotlib's object interface, so nothing global changes and no display is
needed. Widths fit a README column. Layers are in order, so they take colours in order from
viridis; what has no order takes the palette of Okabe and Ito. Both survive colour blindness.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pspike_jax.analysis.activity import probability_density
from pspike_jax.analysis.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#6B6B6B"
WIDTH = 8.0  # inches
DPI = 150
MAX_POINTS = 200  # of a line over time; longer ones are drawn as means of equal windows


def save_figure(fig: "Figure", path: str | os.PathLike) -> None:
    """Write a figure as PNG; the file at `path` is whole or as it was before.

    Args:
      fig: figure.
      path: where to write; its folder must exist.
    """
    with whole_file(path) as partial:
        fig.savefig(partial, format="png", dpi=DPI)


def learning_curve(history: Sequence[Mapping[str, float]]) -> "Figure":
    """Plot loss, accuracy and firing rate against training steps.

    Args:
      history: lines of metrics in order of "step"; a line holds any of "train/loss",
        "train/accuracy", "validation/loss", "validation/accuracy", "train/firing_rate".

    Returns:
      Figure with a panel for loss, one for accuracy (%), and one for the firing rate (%) where
      the history has one.
    """
    panels = [("loss", 1.0, "Cross-entropy (nats)"), ("accuracy", 100.0, "Accuracy (%)")]
    if any("train/firing_rate" in line for line in history):
        panels.append(("firing_rate", 100.0, "Firing rate (%)"))
    fig, axes = _grid(1, len(panels), height=2.7, sharey=False)
    for ax, (metric, scale, title) in zip(axes[0], panels):
        for split, color, width in zip(("train", "validation"), PALETTE, (1.0, 1.8)):
            steps, values = _series(history, f"{split}/{metric}")
            if steps.size:
                ax.plot(steps, scale * values, color=color, linewidth=width, label=split)
        ax.set_title(title, loc="left")
        ax.set_xlabel("training step")
        if metric != "accuracy":
            ax.set_ylim(bottom=0)
        if len(ax.lines) > 1:
            ax.legend(frameon=False)
    return fig


def spike_raster(spikes: Mapping[str, np.ndarray]) -> "Figure":
    """Show which neurons fire when, for one example: a row of panels per layer.

    Args:
      spikes: {site: (layers, L, H)} in {0, 1}.

    Returns:
      Figure with a column per site; each panel is an image (H, L), dark where a neuron fires.
    """
    layers = max(len(array) for array in spikes.values())
    fig, axes = _grid(layers, len(spikes), height=0.5 + 1.7 * layers, sharey=False)
    for column, (site, array) in enumerate(spikes.items()):
        for layer, image in enumerate(array):
            length, neurons = image.shape
            ax = axes[layer, column]
            # Long sequences have more steps than pixels: averaging shows density, not aliases.
            ax.imshow(image.T, cmap="Greys", vmin=0, vmax=1, aspect="auto", origin="lower",
                      interpolation="antialiased", extent=(0.5, length + 0.5, 0.5, neurons + 0.5))
            rate = 100 * np.mean(image, dtype=np.float64)
            ax.set_title(f"{_name(site)}, rate {rate:.1f} %", loc="left", fontsize=9)
            ax.set_yticks([1, neurons])
        axes[len(array) - 1, column].set_xlabel("time step")
        for ax in axes[len(array):, column]:
            ax.remove()
    for layer, ax in enumerate(axes[:, 0]):
        ax.set_ylabel(f"layer {layer + 1}\nneuron")
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
    fig, panels = _panels(len(probabilities), row_height=2.7, xlabel="spike probability",
                          ylabel=f"share per bin of {1 / bins:g} (%)")
    edges = np.linspace(0, 1, bins + 1)
    grid = np.linspace(0, 1, 501)
    lowest = 100.0
    for ax, (site, values) in zip(panels, probabilities.items()):
        for layer, color in enumerate(_layer_colors(len(values))):
            share = 100 * np.histogram(values[layer], edges)[0] / np.size(values[layer])
            lowest = min(lowest, share[share > 0].min())
            ax.stairs(share, edges, color=color, linewidth=1.6, baseline=None,
                      label=f"layer {layer + 1}")
            if bandwidth is not None:
                density = probability_density(values[layer], grid, bandwidth)
                ax.plot(grid, 100 * density / bins, color=color, linewidth=1, linestyle="--")
        near_zero = 100 * np.mean(np.asarray(values) < 0.05)
        ax.set_title(f"{_name(site)}: {near_zero:.0f} % below 0.05", loc="left")
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        ax.set_xlim(-0.01, 1.01)
    panels[0].set_ylim(lowest / 2, 200)  # a density's tail can be lower than any single count
    if bandwidth is not None:
        panels[0].plot([], [], color=GREY, linewidth=1, linestyle="--",
                       label="exponential-kernel density")
    _add_legend(fig, panels)
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
    fig, panels = _panels(len(ratio), row_height=2.3, xlabel=xlabel, ylabel="active neurons (%)")
    for ax, (site, values) in zip(panels, ratio.items()):
        means = np.reshape(values[:, : points * window], (-1, points, window)).mean(axis=-1)
        for layer, color in enumerate(_layer_colors(len(values))):
            ax.plot(centers, 100 * means[layer], color=color, linewidth=1.4,
                    label=f"layer {layer + 1}")
        ax.set_title(f"{_name(site)}: mean {100 * np.nanmean(values):.1f} %", loc="left")
    panels[0].set_ylim(bottom=0)
    _add_legend(fig, panels)
    return fig


def neuron_trace(spikes: np.ndarray, probability: np.ndarray) -> "Figure":
    """Plot the spikes of one neuron over its spike probability (Bal & Sengupta 2024, Fig. 1b).

    Args:
      spikes: (L,) in {0, 1}.
      probability: (L,) in [0, 1].

    Returns:
      Figure; spikes are ticks above the line of probabilities.
    """
    fig, axes = _grid(1, 1, height=2.4, sharey=False)
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
    ax.set_title(f"One neuron: {len(fired)} spikes in {len(steps)} steps", loc="left")
    return fig


def poles(Lambda_bar: np.ndarray) -> "Figure":
    """Show the poles of the trained dynamics in the complex plane, with the unit circle.

    Args:
      Lambda_bar: (layers, H, N) complex; one of each conjugate pair, the other is its mirror.

    Returns:
      Figure with a panel per layer: the upper half plane, each pole coloured by its memory
      -1 / log |pole| in steps, the time in which its state decays by the factor e.
    """
    from matplotlib.colors import LogNorm

    Lambda_bar = np.asarray(Lambda_bar, np.complex128)
    memory = _memory(Lambda_bar)
    fig, panels = _panels(len(Lambda_bar), row_height=1.95, xlabel="real part",
                          ylabel="imaginary part")
    fig.set_layout_engine("compressed")
    angle = np.linspace(0, np.pi, 200)
    norm = LogNorm(memory.min(), max(memory.max(), 1.01 * memory.min()))
    reach = 1.08 * max(1.0, np.abs(Lambda_bar).max())  # neurons may be unstable
    for layer, (ax, pole) in enumerate(zip(panels, Lambda_bar.reshape(len(Lambda_bar), -1))):
        ax.plot(np.cos(angle), np.sin(angle), color=GREY, linewidth=0.8)
        drawn = ax.scatter(pole.real, np.abs(pole.imag), c=memory[layer].ravel(), norm=norm,
                           cmap="viridis", s=5, linewidths=0, rasterized=True)
        ax.set_aspect("equal")
        ax.set_xlim(-reach, reach)
        ax.set_ylim(-0.04, reach)
        ax.set_title(f"layer {layer + 1}: largest |pole| {np.abs(pole).max():.5f}", loc="left")
    fig.colorbar(drawn, ax=panels, label="memory (steps)")
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
    fig, axes = _grid(1, 1, height=3.0, sharey=False)
    ax = axes[0, 0]
    for (label, (mean, sem)), color in zip(accuracies.items(), PALETTE):
        ax.errorbar(neurons, 100 * np.asarray(mean), yerr=100 * np.asarray(sem), label=label,
                    color=color, marker="o", markersize=4, linewidth=1.4, capsize=3)
    ax.set_xscale("log", base=2)
    ax.set_xticks(neurons, [str(number) for number in neurons])
    ax.minorticks_off()
    ax.set_xlabel("neurons per layer")
    ax.set_ylabel("accuracy (%)")
    ax.set_title("Accuracy against neurons; bars are standard errors", loc="left")
    if len(accuracies) > 1:
        ax.legend(frameon=False)
    return fig


def _grid(rows: int, columns: int, *, height: float, sharey: bool) -> tuple["Figure", np.ndarray]:
    """Return a figure of README width and its (rows, columns) axes without a box around them."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = fig.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9)
        ax.title.set_fontsize(10)
    return fig, axes


def _panels(
    count: int, *, row_height: float, xlabel: str, ylabel: str
) -> tuple["Figure", list["Axes"]]:
    """Return a figure and its `count` axes, two in a row, with shared scales and outer labels."""
    columns = min(count, 2)
    rows = -(-count // columns)
    fig, axes = _grid(rows, columns, height=0.5 + row_height * rows, sharey=True)
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    for ax in axes.flat[count:]:
        ax.remove()
    for ax in axes.flat[count - columns : count]:
        ax.tick_params(labelbottom=True)
        ax.set_xlabel(xlabel)
    return fig, list(axes.flat[:count])


def _add_legend(fig: "Figure", panels: list["Axes"]) -> None:
    """Put one legend over all panels, which show the same layers."""
    handles, _ = panels[0].get_legend_handles_labels()
    fig.legend(handles=handles, loc="outside upper right", ncols=4, frameon=False)


def _layer_colors(layers: int) -> np.ndarray:
    """Return (layers, 4) colours; viridis without its yellow end, which is faint on white."""
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0.1, 0.8, layers))


def _series(history: Sequence[Mapping[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps and the values of the lines that hold `name`."""
    found = [(line["step"], line[name]) for line in history if name in line]
    steps, values = np.array(found, np.float64).reshape(-1, 2).T
    return steps, values


def _name(site: str) -> str:
    return site.replace("_", " ")


def _memory(poles: np.ndarray) -> np.ndarray:
    """Return -1 / log |pole|; bounded, so that poles at 0 and on the circle have a colour."""
    return -1 / np.log(np.clip(np.abs(poles), 1e-5, 1 - 1e-7))
