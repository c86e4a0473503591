"""Pictures of trained dynamics: poles, before and after, single modes, and whole layers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pspike_jax.analysis.canvas import (
    GREY, PALETTE, grid, layer_colors, number, panels_of, words,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST, MOST = 1e-5, 1 - 1e-7  # of |pole|, so that poles at 0 and on the circle have a memory
QUANTILES = {"shortest": 0.05, "median": 0.5, "longest": 0.95}
STEPS = 512  # of a response, at most


def poles(Lambda_bar: np.ndarray, initial: np.ndarray | None = None) -> "Figure":
    """Show the poles of the trained dynamics in the complex plane, with the unit circle.

    Args:
      Lambda_bar: (layers, H, N) complex; one of each conjugate pair, the other is its mirror.
      initial: the same before training, drawn as grey crosses; None for none.

    Returns:
      Figure with a panel per layer: the upper half plane, each pole coloured by its memory
      -1 / log |pole| in steps, the time in which its state decays by the factor e.
    """
    from matplotlib.colors import LogNorm

    Lambda_bar = np.asarray(Lambda_bar, np.complex128)
    memory = memories(Lambda_bar)
    fig, panels = panels_of(
        len(Lambda_bar), row_height=1.95, xlabel="real part", ylabel="imaginary part"
    )
    fig.set_layout_engine("compressed")
    angle = np.linspace(0, np.pi, 200)
    norm = LogNorm(memory.min(), max(memory.max(), 1.01 * memory.min()))
    reach = 1.08 * max(1.0, np.abs(Lambda_bar).max())  # neurons may be unstable
    for layer, (ax, pole) in enumerate(zip(panels, Lambda_bar.reshape(len(Lambda_bar), -1))):
        ax.plot(np.cos(angle), np.sin(angle), color=GREY, linewidth=0.8)
        if initial is not None:
            before = np.ravel(initial[layer])
            ax.plot(before.real, np.abs(before.imag), "x", color=GREY, markersize=3,
                    markeredgewidth=0.5, zorder=1, rasterized=True)
        drawn = ax.scatter(pole.real, np.abs(pole.imag), c=memory[layer].ravel(), norm=norm,
                           cmap="viridis", s=5, linewidths=0, rasterized=True)
        ax.set_aspect("equal")
        ax.set_xlim(-reach, reach)
        ax.set_ylim(-0.04, reach)
        ax.set_title(
            f"layer {layer + 1}: largest |pole| {np.abs(pole).max():.5f}",
            loc="left", fontsize=10,
        )
    fig.colorbar(drawn, ax=panels, label="memory (steps)")
    return fig


def modes(Lambda_bar: np.ndarray, initial: np.ndarray | None = None) -> "Figure":
    """Show kernels of single modes in time and in frequency: Re(pole^k), |1 / (1 - pole e^-iw)|.

    Args:
      Lambda_bar: (layers, H, N) complex, as of `poles`.
      initial: the same before training, drawn dashed; None for none.

    Returns:
      Figure with a row per layer and a line for a mode of short, median and long memory: of 5, 50
      and 95 % of the layer's modes the memory is shorter. Left, what an impulse leaves after k
      steps; right, how strongly each frequency passes, in cycles a step, the strongest being 1.
    """
    Lambda_bar = np.asarray(Lambda_bar, np.complex128)
    layers = len(Lambda_bar)
    fig, axes = grid(layers, 2, height=0.7 + 1.7 * layers, sharey=False, sharex=False)
    frequency = np.linspace(0, 0.5, 257)
    for row, (time, passed) in enumerate(axes):
        chosen = _quantile_modes(Lambda_bar[row])
        before = {} if initial is None else _quantile_modes(np.asarray(initial[row]))
        steps = np.arange(int(min(STEPS, max(8, 6 * float(memories(chosen["median"]))))))
        for style, found in (("--", before), ("-", chosen)):
            for depth, (color, (name, pole)) in enumerate(zip(PALETTE, found.items())):
                label = f"{name}: {number(float(memories(pole)))} steps" if style == "-" else None
                look = {"color": color, "linestyle": style, "linewidth": 1.3 if label else 0.8,
                        "zorder": 3 - depth}  # long memories below short ones
                time.plot(steps, (pole**steps).real, label=label, **look)
                response = np.abs(1 / (1 - pole * np.exp(-2j * np.pi * frequency) + 1e-12))
                passed.plot(frequency, response / response.max(), **look)
        time.set_ylabel(f"layer {row + 1}")
        time.legend(fontsize=8, loc="upper right")
        passed.set_ylim(0, 1.05)
    axes[0, 0].set_title("after an impulse", loc="left", fontsize=10)
    axes[0, 1].set_title("strength of each frequency", loc="left", fontsize=10)
    axes[-1, 0].set_xlabel("time step")
    axes[-1, 1].set_xlabel("cycles a step")
    return fig


def kernels(found: Mapping[str, Mapping[str, np.ndarray]]) -> "Figure":
    """Show kernels of whole layers in time and in frequency.

    Args:
      found: {part of a layer: {"response": (layers, P, W, H), what an impulse of each of P
        features leaves in W steps at H outputs; "start": (layers,), its step}}.

    Returns:
      Figure with a row for a part of a layer, of the first six. Left, a line for each feature at
      the output that it reaches most; right, how strongly each frequency passes to all outputs, in
      cycles a step, and thick the root of the mean square over features.
    """
    rows = [
        (words(part), layer, np.asarray(response, np.float64), int(start))
        for part, one in found.items()
        for layer, (response, start) in enumerate(zip(one["response"], one["start"]))
    ]
    rows = sorted(rows, key=lambda row: row[1])[:6]
    fig, axes = grid(len(rows), 2, height=0.7 + 1.7 * len(rows), sharey=False, sharex=False)
    for (time, passed), (part, layer, response, start) in zip(axes, rows):
        lags = np.arange(response.shape[1]) - start
        most = np.square(response).sum(axis=1).argmax(axis=-1)
        size = max(STEPS, len(lags))  # zeros behind a short window make its spectrum smooth
        strength = np.linalg.norm(np.fft.rfft(response, size, axis=1), axis=-1)
        frequency = np.fft.rfftfreq(size)
        for feature, color in enumerate(layer_colors(len(response))):
            time.plot(lags, response[feature, :, most[feature]], color=color, linewidth=0.9)
            passed.plot(frequency, strength[feature], color=color, linewidth=0.6)
        together = np.sqrt(np.mean(np.square(strength), axis=0))
        passed.plot(frequency, together, color="black", linewidth=1.8)
        time.set_ylabel(f"layer {layer + 1}\n{part}")
        passed.set_ylim(bottom=0)
    axes[0, 0].set_title("after an impulse", loc="left", fontsize=10)
    axes[0, 1].set_title("strength of each frequency", loc="left", fontsize=10)
    axes[-1, 0].set_xlabel("time step since the impulse")
    axes[-1, 1].set_xlabel("cycles a step")
    return fig


def memories(pole: np.ndarray) -> np.ndarray:
    """Return -1 / log |pole|, bounded."""
    return -1 / np.log(np.clip(np.abs(pole), LEAST, MOST))


def _quantile_modes(pole: np.ndarray) -> dict[str, complex]:
    """Return modes of a layer by the length of their memory."""
    ordered = np.ravel(pole)[np.argsort(np.abs(np.ravel(pole)))]
    return {name: complex(ordered[int(q * (len(ordered) - 1))]) for name, q in QUANTILES.items()}
