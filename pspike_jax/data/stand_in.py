"""Stand-ins: small synthetic sets with the shapes of the real ones, for trying a config offline.

Nothing can be learnt from the score on a stand-in, and its name says so. Real inputs are noise
around a sine whose frequency tells the class; tokens are drawn from a distribution that leans
towards those of the class.
"""

import zlib

import numpy as np

from pspike_jax.data.batches import Task
from pspike_jax.data.split import Split
from pspike_jax.objectives import Classification

# Features of real inputs (None for tokens), classes, tokens (None for real inputs).
SHAPES = {
    "listops": (None, 10, 18),
    "pathfinder32": (1, 2, None),
    "pathfinder64": (1, 2, None),
    "pathfinder128": (1, 2, None),
    "smnist": (1, 10, None),
    "psmnist": (1, 10, None),
    "image": (1, 10, None),
    "text": (None, 2, 135),
    "retrieval": (None, 2, 98),
    "sc10": (1, 10, None),
    "sc35": (1, 35, None),
    "gsc": (40, 35, None),
    "shd": (140, 20, None),
    "ssc": (140, 35, None),
    "shd_events": (None, 20, 700),
}
_PAIRS = ("retrieval",)
_EVENTS = ("shd_events",)  # with the time since the event before, 1 in the mean


def load_stand_in(*, dataset: str, length: int, num_train: int, seed: int) -> Task:
    """Draw a stand-in for a data set.

    Args:
      dataset: the set whose shapes it takes, a key of SHAPES.
      length: L, at least 4; the real length is not kept.
      num_train: examples for training; a quarter of that for validation and for test each.
      seed: not negative.

    Returns:
      The task, named as a stand-in.
    """
    if dataset not in SHAPES or length < 4 or num_train < 4:
        raise ValueError(
            f"dataset is {dataset!r}, length {length} and num_train {num_train}, expected one of "
            f"{', '.join(SHAPES)}, and at least 4 each"
        )
    features, num_classes, vocab_size = SHAPES[dataset]
    rng = np.random.default_rng([seed, zlib.crc32(dataset.encode())])

    def split(count):
        labels = rng.integers(0, num_classes, count, np.int32)
        if features is not None:
            lengths = np.full(count, length, np.int32)
            return Split(_waves(rng, labels, length, features), lengths, labels)
        documents = (count, 2) if dataset in _PAIRS else (count,)
        lengths = rng.integers(length // 2, length, documents, np.int32, endpoint=True)
        tokens = _tokens(rng, labels, lengths, length, vocab_size)
        dt = rng.exponential(size=tokens.shape) if dataset in _EVENTS else None
        return Split(tokens, lengths, labels, dt if dt is None else dt.astype(np.float32))

    return Task(
        name=f"stand-in for {dataset} (synthetic)",
        train=split(num_train),
        validation=split(num_train // 4),
        test=split(num_train // 4),
        objective=Classification(num_classes),
        vocab_size=vocab_size,
    )


def _waves(rng, labels, length, features):
    phase = rng.uniform(0, 2 * np.pi, (len(labels), 1, features))
    turns = (1 + labels[:, None, None]) * np.arange(length)[:, None] / length
    clean = 0.5 + 0.25 * np.sin(2 * np.pi * turns + phase)
    return (clean + rng.normal(0, 0.05, clean.shape)).astype(np.float32)


def _tokens(rng, labels, lengths, length, vocab_size):
    shape = (*lengths.shape, length)
    tokens = rng.integers(1, vocab_size, shape, np.int32)
    own = 1 + labels.reshape(-1, *[1] * (len(shape) - 1)) % (vocab_size - 1)
    tokens = np.where(rng.random(shape) < 0.2, own, tokens)
    return np.where(np.arange(length) < lengths[..., None], tokens, 0).astype(np.int32)
