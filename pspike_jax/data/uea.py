"""Multivariate series of the UEA archive (Bagnall et al. 2018), in its `.ts` and `.arff` files.

Those of the regression archive that goes with it (Tan et al. 2021) have the tag "@targetLabel", and
numbers in place of classes.

LinOSS reports six sets of it. Its authors do not keep the archive's split: they put both files
together and draw 70, 15 and 15 % at random, with seeds 2345, 3456, 4567, 5678 and 6789. Their
choice of rows is not repeated here, its shares are. Nothing is downloaded.
"""

import os
import pathlib
import re

import numpy as np

from pspike_jax.data.arrays import from_arrays
from pspike_jax.data.batches import Task
from pspike_jax.data.partition import random_rows
from pspike_jax.data.series import lose_frames, scale_frames
from pspike_jax.data.untrusted import MOST_BYTES, check_link, read_text

SPLITS = ("random", "archive")
HELD_OUT = 0.15  # of random splits, for validation and for test each
ENDINGS = (".ts", ".arff")


def load_uea(
    *,
    dataset: str,
    source_dir: str,
    seed: int,
    split: str = "random",
    time_channel: bool = False,
    scale: str = "none",
    keep: float = 1.0,
    timed: bool = True,
) -> Task:
    """Read a set of the archive.

    Args:
      dataset: its name there, such as "EigenWorms".
      source_dir: folder of DATASET_TRAIN.ts and DATASET_TEST.ts, or of the same in .arff.
      seed: of the choice of rows, and of frames; not negative.
      split: "random", 70, 15 and 15 % of both files, as LinOSS; "archive", its own test file, and a
        fifth of the training file for validation, the same share of every class.
      time_channel: a further channel that rises from 0 at the first step towards 1.
      scale: of channels, by the training frames: "none", "standard" or "log", see
        `pspike_jax.data.series.scale_frames`.
      keep: share of the frames that is kept, at random.
      timed: where keep is below 1, the task has `dt`, the time since the frame that was kept
        before; else frames follow each other as if none were lost.

    Returns:
      Task of named classes, or a regression where the files say so; inputs (n, L, F) float32, zero
      behind the length of each.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: an unknown split or scale, a share outside (0, 1]; a file is not of its format, or
        the two do not fit together.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    folder = pathlib.Path(source_dir).expanduser()
    paths = {part: _find(folder, f"{dataset}_{part}") for part in ("TRAIN", "TEST")}
    parts = {part: read_series(path) for part, path in paths.items()}
    channels = {part: sorted({len(one) for one in parts[part][0]}) for part in parts}
    if channels["TRAIN"] != channels["TEST"] or len(channels["TRAIN"]) != 1:
        raise ValueError(f"{folder}/{dataset}: channels {channels}, expected one number of them")
    labels = np.asarray([label for part in parts.values() for label in part[1]])
    numbers = is_regression(paths["TRAIN"])
    if numbers:
        labels = _as_numbers(labels, f"{folder}/{dataset}")
    count = len(parts["TRAIN"][1])
    if split == "random":
        rows = random_rows(len(labels), (HELD_OUT, HELD_OUT), seed=seed)
    else:
        rows = _archive_rows(labels, count, numbers, seed)
    series = [_steps(one, time_channel) for part in parts.values() for one in part[0]]
    series = scale_frames(series, rows["train"], scale)
    series, dt = lose_frames(series, keep, seed)
    dt = dt if timed and keep < 1 else None
    return from_arrays(series, labels, splits=rows, dt=dt, name=dataset, seed=seed)


def _archive_rows(labels, count, numbers, seed):
    """Split the training file, the first `count` rows, and take the rest for test."""
    learnt = np.random.default_rng(seed).permutation(count)
    held_out = _share_of_each(labels[:count] if not numbers else np.zeros(count), learnt, 0.2)
    return {
        "train": np.setdiff1d(learnt, held_out),
        "validation": held_out,
        "test": np.arange(count, len(labels)),
    }


def is_regression(path: str | os.PathLike) -> bool:
    """Say whether a file, which `read_series` has read, has numbers as targets, by its tags."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.lower().split()
            if words[:1] == ["@data"]:
                return False
            if words[:2] == ["@targetlabel", "true"]:
                return True
    return False


def _as_numbers(labels, where):
    try:
        numbers = labels.astype(np.float32)
    except ValueError as error:
        raise ValueError(f"{where}: {error}, but the file says that targets are numbers") from error
    if not np.isfinite(numbers).all():
        raise ValueError(f"{where}: targets are not all finite")
    return numbers


def _find(folder: pathlib.Path, stem: str) -> pathlib.Path:
    for ending in ENDINGS:
        if (folder / (stem + ending)).exists():
            return check_link(folder, folder / (stem + ending))
    raise FileNotFoundError(f"{folder} has neither {stem}.ts nor {stem}.arff")


def _steps(series: np.ndarray, time_channel: bool) -> np.ndarray:
    """Return a series (channels, frames) as (frames, channels) float32."""
    steps = series.T.astype(np.float32)
    if not time_channel:
        return steps
    time = np.arange(len(steps), dtype=np.float32)[:, None] / len(steps)
    return np.concatenate([time, steps], axis=1)


def _share_of_each(labels, order, share):
    """Return the rows of a share of every class, at least one, the first in an order."""
    rows = []
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rows.append(of_class[: max(1, round(share * len(of_class)))])
    return np.sort(np.concatenate(rows))


def read_series(path: str | os.PathLike) -> tuple[list[np.ndarray], list[str]]:
    """Read a file of the archive, by its ending.

    Args:
      path: of a .ts or .arff file.

    Returns:
      series: (channels, frames) float64 for each example.
      labels: their labels.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: another ending, or a line that is not of the format.
    """
    ending = pathlib.Path(path).suffix
    if ending not in ENDINGS:
        raise ValueError(f"{path} ends in {ending!r}, expected .ts or .arff")
    return read_ts(path) if ending == ".ts" else read_arff(path)


def read_ts(path: str | os.PathLike) -> tuple[list[np.ndarray], list[str]]:
    """Read a .ts file: series of one or more channels, with labels.

    Args:
      path: its lines are comments "#...", tags "@...", and behind "@data" one example each:
        channels separated by ":", their numbers by ",", and the label behind the last ":".

    Returns:
      As `read_series`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is not of this form; numbers are missing ("?") or have times of their own.
    """
    lines = _lines(path)
    tags = [line.lower() for line in lines]
    if "@data" not in tags:
        raise ValueError(f"{path} has no line '@data'")
    first = tags.index("@data") + 1
    examples = [(n, *line.split(":")) for n, line in enumerate(lines[first:], first + 1) if line]
    return _numbers(path, [(n, channels, label) for n, *channels, label in examples])


_HEADER = re.compile(r"@(relation|attribute|end)\b", re.IGNORECASE)


def read_arff(path: str | os.PathLike) -> tuple[list[np.ndarray], list[str]]:
    """Read an .arff file of the archive: numbers, or channels in a relation, and a class.

    Args:
      path: its lines are comments "%...", declarations "@...", and behind "@data" one example each:
        in quotes the channels separated by a backslash and an n, their numbers by ",", then the
        label; or, of one channel, all numbers and the label without quotes.

    Returns:
      As `read_series`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is not of this form, or numbers are missing.
    """
    lines, examples, data = _lines(path), [], False
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("%"):
            continue
        if not data:
            if line.lower() == "@data":
                data = True
            elif not _HEADER.match(line):
                raise ValueError(f"{path}, line {number}: {line[:40]!r} before '@data'")
            continue
        quote = line[0] if line[0] in "'\"" else None
        body, comma, label = (line[1:] if quote else line).rpartition(f"{quote or ''},")
        if not comma or not label:
            raise ValueError(f"{path}, line {number}: expected numbers, a comma and a label")
        channels = body.split("\\n") if quote else [body]
        examples.append((number, channels, label.strip(" '\"")))
    if not data:
        raise ValueError(f"{path} has no line '@data'")
    return _numbers(path, examples)


def _lines(path):
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; put the published file there")
    return [line.strip() for line in read_text(path, MOST_BYTES).splitlines()]


def _numbers(path, examples):
    """Return series and labels of (line, channels as text, label)."""
    series, labels = [], []
    for number, channels, label in examples:
        try:
            one = np.array([channel.split(",") for channel in channels], np.float64)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if one.ndim != 2 or not np.isfinite(one).all():
            raise ValueError(f"{path}, line {number}: expected channels of finite numbers")
        series.append(one)
        labels.append(label)
    return series, labels
