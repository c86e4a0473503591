"""What all pictures share: sizes, colours, axes, and numbers as people read them.

The figures use Matplotlib's object interface, so nothing global changes and no display is
needed. Widths fit a README column. Layers are in order, so they take colours in order from
viridis; what has no order takes the palette of Okabe and Ito. Both survive colour blindness.
"""

import os
from typing import TYPE_CHECKING

import numpy as np

from pspike_jax.analysis.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#6B6B6B"
WIDTH = 8.0  # inches
DPI = 150


def save_figure(fig: "Figure", path: str | os.PathLike) -> None:
    """Write a figure as PNG; the file at `path` is whole or as it was before.

    Args:
      fig: figure.
      path: where to write; its folder must exist.
    """
    with atomic_path(path) as partial:
        fig.savefig(partial, format="png", dpi=DPI)


def number(value: float) -> str:
    """Write a number for people: three digits that count, thousands apart, no powers of ten."""
    if not np.isfinite(value) or value == 0:
        return f"{value:g}"
    digits = 2 - int(np.floor(np.log10(abs(value))))
    rounded = round(float(value), digits)
    return f"{rounded:,.{max(0, min(digits, 9))}f}"


def words(name: str) -> str:
    """Return a name of the code as words."""
    return name.replace("_", " ")


def grid(
    rows: int, columns: int, *, height: float, sharey: bool, sharex: bool = True
) -> tuple["Figure", np.ndarray]:
    """Return a figure of README width and its (rows, columns) axes without a box around them."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = fig.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9)
        ax.title.set_fontsize(10)
    return fig, axes


def panels_of(
    count: int, *, row_height: float, xlabel: str, ylabel: str, shared: bool = True
) -> tuple["Figure", list["Axes"]]:
    """Return a figure and its `count` axes, two in a row, with outer labels; scales as asked."""
    columns = min(count, 2)
    rows = -(-count // columns)
    fig, axes = grid(rows, columns, height=0.5 + row_height * rows, sharey=shared, sharex=shared)
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    for ax in axes.flat[count:]:
        ax.remove()
    for ax in axes.flat[count - columns : count]:
        ax.tick_params(labelbottom=True)
        ax.set_xlabel(xlabel)
    return fig, list(axes.flat[:count])


def add_legend(fig: "Figure", panels: list["Axes"]) -> None:
    """Put one legend over all panels, which show the same layers."""
    handles, _ = panels[0].get_legend_handles_labels()
    fig.legend(handles=handles, loc="outside upper right", ncols=4, frameon=False)


def layer_colors(layers: int) -> np.ndarray:
    """Return (layers, 4) colours; viridis without its yellow end, which is faint on white."""
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0.1, 0.8, layers))
