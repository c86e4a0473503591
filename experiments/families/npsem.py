"""NPSEM's game on a synthetic instrument: error against samples and width. A reconstruction.

The mean squared error of the averaged f on [-3, 3], over seeds, beside that of least squares by a
polynomial, which takes what is caused by neither for an effect, and that of f = 0.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.families import SEEDS, kept, mean_and_spread, table
from pspike_jax.analysis import plots
from pspike_jax.analysis.canvas import grid
from pspike_jax.data.instrument import REACH, draw_instrument, truth, unit_features
from pspike_jax.recipes.minimax import draw_moments, fit_moments

CAPTION = (
    "Left, error of f against samples: least squares stays where it is, the game's falls. Right, "
    "the effect, and what both say of it"
)
GRID = np.linspace(-REACH, REACH, 101)
STEPS, WIDTHS = (250, 1000, 4000, 16_000), (16, 64, 256)
BATCH, STEP_SIZE, ALPHA, DEGREE = 16, 0.3, 0.01, 7


def play(steps: int, width: int, seed: int) -> np.ndarray:
    """Return the averaged f on the grid after so many steps on fresh examples.

    Args:
      steps: T.
      width: m.
      seed: of examples and players.
    """
    drawn = draw_instrument(np.random.default_rng(seed), steps * BATCH)
    x, z = (unit_features(a).reshape(steps, BATCH, 2) for a in (drawn.x, drawn.z))
    y = drawn.y.reshape(steps, BATCH).astype(np.float32)
    players = draw_moments(jax.random.key(seed), width, 2, 2)
    grid = jnp.asarray(unit_features(GRID))
    path = fit_moments(players, x, y, z, grid, alpha=ALPHA, step_size=STEP_SIZE)
    return np.asarray(path.mean)


def least_squares(number: int, seed: int) -> np.ndarray:
    """Return a polynomial fitted to as many examples, on the grid."""
    drawn = draw_instrument(np.random.default_rng(seed), number)
    return np.polyval(np.polyfit(drawn.x, drawn.y, DEGREE), GRID)


def error(f: np.ndarray) -> float:
    """Return the mean squared error of f on the grid."""
    return float(np.mean((f - truth(GRID)) ** 2))


def runs(asked: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return a run for each number of steps."""
    steps, widths = ((8, 16), (4, 8)) if asked.smoke else (STEPS, WIDTHS)
    return {f"steps_{number}": functools.partial(one_number, number, widths) for number in steps}


def one_number(steps: int, widths: tuple[int, ...]) -> dict[str, Any]:
    """Return the errors after so many steps, and the last functions of the first seed."""
    biased = [least_squares(steps * BATCH, seed) for seed in SEEDS]
    games = {str(width): [play(steps, width, seed) for seed in SEEDS] for width in widths}
    return {
        "samples": steps * BATCH,
        "least_squares": [error(f) for f in biased],
        "game": {width: [error(f) for f in found] for width, found in games.items()},
        "zero": error(0 * GRID),
        "grid": kept(GRID),
        "functions": {
            "least squares": kept(biased[0]),
            f"the game, width {widths[-1]}": kept(games[str(widths[-1])][0]),
        },
    }


def page(rows: dict[str, Any]) -> str:
    """Write the errors by samples and width."""
    widths = [*next(iter(rows.values()))["game"]]
    lines = [
        (f"{row['samples']:,}", *(mean_and_spread(row["game"][width]) for width in widths),
         mean_and_spread(row["least_squares"]))
        for row in rows.values()
    ]
    zero = next(iter(rows.values()))["zero"]
    return (
        f"Mean squared error of f on [-3, 3], mean and standard deviation over {len(SEEDS)} seeds; "
        f"that of f = 0 is {zero:.3f}. A sample is used once: {BATCH} a step, step size "
        f"{STEP_SIZE}, alpha {ALPHA}, no projection, f the average over the iterates.\n\n"
        + table(
            ("samples", *(f"width {width}" for width in widths), "least squares, degree "
             f"{DEGREE}"), *lines,
        )
    )


def draw(rows: dict[str, Any]):
    """Draw errors against samples, and functions."""
    figure, axes = grid(1, 2, height=3.2, sharey=False, sharex=False)
    left, right = axes[0]
    samples = [row["samples"] for row in rows.values()]
    widths = [*next(iter(rows.values()))["game"]]
    for width, colour in zip(widths, plots.PALETTE):
        errors = np.array([row["game"][width] for row in rows.values()])
        left.errorbar(samples, errors.mean(1), errors.std(1), color=colour, marker="o",
                      markersize=4, label=f"width {width}")
    biased = np.array([row["least_squares"] for row in rows.values()])
    left.plot(samples, biased.mean(1), color=plots.GREY, linestyle="--", label="least squares")
    left.set(xscale="log", ylim=(0, None), xlabel="samples", ylabel="mean squared error of f")
    left.legend(frameon=False, fontsize=9)
    last = [*rows.values()][-1]
    right.plot(last["grid"], truth(np.array(last["grid"])), color="black", label="the effect of x")
    looks = (plots.GREY, "--"), (plots.PALETTE[len(widths) - 1], "-")
    for (name, values), (colour, style) in zip(last["functions"].items(), looks):
        right.plot(last["grid"], values, color=colour, linestyle=style, label=name)
    right.set(xlabel="x", ylabel="y")
    right.set_title(f"after {last['samples']:,} samples", loc="left", fontsize=10)
    right.legend(frameon=False, fontsize=9)
    return figure
