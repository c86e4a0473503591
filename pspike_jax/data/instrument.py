"""A synthetic instrument: Y depends on X by a known function, and both on what nobody sees.

    X = Z + e + noise,   Y = g(X) + 2 e + noise,   g(x) = 1.5 sin x

Least squares of Y by X finds g(x) + 2 E[e | X = x]; the instrument Z moves X alone, so that
E[Y - g(X) | Z] = 0 tells g.
"""

from typing import NamedTuple

import numpy as np

from pspike_jax.data.batches import Task
from pspike_jax.data.split import Split
from pspike_jax.objectives import ConditionalMoment

AMPLITUDE, CONFOUNDING = 1.5, 2.0
SCALE = 0.5  # of the noise that belongs to X or Y alone
REACH = 3.0  # features tell numbers apart up to about this size


class Instrument(NamedTuple):
    """Examples of one draw.

    Attributes:
      x: (n,) what acts.
      y: (n,) what follows.
      z: (n,) the instrument.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


def truth(x: np.ndarray) -> np.ndarray:
    """Return g(x)."""
    return AMPLITUDE * np.sin(x)


def draw_instrument(rng: np.random.Generator, number: int) -> Instrument:
    """Draw examples.

    Args:
      rng: source of randomness.
      number: n.

    Returns:
      The examples, float64.
    """
    z = rng.uniform(-REACH, REACH, number)
    hidden, own_x, own_y = rng.normal(size=(3, number))
    x = z + hidden + SCALE * own_x
    y = truth(x) + CONFOUNDING * hidden + SCALE * own_y
    return Instrument(x, y, z)


def unit_features(x: np.ndarray) -> np.ndarray:
    """Return (..., 2) float32 of unit length, (x, c) / |(x, c)|, from which x can be told."""
    wide = np.stack([x, np.full_like(x, REACH)], axis=-1)
    return (wide / np.linalg.norm(wide, axis=-1, keepdims=True)).astype(np.float32)


def load_instrument(*, seed: int, num_train: int = 20_000, alpha: float = 0.01) -> Task:
    """Draw the instrument as a task: one step of features of X and of Z, targets Y.

    Args:
      seed: not negative.
      num_train: training examples; validation and test have a tenth of that.
      alpha: of the objective.

    Returns:
      Task of inputs (n, 1, 4) and targets (n,), whose objective is `ConditionalMoment`.
    """
    rng = np.random.default_rng(seed)

    def split(number):
        drawn = draw_instrument(rng, number)
        parts = [unit_features(part) for part in (drawn.x, drawn.z)]
        inputs = np.concatenate(parts, axis=-1)[:, None]
        return Split(inputs, np.ones(number, np.int32), drawn.y.astype(np.float32))

    few = max(1, num_train // 10)
    splits = [split(number) for number in (num_train, few, few)]
    return Task("instrument", *splits, ConditionalMoment(alpha))
