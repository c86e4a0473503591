"""Reads data sets that TensorFlow Datasets has already prepared on disk.

TensorFlow itself is needed for sound alone. Only `array_record` files can be read so (`tfds.load`
writes `tfrecord` unless told otherwise): prepare them with
`tfds build NAME --file_format=array_record`. Nothing is ever downloaded here.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any


def open_tfds(
    name: str, data_dir: str | os.PathLike, splits: Sequence[str], config: str = ""
) -> dict[str, Sequence[dict[str, Any]]]:
    """Open splits of a prepared TensorFlow data set.

    Args:
      name: of the data set, as in the catalog.
      data_dir: folder that holds NAME/VERSION, or NAME/CONFIG/VERSION.
      splits: names of the splits.
      config: name of the configuration, or "".

    Returns:
      For each split, examples by number.

    Raises:
      ImportError: tensorflow-datasets, or TensorFlow where a feature needs it, is not installed.
      FileNotFoundError: the set is not there.
      ValueError: the set cannot be read, or lacks a split.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "reading TensorFlow data sets needs: pip install 'pspike_jax[data]'"
        ) from error

    folder = pathlib.Path(data_dir) / name / config
    versions = sorted(path.parent for path in folder.glob("*/dataset_info.json"))
    if not versions:
        raise FileNotFoundError(
            f"no prepared TensorFlow data set in {folder}: no VERSION/dataset_info.json; where "
            f"there is a network, run tfds build {name} --file_format=array_record"
        )
    # Not tfds.data_source: for a catalog name it may look for the set on the network first.
    try:
        builder = tfds.builder_from_directory(versions[-1])
    except ImportError as error:
        raise ImportError(f"{versions[-1]}: its features need TensorFlow ({error})") from error
    missing = [split for split in splits if split not in builder.info.splits]
    if missing:
        raise ValueError(f"{versions[-1]}: no split {missing}, found {sorted(builder.info.splits)}")
    try:
        return {split: builder.as_data_source(split) for split in splits}
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{versions[-1]}: not readable as array_record ({error})") from error


def in_batches(examples: Sequence[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Read examples in batches, which is several times faster than one by one.

    Args:
      examples: of one split, as `open_tfds` returns them.
      size: examples in a batch.

    Yields:
      Lists of examples; the last one may be shorter.
    """
    for start in range(0, len(examples), size):
        yield examples.__getitems__(range(start, min(start + size, len(examples))))
