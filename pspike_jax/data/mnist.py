"""Sequential MNIST: 28 x 28 digits read one pixel a step, in three orders.

  rows          smnist: row by row
  bit_reversal  psmnist: 0..1023 in the order of their reversed bits, those below 784; the order of
                the S4 and P-SpikeSSM programs
  random        the permutation np.random.RandomState(92916) makes, which those programs used before

Results in different orders are not comparable. Pixels are in [0, 1], not normalized. Of the 60,000
training images 6,000 are held out for validation, by a seeded choice of this project.
"""

import dataclasses
import hashlib
import itertools
import math
import os
import pathlib

import numpy as np

from pspike_jax.data.pictures import decode_png
from pspike_jax.data.scaled import Scaling
from pspike_jax.data.source import Source, count_differences, held_out
from pspike_jax.data.tfds_reader import in_batches, open_tfds
from pspike_jax.data.untrusted import check_link, read_bytes, read_gzip

SIDE = 28
RANDOM_ORDER_SEED = 92916
PUBLISHED = {"train": 60_000, "test": 10_000}
FILES = {  # by split: images and labels, with the sha256 of the files of the original archive
    "train": {
        "train-images-idx3-ubyte":
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte":
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    },
    "test": {
        "t10k-images-idx3-ubyte":
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte":
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
}
_UNSIGNED_BYTES = 8
_MOST_BYTES = 1 << 28  # of a file, and of what it unpacks to; published are 47 MB


def row_order(size: int) -> np.ndarray:
    """Order pixels as they are stored.

    Args:
      size: number of pixels.

    Returns:
      (size,) 0, 1, 2, ...
    """
    return np.arange(size)


def bit_reversal_order(size: int) -> np.ndarray:
    """Order pixels by their numbers with reversed bits.

    Args:
      size: number of pixels.

    Returns:
      (size,) numbers: the bit-reversal permutation of the next power of two, those below `size`.
    """
    order = np.zeros(1, np.int64)
    while order.size < size:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order[order < size]


def random_order(size: int) -> np.ndarray:
    """Order pixels by the seeded permutation of older programs.

    Args:
      size: number of pixels.

    Returns:
      (size,) numbers.
    """
    return np.random.RandomState(RANDOM_ORDER_SEED).permutation(size)


ORDERS = {"rows": row_order, "bit_reversal": bit_reversal_order, "random": random_order}
_NAMES = {"rows": "smnist", "bit_reversal": "psmnist", "random": "psmnist (random order)"}


@dataclasses.dataclass(frozen=True)
class MnistSettings:
    """How to read MNIST.

    Attributes:
      order: "rows", "bit_reversal" or "random".
      reader: "files" for the published idx files, "tfds" for a set that TensorFlow Datasets
        prepared.
      seed: of the choice of the validation images.
    """

    order: str = "rows"
    reader: str = "files"
    seed: int = 42

    def __post_init__(self):
        if self.order not in ORDERS or self.reader not in ("files", "tfds"):
            raise ValueError(
                f"order is {self.order!r} and reader {self.reader!r}, expected an order of "
                f"{sorted(ORDERS)} and a reader of ['files', 'tfds']"
            )


def mnist_source(
    settings: MnistSettings, source_dir: str | os.PathLike, processes: int = 1
) -> Source:
    """Read MNIST as sequences.

    Args:
      settings: order of the pixels, and where they come from.
      source_dir: folder of the four idx files, plain or .gz; or the data_dir of TFDS.
      processes: not used.

    Returns:
      A Source of inputs (n, 784, 1) uint8, read as [0, 1].

    Raises:
      FileNotFoundError, ValueError: files are missing or damaged.
    """
    splits, differences = (_read_files if settings.reader == "files" else _read_tfds)(source_dir)
    for name, (images, labels) in splits.items():
        where = f"{source_dir}, {name}"
        if settings.reader == "files":
            where = f"{source_dir}: {' and '.join(FILES[name])}"
        if images.shape[1:] != (SIDE, SIDE):
            raise ValueError(f"{where}: images of {images.shape[1:]} pixels, expected 28 x 28")
        if len(images) != len(labels):
            raise ValueError(f"{where}: {len(images):,} images but {len(labels):,} labels")
        if not labels.size or labels.min() < 0 or labels.max() > 9:
            raise ValueError(
                f"{where}: labels from {labels.min(initial=0)} to {labels.max(initial=0)}, "
                f"expected 0 to 9"
            )
    images, labels = splits["train"]
    train, validation = held_out(labels, 0.1, seed=settings.seed)
    found = {name: len(labels) for name, (_, labels) in splits.items()}
    parts = ((images[train], labels[train]), (images[validation], labels[validation]))
    order = ORDERS[settings.order](SIDE * SIDE)
    return Source(
        name=_NAMES[settings.order],
        counts={"train": len(train), "validation": len(validation), "test": found["test"]},
        shape=(SIDE * SIDE, 1),
        dtype="uint8",
        num_classes=10,
        vocab_size=None,
        blocks=(_block(*part, order) for part in (*parts, splits["test"])),
        settings=dataclasses.asdict(settings),
        scaling=lambda images: Scaling(255.0),
        differences=count_differences(PUBLISHED, found) + differences,
    )


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read an idx file of unsigned bytes, plain or gzipped.

    Args:
      path: of the file; it is decompressed when it ends in .gz.

    Returns:
      uint8 array of the dimensions that the file names.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is truncated, too long, too large, or of another kind.
    """
    return _parse_idx(_read_bytes(pathlib.Path(path)), path)


def _read_bytes(path):
    return (read_gzip if path.suffix == ".gz" else read_bytes)(path, _MOST_BYTES)


def _parse_idx(data, path):
    """Read the header (magic number, then a big-endian size for each axis) and the bytes."""
    if len(data) < 4:
        raise ValueError(f"{path}: truncated, {len(data)} bytes hold no idx header")
    magic = int.from_bytes(data[:4], "big")
    axes = magic - (_UNSIGNED_BYTES << 8)
    if not 1 <= axes <= 4:
        raise ValueError(
            f"{path}: magic number {magic}, expected 2049 (labels) or 2051 (images): not an idx "
            f"file of unsigned bytes"
        )
    header = 4 + 4 * axes
    shape = tuple(np.frombuffer(data[4:header], ">u4").tolist()) if len(data) >= header else ()
    expected = header + math.prod(shape)
    if len(data) != expected or not shape:
        what = "truncated" if len(data) < expected or not shape else "too long"
        raise ValueError(
            f"{path}: {what}, {len(data):,} bytes; its header of shape {shape} asks for "
            f"{expected:,}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _read_files(source_dir):
    """Read images and labels of both published splits; compare checksums."""
    folder = pathlib.Path(source_dir)
    splits, differences = {}, []
    for split, files in FILES.items():
        arrays = []
        for axes, (name, sha256) in zip((3, 1), files.items()):
            path = _find(folder, name)
            data = _read_bytes(path)
            array = _parse_idx(data, path)
            if array.ndim != axes:
                raise ValueError(
                    f"{path}: magic number {2048 + array.ndim}, expected {2048 + axes}"
                )
            arrays.append(array)
            if hashlib.sha256(data).hexdigest() != sha256:
                differences.append(f"{path.name}: its sha256 is not that of the published file")
        splits[split] = tuple(arrays)
    return splits, differences


def _find(folder, name):
    """Find a file under the names it is published with."""
    dotted = name.replace("-idx", ".idx")
    for candidate in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
        if (folder / candidate).is_file():
            return check_link(folder, folder / candidate)
    raise FileNotFoundError(f"{folder} lacks a regular file {name} or {name}.gz")


def _read_tfds(source_dir):
    sets = open_tfds("mnist", source_dir, tuple(PUBLISHED), read=_read_example, pictures=("image",))
    splits = {}
    for name, examples in sets.items():
        images, labels = zip(*itertools.chain.from_iterable(in_batches(examples, 1000)))
        splits[name] = (np.array(images, np.uint8), np.array(labels, np.int64))
    return splits, []


def _read_example(example):
    return decode_png(example["image"], (SIDE, SIDE), "image"), int(example["label"])


def _block(images, labels, order):
    inputs = images.reshape(len(images), -1)[:, order, None]
    return inputs, np.full(len(images), order.size, np.int32), labels.astype(np.int32)
