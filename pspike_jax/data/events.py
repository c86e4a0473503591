"""Spiking Heidelberg Digits and Spiking Speech Commands: events of 700 channels, counted in bins.

As in the programs of sparch and SiLIF (arXiv 2506.06374): with edges np.linspace(0, max_time,
num_steps), an event at time t falls into step np.digitize(t, edges), so step 0 stays empty and a
step lasts max_time / (num_steps - 1); groups of 5 channels are summed, 140 inputs. Events at
max_time or later belong to no step there; here they are counted in the last step, and their number
stands in the notes of the set. Reads the published HDF5 files (Cramer et al. 2020), unpacked.

SHD has no validation split: a tenth of its training examples is held out, by a seeded choice of
this project. `open_prepared(..., validation="test")` repeats the published practice.
"""

import dataclasses
import os
import pathlib

import numpy as np

from pspike_jax.data.hdf5 import UNITS, open_sets, survey
from pspike_jax.data.scaled import Scaling
from pspike_jax.data.source import Source, count_differences, held_out
from pspike_jax.data.untrusted import check_link

CHANNELS = 700
FILES = {
    "shd": {"train": "shd_train.h5", "test": "shd_test.h5"},
    "ssc": {"train": "ssc_train.h5", "validation": "ssc_valid.h5", "test": "ssc_test.h5"},
}
CLASSES = {"shd": 20, "ssc": 35}
PUBLISHED = {
    "shd": {"train": 8_156, "test": 2_264},
    "ssc": {"train": 75_466, "validation": 9_981, "test": 20_382},
}
_SETS = ("spikes/times", "spikes/units", "labels")
_BLOCK = 128
_SHORTEST = 0.02  # of the window: where all recordings end before, their unit is another one
_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclasses.dataclass(frozen=True)
class EventSettings:
    """How to bin events.

    Attributes:
      dataset: "shd" or "ssc".
      num_steps: L, number of bins.
      max_time: seconds; 250 steps of SHD end at 1.0, 300 (4 ms) of SSC at 1.2, 100 (10 ms) at 1.0.
      channels_together: neighbouring channels that are summed; a divisor of 700.
      seed: of the choice for validation; SHD alone.
      unit: of the times in the files: "s" as published, "ms", "us" or "ns".
      most_late: share of a file's events that may come at max_time or later; more is an error, for
        mostly it means another unit.
    """

    dataset: str = "shd"
    num_steps: int = 250
    max_time: float = 1.0
    channels_together: int = 5
    seed: int = 42
    unit: str = "s"
    most_late: float = 0.05

    def __post_init__(self):
        if self.dataset not in FILES:
            raise ValueError(f"dataset is {self.dataset!r}, expected one of {sorted(FILES)}")
        if self.num_steps < 2 or not self.max_time > 0:
            raise ValueError(
                f"num_steps is {self.num_steps} and max_time {self.max_time}, expected at least 2 "
                f"and a positive time"
            )
        if self.channels_together < 1 or CHANNELS % self.channels_together:
            raise ValueError(
                f"channels_together is {self.channels_together}, expected a divisor of {CHANNELS}"
            )
        if self.unit not in UNITS or not 0 <= self.most_late <= 1:
            raise ValueError(
                f"unit is {self.unit!r} and most_late {self.most_late}, expected one of "
                f"{list(UNITS)} and a share from 0 to 1"
            )


def events_source(
    settings: EventSettings, source_dir: str | os.PathLike, processes: int = 1
) -> Source:
    """Read events as counts.

    Args:
      settings: which set, and its bins.
      source_dir: folder of the .h5 files.
      processes: not used.

    Returns:
      A Source of inputs (n, num_steps, 700 / channels_together) uint16 counts.

    Raises:
      FileNotFoundError, ValueError: files are missing or damaged.
    """
    folder = pathlib.Path(source_dir)
    files = {name: folder / file for name, file in FILES[settings.dataset].items()}
    missing = [path.name for path in files.values() if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}")
    for path in files.values():
        check_link(folder, path)
    labels = {name: read_labels(path, settings) for name, path in files.items()}
    found = {name: len(array) for name, array in labels.items()}
    rows = {name: np.arange(count) for name, count in found.items()}
    parts = [(name, rows[name]) for name in files]
    counts = dict(found)
    if "validation" not in files:
        # In the order of the file, for rows of a file are read fastest so.
        train, validation = map(np.sort, held_out(labels["train"], 0.1, seed=settings.seed))
        parts = [("train", train), ("train", validation), ("test", rows["test"])]
        counts = {"train": len(train), "validation": len(validation), "test": found["test"]}
    notes = []

    return Source(
        name=settings.dataset,
        counts=counts,
        shape=(settings.num_steps, CHANNELS // settings.channels_together),
        dtype="uint16",
        num_classes=CLASSES[settings.dataset],
        vocab_size=None,
        blocks=_read_blocks(files, labels, parts, settings, notes),
        settings=dataclasses.asdict(settings),
        scaling=lambda counts: Scaling(1.0),
        differences=count_differences(PUBLISHED[settings.dataset], found),
        notes=notes,
    )


def bin_events(
    times: np.ndarray, units: np.ndarray, settings: EventSettings
) -> tuple[np.ndarray, int]:
    """Count the events of one recording in bins of time and groups of channels.

    Args:
      times: (n,) in `settings.unit`, not negative.
      units: (n,) channels in [0, 700).
      settings: the bins.

    Returns:
      (num_steps, 700 / channels_together) int64 counts, and how many events were late.

    Raises:
      ValueError: times and units do not match, or are out of range.
    """
    times, units = np.asarray(times, np.float64), np.asarray(units)
    if times.ndim != 1:
        raise ValueError(f"times of shape {times.shape}, expected a list of events")
    if times.shape != units.shape:
        raise ValueError(f"{times.size:,} times but {units.size:,} units")
    if not (times >= 0).all():  # refuses NaN, too
        raise ValueError("a time is negative or not a number")
    if units.size and not 0 <= units.min() <= units.max() < CHANNELS:
        raise ValueError(f"units from {units.min()} to {units.max()}, expected 0 to {CHANNELS - 1}")
    edges = np.linspace(0, settings.max_time, settings.num_steps)
    step = np.digitize(times * UNITS[settings.unit], edges)
    late = int((step == settings.num_steps).sum())
    step = np.minimum(step, settings.num_steps - 1)
    width = CHANNELS // settings.channels_together
    index = step * width + units.astype(np.int64) // settings.channels_together
    counts = np.bincount(index, minlength=settings.num_steps * width)
    return counts.reshape(settings.num_steps, width), late


def read_labels(path: str | os.PathLike, settings: EventSettings) -> np.ndarray:
    """Read the labels of one file, and check that it is of the published form.

    Args:
      path: of the HDF5 file.
      settings: which set, and the window and the unit of its times.

    Returns:
      (n,) int32.

    Raises:
      ValueError: the file is damaged, lacks a group, its parts do not match, it reads other files,
        or its times do not fit the window.
    """
    most = max(PUBLISHED[settings.dataset].values())
    found = survey(path, _SETS, settings.max_time)
    shapes = {name: tuple(shape) for name, shape in found["shapes"].items()}
    first = shapes["labels"]
    if set(shapes.values()) != {first} or len(first) != 1 or not 0 < first[0] <= most:
        raise ValueError(
            f"{path}: its parts do not match, are empty or more than {most:,}: {shapes}"
        )
    with open_sets(path, _SETS) as sets:
        labels = sets["labels"][:]
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{path}: labels are {labels.dtype}, expected whole numbers")
    if labels.min() < 0 or labels.max() >= CLASSES[settings.dataset]:
        raise ValueError(
            f"{path}: labels from {labels.min()} to {labels.max()}, expected 0 to "
            f"{CLASSES[settings.dataset] - 1}"
        )
    _check_unit(path, found, settings)
    return labels.astype(np.int32)


def _check_unit(path, found, settings):
    """Refuse times of which many are late, or which all are as good as zero: guess their unit."""
    events, late, last = found["events"], found["late"], found["last"]
    share = late[settings.unit] / max(1, events)
    early = events and last * UNITS[settings.unit] < _SHORTEST * settings.max_time
    if share <= settings.most_late and not early:
        return
    if early:
        problem = f"all times are below {_SHORTEST:.0%} of max_time={settings.max_time} s"
    else:
        problem = (
            f"{late[settings.unit]:,} of {events:,} events come at max_time={settings.max_time} s "
            f"or later"
        )
    fits = [
        unit for unit, scale in UNITS.items()
        if late[unit] <= settings.most_late * events
        and last * scale >= _SHORTEST * settings.max_time
    ]
    if fits:
        advice = f"are they in {_WORDS[fits[0]]}? Pass unit={fits[0]!r} (--set=unit={fits[0]})"
    else:
        advice = "name their unit, a longer max_time, or the share most_late that may be late"
    raise ValueError(
        f"{path}: times reach {last:,.4g}, so that in {_WORDS[settings.unit]} {problem}; {advice}"
    )


def _read_blocks(files, labels, parts, settings, notes):
    """Yield blocks of all parts, (file, rows in rising order); then note how many were late."""
    late = np.zeros(2, np.int64)  # late events, and all events
    for name, rows in parts:
        for block in np.split(rows, range(_BLOCK, len(rows), _BLOCK)):
            inputs, late_here = _read_rows(files[name], block, settings)
            late += late_here
            yield inputs, np.full(len(block), settings.num_steps, np.int32), labels[name][block]
    notes.append(
        f"{late[0]:,} of {late[1]:,} events came at {settings.max_time} s or later; they are "
        f"counted in the last step"
    )


def _read_rows(path, rows, settings):
    """Counts (B, num_steps, inputs) of rows in rising order; late events and all events."""
    with open_sets(path, _SETS) as sets:
        times, units = sets["spikes/times"][rows], sets["spikes/units"][rows]
    width = CHANNELS // settings.channels_together
    inputs = np.empty((len(rows), settings.num_steps, width), np.uint16)
    late = 0
    for place, row in enumerate(rows):
        try:
            counts, late_here = bin_events(times[place], units[place], settings)
        except ValueError as error:
            raise ValueError(f"{path}, recording {row}: {error}") from error
        if counts.max() > np.iinfo(np.uint16).max:
            raise ValueError(f"{path}, recording {row}: {counts.max():,} events in one bin")
        inputs[place] = counts
        late += late_here
    return inputs, (late, sum(map(len, times)))
