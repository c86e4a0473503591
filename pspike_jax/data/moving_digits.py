"""Films of handwritten digits that move and bounce off the walls, as Moving MNIST has them.

The digits are the 8 x 8 pictures that ship with scikit-learn, so nothing is downloaded: frames like
Moving MNIST's, not that set. Digits of test films occur in no training film.
"""

from typing import NamedTuple

import numpy as np

WHITE = 16  # largest pixel value
SHARES = (0.7, 0.1, 0.2)  # of the digits: training, validation, test


class Films(NamedTuple):
    """Films (n, T, H, W, 1) float32 in [0, 1]."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def load_moving_digits(
    *,
    seed: int,
    counts: tuple[int, int, int] = (1000, 100, 200),
    frames: int = 20,
    size: int = 24,
    digits: int = 2,
    speed: float = 1.0,
) -> Films:
    """Make films; equal arguments give equal films.

    Args:
      seed: of everything that is drawn, not negative.
      counts: films for training, validation and test.
      frames: T.
      size: H = W in pixels, 9 or more.
      digits: how many share a film; where they overlap the brighter pixel is seen.
      speed: pixels a frame, in a direction of each digit's own.

    Returns:
      The films.

    Raises:
      ImportError: no scikit-learn.
      ValueError: a size below 9, or counts that are not positive.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError("moving digits need scikit-learn: pip install scikit-learn") from error
    if size < 9 or frames < 1 or digits < 1 or min(counts) < 1:
        raise ValueError(f"got size {size}, {frames} frames, {digits} digits, counts {counts}")
    pictures = (datasets.load_digits().images / WHITE).astype(np.float32)
    rng = np.random.default_rng(seed)
    ends = np.cumsum([round(share * len(pictures)) for share in SHARES[:2]])
    parts = np.split(rng.permutation(len(pictures)), ends)
    films = []
    for part, count in zip(parts, counts, strict=True):
        chosen = part[rng.integers(len(part), size=(count, digits))]
        films.append(move(pictures[chosen], rng, frames, size, speed))
    return Films(*films)


def move(
    pictures: np.ndarray, rng: np.random.Generator, frames: int, size: int, speed: float
) -> np.ndarray:
    """Let pictures (n, D, h, w) move, each from its own place, in films (n, T, size, size, 1)."""
    count, each, height, width = pictures.shape
    room = size - np.array([height, width])
    start = rng.uniform(size=(count, each, 2)) * room
    angle = rng.uniform(0, 2 * np.pi, size=(count, each))
    velocity = speed * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    # A bounce is a reflection: unfolded, the way is straight.
    way = start[:, :, None] + velocity[:, :, None] * np.arange(frames)[:, None]
    way = np.abs((way + room) % (2 * room) - room)
    place = np.rint(way).astype(int)
    films = np.zeros((count, frames, size, size, 1), np.float32)
    for film in range(count):
        for digit in range(each):
            for t, (y, x) in enumerate(place[film, digit]):
                window = films[film, t, y : y + height, x : x + width, 0]
                np.maximum(window, pictures[film, digit], out=window)
    return films
