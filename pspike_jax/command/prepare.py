"""Prepare a data set: build it, verify it, report what it holds. Nothing is downloaded.

  pspike prepare --dataset=NAME --data_dir=DIR

Generated sets need no files. The files of the others are looked for in DIR/raw/..., or in
--source_dir; a missing file is answered by where to put it. What is prepared stands in DIR/NAME.

  --set=num_train=1000 --set=max_length=600     settings of the set, such as a smaller one
  --set=reader=tfds --source_dir=TFDS_DIR       read what TensorFlow Datasets has prepared
"""

import dataclasses
import difflib
import json
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from pspike_jax.analysis.files import atomic_path
from pspike_jax.command.reader import Reader
from pspike_jax.data import Task
from pspike_jax.data.catalog import CATALOG, how_to_prepare, raw_folder
from pspike_jax.data.pathfinder_drawing import write_contact_sheet
from pspike_jax.data.prepared import (
    open_prepared,
    read_manifest,
    unfinished_folders,
    write_prepared,
)
from pspike_jax.data.source import Source

CONTACT_SHEET = "contact_sheet.png"


def prepare(
    dataset: str,
    data_dir: str | os.PathLike,
    *,
    source_dir: str | os.PathLike | None = None,
    changes: dict[str, str] | None = None,
    name: str | None = None,
    processes: int = 1,
    allow_partial: bool = False,
) -> str:
    """Prepare one data set, or verify the one that is there.

    Args:
      dataset: its name in the catalog.
      data_dir: folder of all data.
      source_dir: folder of the published files; by default DIR/raw/..., or DIR.
      changes: settings that differ from the published ones, as text.
      name: of the prepared folder; by default that of the data set.
      processes: how many share the work; the result does not depend on it.
      allow_partial: accept files that are not those published.

    Returns:
      A report.

    Raises:
      FileNotFoundError: files are missing; the message says where to put which.
      OSError: the set could not be written.
      ValueError: a file is damaged, or another set stands in the place.
    """
    entry = CATALOG[dataset]
    settings = change_settings(entry.settings, changes or {})
    data_dir = pathlib.Path(data_dir).expanduser()
    folder = data_dir / (name or dataset)
    start = time.monotonic()
    done = "already prepared, verified"
    if not folder.exists():
        try:
            source = entry.make(settings, source_dir or raw_folder(entry, data_dir), processes)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}\n{how_to_prepare(dataset, data_dir)}") from error
        source = dataclasses.replace(source, blocks=_with_progress(source))
        write_prepared(source, folder, partial=allow_partial)
        done = "prepared and verified"
    task = open_prepared(folder)
    manifest = read_manifest(folder)
    asked = json.loads(json.dumps(dataclasses.asdict(settings)))
    if entry.raw is None:
        asked["published_files"] = source_dir is not None
    # A set that was prepared before a setting was there has its default.
    settled = json.loads(json.dumps(dataclasses.asdict(entry.settings))) | manifest["settings"]
    if settled != asked:
        raise ValueError(
            f"{folder} was prepared with {manifest['settings']}, asked for was {asked}; delete it, "
            f"or give another --name"
        )
    sheet = []
    if dataset.startswith("pathfinder"):
        sheet = [_draw_contact_sheet(folder / CONTACT_SHEET, task, settings.size)]
    seconds = time.monotonic() - start
    leftovers = [f"  left by another run: {path}" for path in unfinished_folders(folder)]
    return "\n".join(
        [f"{folder}: {done} in {seconds:.1f} s", *describe(task, manifest), *sheet, *leftovers]
    )


def change_settings(settings: Any, changes: dict[str, str]) -> Any:
    """Replace fields of a settings dataclass by values given as text.

    Args:
      settings: a dataclass of integers, floats, booleans and strings.
      changes: text by name of the field.

    Returns:
      The changed settings.

    Raises:
      ValueError: a field is unknown, with the nearest known one, or a value cannot be read.
    """
    values = {}
    for key, text in changes.items():
        kinds = {field.name: field.type for field in dataclasses.fields(settings)}
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, n=1, cutoff=0.0)
            raise ValueError(f"unknown setting {key!r}; did you mean {near[0]!r}?")
        try:
            values[key] = _READ[kinds[key]](text)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{key} is {text!r}, expected {kinds[key].__name__}") from error
    return dataclasses.replace(settings, **values)


def describe(task: Task, manifest: dict[str, Any]) -> list[str]:
    """Report what a prepared set holds.

    Args:
      task: as opened.
      manifest: of its folder.

    Returns:
      Lines of text.
    """
    lines = [f"  name: {manifest['name']}", f"  settings: {manifest['settings']}"]
    for name, split in task.splits().items():
        classes = np.bincount(split.targets, minlength=task.num_classes) / len(split.targets)
        lengths = np.asarray(split.lengths)
        lines.append(
            f"  {name}: {len(split.targets):,} examples {split.inputs.shape[1:]}, length "
            f"{lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}; {task.num_classes} "
            f"classes, {classes.min():.1%} to {classes.max():.1%} of the examples"
        )
    for name, array in manifest["arrays"].items():
        lines.append(f"  {name}.npy: {array['bytes']:,} bytes, sha256 {array['sha256'][:16]}...")
    return lines + [f"  note: {note}" for note in manifest["notes"]]


_READ = {
    int: int, float: float, str: str, bool: {"true": True, "false": False}.__getitem__,
}


def _with_progress(source: Source) -> Iterator[tuple[np.ndarray, ...]]:
    """Show on a terminal how far the work has come."""
    with tqdm(total=source.num_examples, desc=source.name, unit=" examples", disable=None) as bar:
        for block in source.blocks:
            yield block
            bar.update(len(block[2]))


def _draw_contact_sheet(path: pathlib.Path, task: Task, size: int) -> str:
    """Draw the sheet where it is missing; return a line for the report."""
    count = min(500, len(task.train.targets))
    images = np.rint(255 * task.train.inputs[:count]).astype(np.uint8).reshape(-1, size, size)
    try:
        if not path.exists():
            with atomic_path(path) as partial:
                write_contact_sheet(partial, images, task.train.targets[:count])
    except ImportError:
        return "  no contact sheet: it needs Pillow, pip install 'pspike_jax[data]'"
    return f"  contact sheet: {path}"


def parser(prog: str) -> Reader:
    """Return the reader of the command line."""
    made = Reader(prog=prog, description=__doc__)
    made.add_argument("--dataset", required=True, choices=list(CATALOG), help="which data set")
    made.add_argument("--data_dir", required=True, metavar="DIR", help="folder of all data")
    made.add_argument("--source_dir", metavar="DIR", help="folder of the published files")
    made.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE",
        help="a setting; may be repeated",
    )
    made.add_argument("--name", help="of the prepared folder; the dataset's by default")
    made.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="how many share the work"
    )
    made.add_argument(
        "--allow_partial", action="store_true",
        help="accept files that are not those published; the set is named so",
    )
    return made


def main(arguments: Sequence[str] | None = None, prog: str = "pspike prepare") -> None:
    """Prepare the data set that the command line names.

    Args:
      arguments: of the command; None takes those of this process.
      prog: what help and messages call the command.

    Raises:
      SystemExit: the user has to change something.
    """
    reader = parser(prog)
    asked = reader.parse_args(arguments)
    pairs = [text.partition("=") for text in asked.set]
    wrong = [key for key, equals, _ in pairs if not equals]
    if wrong:
        reader.error(f"--set={wrong[0]} lacks a value; write --set={wrong[0]}=VALUE")
    if asked.processes < 1:
        reader.error(f"--processes is {asked.processes}, expected at least 1")
    try:
        report = prepare(
            asked.dataset,
            asked.data_dir,
            source_dir=asked.source_dir,
            changes={key: value for key, _, value in pairs},
            name=asked.name,
            processes=asked.processes,
            allow_partial=asked.allow_partial,
        )
    except (OSError, ImportError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    print(report)
