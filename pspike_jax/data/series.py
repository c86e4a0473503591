"""Series of unequal length: padding, scaling by what is not padding, and frames that are lost."""

import numpy as np

from pspike_jax.data.batches import Task
from pspike_jax.data.split import Split
from pspike_jax.objectives import Classification


def pad(series: list[np.ndarray], labels: np.ndarray, length: int) -> Split:
    """Put series (frames, channels) of unequal length into one array, zero behind each.

    Args:
      series: arrays with at most `length` frames.
      labels: (n,) integers.
      length: L.

    Returns:
      A split of inputs (n, L, channels) float32.
    """
    inputs = np.zeros((len(series), length, series[0].shape[1]), np.float32)
    for row, one in zip(inputs, series):
        row[: len(one)] = one
    lengths = np.asarray([len(one) for one in series], np.int32)
    return Split(inputs, lengths, labels)


def standardized_task(
    name: str, train: Split, validation: Split, test: Split, num_classes: int
) -> Task:
    """Scale each channel to mean 0 and variance 1 over the valid training frames.

    Args:
      name: of the task.
      train, validation, test: padded splits.
      num_classes: of the task.

    Returns:
      The task, its padding still zero.
    """
    frames = train.inputs[_valid(train)].astype(np.float64)
    mean, deviation = frames.mean(axis=0), frames.std(axis=0)

    def scale(split):
        inputs = np.where(_valid(split)[..., None], (split.inputs - mean) / deviation, 0)
        return split._replace(inputs=inputs.astype(np.float32))

    return Task(
        name=name,
        train=scale(train),
        validation=scale(validation),
        test=scale(test),
        objective=Classification(num_classes),
    )


SCALES = ("none", "standard", "log")


def scale_frames(series: list[np.ndarray], learnt: np.ndarray, scale: str) -> list[np.ndarray]:
    """Scale each channel to mean 0 and variance 1 over the frames of the training examples.

    Args:
      series: (frames, channels) of each example.
      learnt: rows of the training examples.
      scale: "standard"; "log", the same of sign(x) log(1 + |x|), for counts and amounts; or "none".

    Returns:
      As `series`; a channel that does not change in training is not divided.

    Raises:
      ValueError: an unknown scale.
    """
    if scale not in SCALES:
        raise ValueError(f"scale is {scale!r}, expected one of {', '.join(SCALES)}")
    if scale == "none":
        return series
    if scale == "log":
        series = [np.sign(one) * np.log1p(np.abs(one)) for one in series]
    frames = np.concatenate([np.float64(series[row]) for row in learnt])
    mean, deviation = frames.mean(axis=0), frames.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1)
    return [((one - mean) / deviation).astype(np.float32) for one in series]


def lose_frames(
    series: list[np.ndarray], keep: float, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Keep each frame with the same probability, and the time since the frame that was kept before.

    Args:
      series: (frames, channels) of each example.
      keep: probability, in (0, 1].
      seed: of the choice; not negative.

    Returns:
      series: what is left, of each example a frame at least.
      dt: (frames,) float32 of each example, 1 for neighbours and at the first.

    Raises:
      ValueError: a probability outside (0, 1].
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep is {keep}, expected a probability in (0, 1]")
    rng, kept, dt = np.random.default_rng(seed), [], []
    for one in series:
        chosen = rng.random(len(one)) < keep
        chosen[rng.integers(len(one))] |= not chosen.any()
        (places,) = np.nonzero(chosen)
        kept.append(one[places])
        dt.append(np.diff(places, prepend=places[0] - 1).astype(np.float32))
    return kept, dt


def _valid(split: Split) -> np.ndarray:
    return np.arange(split.inputs.shape[1]) < split.lengths[:, None]
