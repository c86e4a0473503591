"""Series of unequal length: padding, and scaling by what is not padding."""

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


def _valid(split: Split) -> np.ndarray:
    return np.arange(split.inputs.shape[1]) < split.lengths[:, None]
