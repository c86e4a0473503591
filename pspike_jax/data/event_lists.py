"""Tasks of one's own events: times and channels, binned to counts or kept one a step."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pspike_jax.data.arrays import from_arrays, plain
from pspike_jax.data.batches import Task
from pspike_jax.data.dlpack import Arrays

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
MOST_STEPS = 1 << 20  # of one example; more come of a wrong unit
MOST_BYTES = 1 << 34  # of all counts together
# Fewer events a bin than this, in examples of more bins than that, are taken for another unit.
SPARSE, MANY_STEPS = 1e-3, 10_000
LATE_SHARE = 0.01  # of all events may lie behind `duration` and are left out

Events = list[tuple[np.ndarray, np.ndarray]]


def from_events(
    times: Sequence[Arrays],
    channels: Sequence[Arrays],
    labels: Arrays,
    *,
    unit: str,
    bin_width: float | None = None,
    duration: float | None = None,
    num_channels: int | None = None,
    dt_unit: str = "s",
    name: str = "events",
    **options: Any,
) -> Task:
    """Make a task of the caller's own events, such as recorded spikes or an event camera's.

    With `bin_width` inputs are counts, (n, L, F) of F channels: bin k holds the events of times in
    [k, k + 1) bin_width. Without it events are kept: inputs are tokens (n, L), the channels in
    order of time, and "dt" is the time since the event before, in `dt_unit`, 0 at the first.

    Args:
      times: n arrays, each of an example's event times since its start, in `unit`.
      channels: n arrays of integers, the channel of each event.
      labels: targets, as of `from_arrays`.
      unit: of times: "s", "ms", "us" or "ns".
      bin_width: in seconds, or None to keep events.
      duration: in seconds, of every example; None takes each as long as its last event. Up to one
        in a hundred events may lie behind it and are left out.
      num_channels: F; None takes the highest channel plus one.
      dt_unit: of the "dt" of kept events: one in which events are about 1 apart suits the step
        sizes that models start from.
      name: what pictures and tables call the task.
      **options: of `from_arrays`: objective, groups, splits, validation and others.

    Returns:
      The task.

    Raises:
      TypeError, ValueError: as `from_arrays` does; events are no pairs of times and channels, or
        the unit does not fit the durations that it gives.
    """
    for what, named in (("unit", unit), ("dt_unit", dt_unit)):
        if named not in UNITS:
            raise ValueError(f"{what} is {named!r}, expected one of {', '.join(UNITS)}")
    for what, number in (("bin_width", bin_width), ("duration", duration)):
        if number is not None and not 0 < number < math.inf:
            raise ValueError(f"{what} is {number}, expected seconds above 0")
    events, num_channels = _read_events(times, channels, num_channels)
    if duration is not None:
        events = _within(events, duration, unit)
    if bin_width is None:
        inputs, dt = _kept(events, UNITS[unit] / UNITS[dt_unit])
        return from_arrays(
            inputs, labels, dt=dt, vocab_size=num_channels, name=name, **options
        )
    inputs, lengths = _binned(events, num_channels, bin_width, duration, unit)
    return from_arrays(inputs, labels, lengths=lengths, name=name, **options)


def _read_events(times, channels, num_channels) -> tuple[Events, int]:
    """Check pairs of times and channels, and put each example's in order of time."""
    if len(times) != len(channels) or not len(times):
        raise ValueError(f"{len(times)} arrays of times and {len(channels)} of channels")
    events, highest = [], -1
    for row, (when, where) in enumerate(zip(times, channels)):
        when, where = plain(when, f"times[{row}]"), plain(where, f"channels[{row}]")
        if when.ndim != 1 or when.shape != where.shape:
            raise ValueError(
                f"times[{row}] have shape {when.shape}, channels[{row}] {where.shape}, expected "
                "(events,) both"
            )
        if when.dtype.kind not in "fiu" or (where.size and where.dtype.kind not in "iu"):
            raise TypeError(
                f"times[{row}] are {when.dtype}, channels[{row}] {where.dtype}, expected numbers "
                "and integers"
            )
        if not np.isfinite(when).all() or when.min(initial=0) < 0:
            raise ValueError(f"times[{row}] hold {when.min()}, expected 0 or more, and finite")
        if where.min(initial=0) < 0:
            raise ValueError(f"channels[{row}] hold {where.min()}, expected 0 or more")
        highest = max(highest, int(where.max(initial=-1)))
        order = np.argsort(when, kind="stable")
        events.append((when[order], where[order].astype(np.int64)))
    if num_channels is None:
        num_channels = highest + 1
    if highest >= num_channels or num_channels < 1:
        raise ValueError(f"the highest channel is {highest}, expected 0 to {num_channels - 1}")
    return events, num_channels


def _within(events: Events, duration: float, unit: str) -> Events:
    """Leave out the few events behind the duration; of many, say which unit would fit."""
    last = duration / UNITS[unit]
    total = sum(len(when) for when, _ in events)
    late = sum(int((when >= last).sum()) for when, _ in events)
    if late > LATE_SHARE * total:
        raise ValueError(
            f"{late:,} of {total:,} events lie behind duration={duration} s, with times in "
            f"{unit!r}{_other_unit(events, unit, duration)}"
        )
    return [(when[when < last], where[when < last]) for when, where in events]


def _other_unit(events: Events, unit: str, seconds: float) -> str:
    """Guess the unit: the largest in which the longest example takes at most so many seconds."""
    longest = max(float(when[-1]) for when, _ in events if len(when))
    fits = [name for name, size in UNITS.items() if longest * size <= seconds and name != unit]
    return f"; do they stand in {fits[0]!r}?" if fits else ""


def _kept(events: Events, scale: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    for row, (when, _) in enumerate(events):
        if not len(when):
            raise ValueError(f"times[{row}] hold no event; leave the example out, or bin events")
        if len(when) > MOST_STEPS:
            raise ValueError(f"times[{row}] hold {len(when):,} events; bin them, or cut them")
    # Differences before the conversion: float32 does not hold a day in microseconds.
    dt = [
        (np.diff(when, prepend=when[:1]).astype(np.float64) * scale).astype(np.float32)
        for when, _ in events
    ]
    return [where.astype(np.int32) for _, where in events], dt


def _binned(
    events: Events, num_channels: int, bin_width: float, duration: float | None, unit: str
) -> tuple[np.ndarray, np.ndarray]:
    """Count events; a bin is found in float64."""
    width = np.float64(f"{bin_width / UNITS[unit]:.12g}")  # 0.003 s are 3000 us, not one ulp less
    bins = [np.floor(when / width) for when, _ in events]
    most = max((int(one[-1]) + 1 for one in bins if len(one)), default=0)
    if most < 2:
        raise ValueError(
            f"no event lies behind the first bin of {bin_width} s, with times in {unit!r}: is that "
            "their unit?"
        )
    if duration is not None:
        steps = math.ceil(round(duration / bin_width, 9))
        lengths = np.full(len(events), steps, np.int32)
    else:
        steps = most
        lengths = np.array([int(one[-1]) + 1 if len(one) else 1 for one in bins])
    _check_bins(events, bins, steps, num_channels, bin_width, duration, unit)
    counts = np.zeros((len(events), steps, num_channels), np.uint8)
    for row, (one, (_, where)) in enumerate(zip(bins, events)):
        place = np.minimum(one, steps - 1).astype(np.int64) * num_channels + where
        names, numbers = np.unique(place, return_counts=True)
        if numbers.max(initial=0) > np.iinfo(counts.dtype).max:
            counts = counts.astype(np.uint32)
        counts[row].reshape(-1)[names] = numbers
    return counts, lengths.astype(np.int32)


def _check_bins(events, bins, steps, num_channels, bin_width, duration, unit):
    """Refuse what would not fit in memory, or is nearly empty because the unit is another."""
    size, fullest = len(events) * steps * num_channels, max(map(len, bins))
    if steps > MOST_STEPS or size > MOST_BYTES:
        raise ValueError(
            f"{len(events)} examples of up to {steps:,} bins of {bin_width} s and {num_channels} "
            f"channels, with times in {unit!r}{_other_unit(events, unit, 1e5 * bin_width)}"
        )
    if duration is None and steps > MANY_STEPS and fullest < SPARSE * steps:
        raise ValueError(
            f"examples of up to {steps:,} bins of {bin_width} s hold at most {fullest:,} events, "
            f"with times in {unit!r}{_other_unit(events, unit, MANY_STEPS * bin_width)}; otherwise "
            "give wider bins, or the duration"
        )
