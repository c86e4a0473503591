"""NPSEM's game on a synthetic instrument: error against steps and width. A reconstruction.

  python -m experiments.instrument --steps 1000 4000 --widths 64 256

Prints the mean squared error of the averaged f on [-3, 3], over seeds, beside that of least squares
by a polynomial, which takes what is caused by neither for an effect, and that of f = 0.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.data.instrument import REACH, draw_instrument, truth, unit_features
from pspike_jax.training.minimax import draw_moments, fit_moments

GRID = np.linspace(-REACH, REACH, 101)
BATCH, STEP_SIZE, ALPHA, DEGREE = 16, 0.3, 0.01, 7


def game_error(steps: int, width: int, seed: int) -> float:
    """Return the error of the averaged f after so many steps on fresh examples.

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
    return float(np.mean((np.asarray(path.mean) - truth(GRID)) ** 2))


def biased_error(number: int, seed: int) -> float:
    """Return the error of least squares by a polynomial on as many examples."""
    drawn = draw_instrument(np.random.default_rng(seed), number)
    found = np.polyval(np.polyfit(drawn.x, drawn.y, DEGREE), GRID)
    return float(np.mean((found - truth(GRID)) ** 2))


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 4000])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args(arguments)
    print(f"f = 0: {np.mean(truth(GRID) ** 2):.3f}")
    for steps in given.steps:
        least = np.mean([biased_error(steps * BATCH, seed) for seed in range(given.seeds)])
        print(f"{steps} steps, least squares: {least:.3f}")
        for width in given.widths:
            errors = [game_error(steps, width, seed) for seed in range(given.seeds)]
            spread = np.std(errors)
            print(f"{steps} steps, width {width}: {np.mean(errors):.3f} (sd {spread:.3f})")


if __name__ == "__main__":
    main()
