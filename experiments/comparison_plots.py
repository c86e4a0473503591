"""The pictures of the comparison: accuracy against energy, and against length of memory."""

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.comparison_statistics import Summary, summaries
from pspike_jax.analysis.canvas import GREY, PALETTE, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONT = 6.5  # points, of a label
LETTER, LINE = 0.58 * FONT, 1.2 * FONT  # points that a letter and a line take
DISTANCES, DIRECTIONS = (7, 13, 20, 28, 37, 47, 60, 75), 16
NO_MISTAKE = 0.25  # percent that stand for none on an axis of powers
NOT_REMEMBERED = 4  # steps that stand for a length of none: half of the shortest that is tried


def energy_figure(record: dict[str, Any], titles: dict[str, str], energy) -> "Figure":
    """Plot the accuracy of every model against its energy, a panel for each data set.

    Args:
      record: as `experiments.compare` makes it.
      titles: {data set: its name}, in their order.
      energy: function of a model's operations to nanojoules.

    Returns:
      Figure.
    """
    panels = {task: found for task in titles if (found := summaries(record, task))}
    fig, axes = _figure(len(panels))
    for ax, (task, found) in zip(axes, panels.items()):
        ax.set_xscale("log")
        places = {row: (energy(one.operations), _mistakes(one)) for row, one in found.items()}
        _scatter(ax, found, places)
        ax.set_title(titles[task], loc="left", fontsize=10)
    axes[-1].set_xlabel(
        "energy of an example (nJ), state updates included; blue dense, red spiking", fontsize=9
    )
    return fig


def memory_figure(
    record: dict[str, Any], memory: dict[str, Any], task: str, title: str
) -> "Figure":
    """Plot the accuracy of every model on one data set against what it remembers.

    Args:
      record: as `experiments.compare` makes it.
      memory: as `experiments.memory` makes it.
      task: data set of the record.
      title: its name.

    Returns:
      Figure.
    """
    found = {
        row: one for row, one in summaries(record, task).items() if memory_of(memory, row)
    }
    fig, (ax,) = _figure(1)
    ax.set_xscale("log", base=2)
    places = {row: (memory_of(memory, row), _mistakes(one)) for row, one in found.items()}
    _scatter(ax, found, places)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_title(title, loc="left", fontsize=10)
    ax.set_xlabel(
        "steps remembered, geometric mean of five tasks; blue dense, red spiking", fontsize=9
    )
    return fig


def memory_of(memory: dict[str, Any], row: str) -> float | None:
    """Return the geometric mean of the lengths that a model passed; None where tasks are missing.

    Args:
      memory: as `experiments.memory` makes it.
      row: of the comparison.
    """
    tasks = memory["models"].get(row, {"tasks": {}})["tasks"]
    if len(tasks) < len(memory["thresholds"]):
        return None
    lengths = [max(NOT_REMEMBERED, one["remembers"]) for one in tasks.values()]
    return float(np.exp2(np.mean(np.log2(lengths))))


def _figure(panels: int) -> tuple["Figure", list["Axes"]]:
    """Return a figure whose axes are where they stay, as labels are placed by them."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, 0.4 + 4.2 * panels))
    axes = list(fig.subplots(panels, 1, squeeze=False)[:, 0])
    height = fig.get_figheight()
    fig.subplots_adjust(
        left=0.08, right=0.985, top=1 - 0.35 / height, bottom=0.55 / height, hspace=0.2
    )
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    return fig, axes


def _mistakes(one: Summary) -> float:
    """Return the share of test examples that are taken for another class, in percent."""
    return max(100 * (1 - one.accuracy), NO_MISTAKE)


def _scatter(ax: "Axes", found: dict[str, Summary], places: dict[str, tuple[float, float]]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    for row, (x, y) in places.items():
        color = PALETTE[0 if found[row].firing_rate is None else 1]
        error = np.nan_to_num(100 * found[row].error)
        down = min(error, y - NO_MISTAKE / 2)
        ax.errorbar(
            x, y, yerr=([down], [error]), fmt="o", color=color, markersize=4, elinewidth=0.7
        )
    ax.set_yscale("log")
    ax.set_ylabel("test error (%), small ones on top", fontsize=9)
    if places:
        xs, ys = np.transpose(list(places.values()))
        ax.set_ylim(min(100.0, 1.3 * ys.max()), ys.min() / 1.4)
        ax.set_xlim(xs.min() / 1.5, xs.max() * 1.9)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
        label_points(ax, places)


def label_points(ax: "Axes", places: dict[str, tuple[float, float]]) -> None:
    """Write the name of each point beside it, where it covers neither point nor name.

    Args:
      ax: axes with their final limits and place.
      places: {name: (x, y)} in data.
    """
    scale = 72 / ax.figure.dpi
    points = scale * ax.transData.transform(list(places.values()))
    (left, bottom), (right, top) = scale * ax.get_window_extent().get_points()
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in points]
    for name, (x, y) in sorted(zip(places, points.tolist()), key=lambda one: -one[1][1]):
        width = LETTER * len(name)
        for distance in DISTANCES:
            boxes = []
            for angle in np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS:
                across, up = distance * np.cos(angle), distance * np.sin(angle)
                start = x + across - (width / 2) * (1 - np.cos(angle))
                boxes.append((start, y + up - LINE / 2, start + width, y + up + LINE / 2))
            inside = [b for b in boxes if b[0] > left and b[2] < right + 2 and b[3] < top + 4
                      and b[1] > bottom]
            free = [b for b in inside if not any(_overlap(b, other) for other in taken)]
            if free:
                break
        box = (free or inside or boxes)[0]
        taken.append(box)
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
        ax.annotate(
            name, places[name], (box[0] - x, box[1] - y), textcoords="offset points",
            fontsize=FONT, va="bottom", arrowprops=line if distance > DISTANCES[0] else None,
        )


def _overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
