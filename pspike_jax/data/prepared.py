"""Prepared data sets on disk: plain .npy arrays that are mapped into memory, and a manifest.

    DIR/NAME/manifest.json   counts, shapes, dtypes, bytes and sha256 of the arrays, the settings
    DIR/NAME/inputs.npy      (n, ...) tokens, or numbers that `divisor`, mean.npy, std.npy scale
    DIR/NAME/lengths.npy     (n,) or (n, 2) int32
    DIR/NAME/labels.npy      (n,) int32

The rows of all splits stand in one array, training first, then validation, then test. A set is
written to a folder beside its place and renamed when it is whole, so what stands at its place is
whole; and it is checked when it is opened. Nothing here needs TensorFlow or a network.
"""

import hashlib
import json
import math
import os
import pathlib
import shutil
import tempfile
from typing import Any

import numpy as np

from pspike_jax.data.archives import check_header, read_header
from pspike_jax.data.batches import Task
from pspike_jax.data.source import SPLITS, Scaling, Source, fill, make_task
from pspike_jax.data.untrusted import check_link, open_regular, read_json

FORMAT = 1
MANIFEST = "manifest.json"
ARRAYS = ("inputs", "lengths", "labels", "mean", "std")
_UNFINISHED = ".unfinished"


def write_prepared(source: Source, folder: str | os.PathLike, *, partial: bool = False) -> None:
    """Write a source to a folder that does not exist yet.

    Args:
      source: it is consumed.
      folder: where the set will stand; its parent is made if need be.
      partial: accept files that are not those published; the set is named so.

    Raises:
      FileExistsError: the folder exists.
      OSError: the disk has too little room.
      ValueError: the set is not what was published, or a file is damaged; nothing is left behind.
    """
    folder = pathlib.Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; delete it, or name another place")
    if source.differences and not partial:
        raise ValueError(
            f"{source.name}: {'; '.join(source.differences)}. Put the published files in place, or "
            f"accept these (--allow_partial), which the name of the set will say"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_room(source, folder.parent)
    unfinished = tempfile.mkdtemp(
        dir=folder.parent, prefix=f".{folder.name}-", suffix=_UNFINISHED
    )
    unfinished = pathlib.Path(unfinished)
    try:
        _write_arrays(source, unfinished)
        unfinished.chmod(0o755)  # mkdtemp shuts others out
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished)
        raise


def unfinished_folders(folder: str | os.PathLike) -> list[pathlib.Path]:
    """List what runs that were killed, or still go on, have left beside a prepared set.

    Args:
      folder: where the set stands, or will stand.

    Returns:
      Folders that may be deleted when no other run is preparing the set.
    """
    folder = pathlib.Path(folder)
    return sorted(folder.parent.glob(f".{folder.name}-*{_UNFINISHED}"))


def open_prepared(
    folder: str | os.PathLike, *, validation: str = "held_out", verify: bool = True
) -> Task:
    """Open a prepared set; its arrays stay on disk.

    Args:
      folder: where the set stands.
      validation: "held_out", or "test" to select models on the test split and to train on the
        held-out examples too, as the published programs for IMDB and SHD do.
      verify: compare checksums, which reads the whole set once.

    Returns:
      The task.

    Raises:
      FileNotFoundError: there is no prepared set.
      ValueError: a file is missing, damaged, or not of this format.
    """
    if validation not in ("held_out", "test"):
        raise ValueError(f"validation is {validation!r}, expected 'held_out' or 'test'")
    folder = pathlib.Path(folder)
    manifest = read_manifest(folder)
    try:
        arrays = {
            name: _open_array(folder, name, manifest["arrays"][name], verify)
            for name in ARRAYS
            if name in manifest["arrays"]
        }
    except (TypeError, LookupError, AttributeError, OverflowError) as error:
        raise ValueError(f"{folder / MANIFEST}: not a manifest ({error!r})") from error
    try:
        return _make_task(manifest, arrays, validation)
    except Exception as error:  # whole, but not of this program: any of its numbers may be wrong
        raise ValueError(f"{folder}: not a prepared data set ({error})") from error


def _make_task(manifest: dict[str, Any], arrays: dict[str, np.ndarray], validation: str) -> Task:
    """Cut the arrays into splits."""
    ranges = {name: tuple(manifest["splits"][name]) for name in SPLITS}
    if validation == "test":
        ranges["train"] = (ranges["train"][0], ranges["validation"][1])
        ranges["validation"] = ranges["test"]
    scaling = None
    if manifest["divisor"] is not None:
        moments = (np.array(arrays[name]) if name in arrays else None for name in ("mean", "std"))
        scaling = Scaling(manifest["divisor"], *moments)
    return make_task(
        manifest["name"], arrays["inputs"], arrays["lengths"], arrays["labels"], ranges,
        manifest["num_classes"], manifest["vocab_size"], scaling,
    )


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """Read the manifest of a prepared set, and check that it is one.

    Args:
      folder: where the set stands.

    Returns:
      The manifest.

    Raises:
      FileNotFoundError: there is no prepared set.
      ValueError: the manifest is damaged, or of another format.
    """
    path = check_link(folder, pathlib.Path(folder) / MANIFEST)
    if not path.exists():
        raise FileNotFoundError(f"no prepared data set in {folder}: {path.name} is missing")
    try:
        manifest = read_json(path)
        version, found = manifest["format"], manifest.pop("checksum")
    except (ValueError, LookupError) as error:
        raise ValueError(f"{path}: not a manifest ({error}); prepare the set again") from error
    if version != FORMAT:
        raise ValueError(f"{path}: format {version}, this version reads {FORMAT}; prepare it again")
    if found != checksum(manifest):
        raise ValueError(f"{path}: damaged, its checksum does not fit; prepare the set again")
    return manifest


def checksum(content: dict[str, Any]) -> str:
    """Sum up what a JSON file says, whatever its layout.

    Args:
      content: as read from JSON.

    Returns:
      A SHA-256 in hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_room(source: Source, folder: pathlib.Path) -> None:
    """Refuse to begin what the disk cannot hold: mapped arrays end a process there, unexplained."""
    numbers = 1 + math.prod(source.lengths_shape)  # label and lengths
    example = math.prod(source.shape) * np.dtype(source.dtype).itemsize + 4 * numbers
    needed, free = source.num_examples * example, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{source.name} takes {needed:,} bytes, but {folder} has only {free:,} left")


def _write_arrays(source: Source, folder: pathlib.Path) -> None:
    """Write all arrays, then the manifest that names them."""
    count = source.num_examples
    shapes = {
        "inputs": (source.dtype, source.shape),
        "lengths": ("int32", source.lengths_shape),
        "labels": ("int32", ()),
    }
    arrays = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", np.dtype(dtype), (count, *shape)
        )
        for name, (dtype, shape) in shapes.items()
    }
    fill(source, **arrays)
    _check(source, arrays["lengths"], arrays["labels"])
    divisor = None
    if source.scaling is not None:
        divisor, *moments = source.scaling(arrays["inputs"][slice(*source.ranges()["train"])])
        for name, moment in zip(("mean", "std"), moments):
            if moment is not None:
                np.save(folder / f"{name}.npy", np.asarray(moment, np.float32))
                arrays[name] = np.load(folder / f"{name}.npy")
    for name in shapes:
        arrays[name].flush()
    manifest = {
        "format": FORMAT,
        "name": source.name + (" (partial)" if source.differences else ""),
        "num_classes": source.num_classes,
        "vocab_size": source.vocab_size,
        "divisor": divisor,
        "splits": source.ranges(),
        "arrays": {name: _describe(folder, name, array) for name, array in arrays.items()},
        "settings": source.settings,
        "complete": not source.differences,
        "notes": source.notes + source.differences,
    }
    manifest = json.loads(json.dumps(manifest))  # as it will be read: lists for tuples
    manifest["checksum"] = checksum(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _check(source: Source, lengths: np.ndarray, labels: np.ndarray) -> None:
    """Refuse a set that could not be opened: empty splits, labels or lengths out of range."""
    for name, (first, last) in source.ranges().items():
        if first == last:
            raise ValueError(f"{source.name}: no examples for {name}")
    longest = source.shape[len(source.lengths_shape)]
    if lengths.min() < 1 or lengths.max() > longest:
        raise ValueError(
            f"{source.name}: lengths from {lengths.min()} to {lengths.max()}, expected 1 to "
            f"{longest}"
        )
    if labels.min() < 0 or labels.max() >= source.num_classes:
        raise ValueError(
            f"{source.name}: labels from {labels.min()} to {labels.max()}, expected 0 to "
            f"{source.num_classes - 1}"
        )


def _describe(folder: pathlib.Path, name: str, array: np.ndarray) -> dict[str, Any]:
    path = folder / f"{name}.npy"
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.str,
        "bytes": path.stat().st_size,
        "sha256": _sha256(path),
    }


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_array(
    folder: pathlib.Path, name: str, entry: dict[str, Any], verify: bool
) -> np.ndarray:
    """Map one array into memory after comparing it with the manifest."""
    path = check_link(folder, folder / f"{name}.npy")
    again = "delete the folder and prepare the set again"
    if not path.exists():
        raise ValueError(f"{path}: missing, though {MANIFEST} names it; {again}")
    with open_regular(path, None) as file:  # once: what is compared is what is mapped
        size = file.seek(0, os.SEEK_END)
        if size != entry["bytes"]:
            raise ValueError(f"{path}: {size:,} bytes, {MANIFEST} says {entry['bytes']}; {again}")
        file.seek(0)
        if verify and hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
            raise ValueError(f"{path}: its sha256 is not that of {MANIFEST}; {again}")
        file.seek(0)
        try:
            header = read_header(file)
            check_header(header, name, size)
            order = "F" if header.fortran_order else "C"
            array = np.memmap(file, header.dtype, "r", header.bytes, header.shape, order)
        except Exception as error:  # a damaged header makes NumPy's parser raise several types
            raise ValueError(f"{path}: not an .npy array ({error}); {again}") from error
    if list(array.shape) != entry["shape"] or array.dtype.str != entry["dtype"]:
        raise ValueError(
            f"{path}: {array.dtype.str} {array.shape}, {MANIFEST} says {entry['dtype']} "
            f"{entry['shape']}; {again}"
        )
    return array
