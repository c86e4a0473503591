"""CIFAR-10 as sequences of 1,024 pixels, row by row: the Image task of the Long Range Arena.

Gray pixels, (x - 122.6) / 61 of 0..255 as in the S4 and P-SpikeSSM programs; or colors, three
numbers a step, each channel by its mean and deviation over the training images. Of the 50,000
training images 5,000 are held out for validation, by a seeded choice of this project. No
augmentation. Reads the binary version of the published archive (cifar-10-batches-bin).
"""

import dataclasses
import itertools
import os
import pathlib

import numpy as np

from pspike_jax.data.pictures import decode_png
from pspike_jax.data.scaled import Scaling
from pspike_jax.data.source import Source, count_differences, held_out
from pspike_jax.data.tfds_reader import in_batches, open_tfds
from pspike_jax.data.untrusted import check_link, read_bytes

PIXELS = 32 * 32
FILES = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
PUBLISHED = {"train": 50_000, "test": 10_000}
_PUBLISHED_IN_A_FILE = 10_000
_RECORD = 1 + 3 * PIXELS
_MOST_IN_A_FILE = 60_000
_GRAY = (np.array([122.6 / 255], np.float32), np.array([61 / 255], np.float32))
_COLOR = (
    np.array([0.4914, 0.4822, 0.4465], np.float32), np.array([0.2470, 0.2435, 0.2616], np.float32)
)


@dataclasses.dataclass(frozen=True)
class CifarSettings:
    """How to read CIFAR-10.

    Attributes:
      color: three channels instead of their luminance.
      reader: "files" for the published binary files, "tfds" for a set that TensorFlow Datasets
        prepared.
      seed: of the choice of the validation images.
    """

    color: bool = False
    reader: str = "files"
    seed: int = 42

    def __post_init__(self):
        if self.reader not in ("files", "tfds"):
            raise ValueError(f"reader is {self.reader!r}, expected 'files' or 'tfds'")


def cifar_source(
    settings: CifarSettings, source_dir: str | os.PathLike, processes: int = 1
) -> Source:
    """Read CIFAR-10 as sequences.

    Args:
      settings: gray or color, and where the images come from.
      source_dir: folder of the .bin files, or of cifar-10-batches-bin; or the data_dir of TFDS.
      processes: not used.

    Returns:
      A Source of inputs (n, 1024, 1) or (n, 1024, 3) uint8, read as normalized numbers.

    Raises:
      FileNotFoundError, ValueError: files are missing or damaged.
    """
    splits, differences = (_read_files if settings.reader == "files" else _read_tfds)(source_dir)
    images, labels = splits["train"]
    train, validation = held_out(labels, 0.1, seed=settings.seed)
    parts = ((images[train], labels[train]), (images[validation], labels[validation]))
    moments = _COLOR if settings.color else _GRAY
    return Source(
        name="image (CIFAR-10 in color)" if settings.color else "image (CIFAR-10 in gray)",
        counts={"train": len(train), "validation": len(validation), "test": len(splits["test"][1])},
        shape=(PIXELS, 3 if settings.color else 1),
        dtype="uint8",
        num_classes=10,
        vocab_size=None,
        blocks=(_block(*part, settings.color) for part in (*parts, splits["test"])),
        settings=dataclasses.asdict(settings),
        scaling=lambda images: Scaling(255.0, *moments),
        differences=differences,
    )


def read_batch(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read one binary file: records of a label and 3,072 bytes, red, green and blue planes.

    Args:
      path: of the file.

    Returns:
      (n, 1024, 3) uint8 pixels and (n,) uint8 labels.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is truncated, or not of this kind.
    """
    data = read_bytes(path, _MOST_IN_A_FILE * _RECORD)
    if not data or len(data) % _RECORD:
        raise ValueError(
            f"{path}: {len(data):,} bytes, truncated or not of the binary version: expected a "
            f"multiple of {_RECORD}"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
    labels = records[:, 0]
    if labels.max() > 9:
        row = int(np.argmax(labels > 9))
        raise ValueError(f"{path}: the label of image {row} is {labels[row]}, expected 0 to 9")
    return records[:, 1:].reshape(-1, 3, PIXELS).swapaxes(1, 2), labels


def luminance(images: np.ndarray) -> np.ndarray:
    """Turn colors gray by the ITU-R 601-2 weights, in the fixed-point form that Pillow uses.

    Args:
      images: (..., 3) uint8.

    Returns:
      (..., 1) uint8.
    """
    weighted = images.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)[..., None]


def _read_files(source_dir):
    folder = pathlib.Path(source_dir)
    if (folder / "cifar-10-batches-bin").is_dir():
        folder /= "cifar-10-batches-bin"
    missing = [name for files in FILES.values() for name in files if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}")
    splits, found = {}, {}
    for split, names in FILES.items():
        paths = [check_link(source_dir, folder / name) for name in names]
        images, labels = zip(*map(read_batch, paths))
        found |= dict(zip(names, map(len, labels)))
        splits[split] = (np.concatenate(images), np.concatenate(labels))
    return splits, count_differences(dict.fromkeys(found, _PUBLISHED_IN_A_FILE), found)


def _read_tfds(source_dir):
    sets = open_tfds(
        "cifar10", source_dir, tuple(PUBLISHED), read=_read_example, pictures=("image",)
    )
    splits = {}
    for name, examples in sets.items():
        images, labels = zip(*itertools.chain.from_iterable(in_batches(examples, 1000)))
        splits[name] = (np.array(images, np.uint8), np.array(labels, np.uint8))
    found = {name: len(labels) for name, (_, labels) in splits.items()}
    return splits, count_differences(PUBLISHED, found)


def _read_example(example):
    if not 0 <= example["label"] <= 9:
        raise ValueError(f"a label is {example['label']}, expected 0 to 9")
    return decode_png(example["image"], (32, 32, 3), "image").reshape(PIXELS, 3), example["label"]


def _block(images, labels, color):
    inputs = images if color else luminance(images)
    return inputs, np.full(len(images), PIXELS, np.int32), labels.astype(np.int32)
