"""Reads data sets that TensorFlow Datasets has already prepared on disk.

TensorFlow itself is needed for sound alone. Only `array_record` files can be read so (`tfds.load`
writes `tfrecord` unless told otherwise): prepare them with
`tfds build NAME --file_format=array_record`. Nothing is ever downloaded here.

That library imports the classes that a folder names, opens the files that it names, and lets Pillow
guess the format of a picture. So the folder's two JSON files are looked at first, and pictures come
as bytes, which `pictures.decode_png` decodes.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pspike_jax.data.untrusted import check_link, list_files, read_json

_CLASSES = "tensorflow_datasets.core.features."
# Of older forms, which hold names of classes in texts; no array_record files go with them.
_OLD_KEYS = {"json", "json_feature", "jsonFeature", "type", "proto_cls"}
_CLASS_KEYS = {"pythonClassName", "python_class_name"}
_FILE_KEYS = {"name", "filepathTemplate", "filepath_template"}


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples of one split.

    Attributes:
      where: folder of the set.
      records: what TensorFlow Datasets returns, examples by number.
      read: from its example to the one that is wanted.
    """

    where: pathlib.Path
    records: Sequence[dict[str, Any]]
    read: Callable[[dict[str, Any]], Any]

    def __len__(self) -> int:
        return len(self.records)


def open_tfds(
    name: str,
    data_dir: str | os.PathLike,
    splits: Sequence[str],
    *,
    read: Callable[[dict[str, Any]], Any] = lambda example: example,
    pictures: Sequence[str] = (),
    config: str = "",
) -> dict[str, Examples]:
    """Open splits of a prepared TensorFlow data set.

    Args:
      name: of the data set, as in the catalog.
      data_dir: folder that holds NAME/VERSION, or NAME/CONFIG/VERSION.
      splits: names of the splits.
      read: takes what is wanted from an example; what it raises becomes the documented error.
      pictures: features that are left as the bytes of a picture's file.
      config: name of the configuration, or "".

    Returns:
      For each split, examples by number; `in_batches` reads them.

    Raises:
      ImportError: tensorflow-datasets, or TensorFlow where a feature needs it, is not installed.
      FileNotFoundError: the set is not there.
      ValueError: the set cannot be read, lacks a split, or names classes or files of others.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "reading TensorFlow data sets needs: pip install 'pspike_jax[data]'"
        ) from error

    folder = pathlib.Path(data_dir) / name / config
    versions = sorted(path.parent for path in folder.glob("[!.]*/dataset_info.json"))
    if not versions:
        raise FileNotFoundError(
            f"no prepared TensorFlow data set in {folder}: no VERSION/dataset_info.json; where "
            f"there is a network, run tfds build {name} --file_format=array_record"
        )
    place = versions[-1]
    check_link(data_dir, place)
    _check_folder(place)
    # Not tfds.data_source: for a catalog name it may look for the set on the network first.
    try:
        builder = tfds.builder_from_directory(place)
        missing = [split for split in splits if split not in builder.info.splits]
        decoders = {feature: tfds.decode.SkipDecoding() for feature in pictures}
        records = {
            split: builder.as_data_source(split, decoders=decoders or None)
            for split in splits if not missing
        }
    except ImportError as error:
        raise ImportError(f"{place}: its features need TensorFlow ({error})") from error
    except Exception as error:  # every library below raises its own
        raise ValueError(f"{place}: not readable as array_record ({error})") from error
    if missing:
        raise ValueError(f"{place}: no split {missing}, found {sorted(builder.info.splits)}")
    return {split: Examples(place, records[split], read) for split in splits}


def in_batches(examples: Examples, size: int) -> Iterator[list[Any]]:
    """Read examples in batches, which is several times faster than one by one.

    Args:
      examples: of one split, as `open_tfds` returns them.
      size: examples in a batch.

    Yields:
      Lists of what `read` made of examples; the last one may be shorter.

    Raises:
      ValueError: an example cannot be read, naming the set.
    """
    for start in range(0, len(examples), size):
        rows = range(start, min(start + size, len(examples)))
        try:
            batch = [examples.read(one) for one in examples.records.__getitems__(rows)]
        except Exception as error:  # every library below raises its own
            raise ValueError(
                f"{examples.where}: one of examples {rows.start} to {rows.stop - 1} cannot be read "
                f"({error})"
            ) from error
        yield batch


def _check_folder(folder: pathlib.Path) -> None:
    """Refuse a set that names classes of other packages, or files outside its folder."""
    list_files(folder, "")  # none of them a link elsewhere
    features, info = folder / "features.json", folder / "dataset_info.json"
    if features.exists():
        for key, value in _pairs(read_json(features)):
            foreign = key in _CLASS_KEYS and not str(value).startswith(_CLASSES)
            if foreign or (key in _OLD_KEYS and isinstance(value, (str, dict))):
                raise ValueError(
                    f"{features}: {key} is {value!r:.80}, expected a feature of {_CLASSES}"
                )
    for key, value in _pairs(read_json(info)):
        if key in _FILE_KEYS and (set("/\\\0") & set(str(value)) or ".." in str(value)):
            raise ValueError(f"{info}: {key} is {value!r:.80}, expected names in this folder")


def _pairs(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of nested JSON with its value."""
    waiting = [content]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one.items()
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
