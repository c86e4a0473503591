"""Handwritten digits, 8 x 8 pixels, read one pixel a step in a fixed random order.

1,797 pictures that ship with scikit-learn (E. Alpaydin and C. Kaynak, Optical Recognition of
Handwritten Digits, UCI Machine Learning Repository, 1998; its test part). The permutation takes
away what neighbouring pixels would tell, as permuted sequential MNIST does at 28 x 28.
"""

import numpy as np

from pspike_jax.data.batches import Task
from pspike_jax.data.split import Split, take
from pspike_jax.objectives import Classification

SIZES = {"train": 1257, "validation": 180, "test": 360}
WHITE = 16  # largest pixel value


def load_digits(*, seed: int) -> Task:
    """Read the digits as sequences of 64 pixels in [0, 1].

    Args:
      seed: of the order of pixels and of the split, both fixed for a seed; not negative.

    Returns:
      Task of 10 classes, inputs (n, 64, 1) float32, split 1,257 / 180 / 360.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError("digits need scikit-learn: pip install scikit-learn") from error

    images, labels = datasets.load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    pixels = rng.permutation(images.shape[1])
    inputs = (images[:, pixels, None] / WHITE).astype(np.float32)
    whole = Split(inputs, np.full(len(labels), images.shape[1], np.int32), labels.astype(np.int32))
    train, validation, test, _ = np.split(
        rng.permutation(len(labels)), np.cumsum(list(SIZES.values()))
    )
    return Task(
        name="digits",
        train=take(whole, train),
        validation=take(whole, validation),
        test=take(whole, test),
        objective=Classification(10),
    )
