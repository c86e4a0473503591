"""HDF5 files of events by strangers: their units are guessed, and no other file is read."""

import os
import struct

import numpy as np
import pytest
from data_writers import write_events

from pspike_jax.data import events
from pspike_jax.data.events import EventSettings
from pspike_jax.data.source import load_source

h5py = pytest.importorskip("h5py")


def recordings_of(rng, count, last=1.0):
    return [(np.sort(rng.uniform(0, last, 40)), rng.integers(0, 700, 40)) for _ in range(count)]


def write_shd(folder, rng, scale=1.0, last=1.0):
    recordings = recordings_of(rng, 20, last)
    scaled = [(times * scale, units) for times, units in recordings]
    for name in events.FILES["shd"].values():
        write_events(folder / name, scaled, np.arange(20))
    return recordings


SCALES = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


@pytest.mark.parametrize("unit, word", [
    ("ms", "milliseconds"), ("us", "microseconds"), ("ns", "nanoseconds"),
])
def test_events_source_guesses_the_unit_of_times_and_reads_it_when_told(tmp_path, rng, unit, word):
    recordings = write_shd(tmp_path, rng, SCALES[unit])
    with pytest.raises(ValueError, match=f"shd_train.h5: times reach .* are they in {word}. Pass "
                                         f"unit='{unit}'"):
        events.events_source(EventSettings(num_steps=25), tmp_path)
    settings = EventSettings(num_steps=25, unit=unit)
    test = load_source(events.events_source(settings, tmp_path)).test
    edges = np.linspace(0, 1.0, 25)
    for row, (times, units) in enumerate(recordings):
        expected = np.zeros((25, 140), int)
        scaled = np.float32(times * SCALES[unit]).astype(float) / SCALES[unit]
        for time, channel in zip(scaled, units):
            expected[min(24, sum(time >= edge for edge in edges)), channel // 5] += 1
        # A time within a rounding error of an edge may fall on either side.
        assert np.abs(test.inputs[[row]][0] - expected).sum() <= 2


def test_events_source_guesses_that_times_are_seconds_after_all(tmp_path, rng):
    write_shd(tmp_path, rng)
    with pytest.raises(ValueError, match="all times are below .* in seconds. Pass unit='s'"):
        events.events_source(EventSettings(unit="ms"), tmp_path)


def test_events_source_counts_a_small_share_that_is_late_and_refuses_a_large_one(tmp_path, rng):
    write_shd(tmp_path, rng, last=1.03)
    assert load_source(events.events_source(EventSettings(num_steps=9), tmp_path))
    write_shd(tmp_path, rng, last=1.3)
    with pytest.raises(ValueError, match="of 800 events come at max_time=1.0 s or later; name"):
        events.events_source(EventSettings(), tmp_path)
    settings = EventSettings(num_steps=9, most_late=0.5)
    assert load_source(events.events_source(settings, tmp_path))


@pytest.mark.parametrize("fields", [{"unit": "minutes"}, {"most_late": 1.5}])
def test_event_settings_refuse_other_units_and_shares(fields):
    with pytest.raises(ValueError, match=f"{list(fields.values())[0]}"):
        EventSettings(**fields)


def external_link(folder, file):
    file["spikes/times"] = h5py.ExternalLink(folder / "elsewhere" / "other.h5", "spikes/times")


def external_group(folder, file):
    del file["spikes"]
    file["spikes"] = h5py.ExternalLink(folder / "elsewhere" / "other.h5", "spikes")


def link_to_a_pipe(folder, file):
    os.mkfifo(folder / "pipe")
    file["spikes/times"] = h5py.ExternalLink(folder / "pipe", "spikes/times")


def soft_link(folder, file):
    file["times"] = h5py.SoftLink("/spikes/units")
    file["spikes/times"] = h5py.SoftLink("/times")


def virtual_set(folder, file):
    layout = h5py.VirtualLayout((20,), h5py.vlen_dtype(np.float32))
    layout[:] = h5py.VirtualSource(folder / "elsewhere" / "other.h5", "spikes/times", (20,))
    file["spikes"].create_virtual_dataset("times", layout)


def external_storage(folder, file):
    del file["labels"]
    file.create_dataset("labels", (20,), "i8", external=[("/dev/zero", 0, 160)])


def large_chunks(folder, file):
    del file["labels"]
    file.create_dataset("labels", (20,), "i8", chunks=(1 << 28,), maxshape=(None,))


def foreign_filter(folder, file):
    del file["labels"]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((20,))
    plan.set_filter(32_015, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((20,))
    h5py.h5d.create(file.id, b"labels", h5py.h5t.NATIVE_INT64, space, plan)


def long_list(folder, file):
    data = file["spikes"].create_dataset("times", (20,), h5py.vlen_dtype(np.float32))
    data[3] = np.zeros((1 << 18) + 1, np.float32)


@pytest.mark.parametrize("change, reason", [
    (external_link, "spikes/times is a link to another place"),
    (external_group, "spikes/times is a link to another place"),
    (link_to_a_pipe, "spikes/times is a link to another place"),
    (soft_link, "spikes/times is a link to another place"),
    (virtual_set, "the numbers of spikes/times are in another file"),
    (external_storage, "the numbers of labels are in another file"),
    (large_chunks, "labels has chunks .268435456,., more than 67,108,864 bytes"),
    (foreign_filter, r"labels is packed by filters \[32015\]"),
    (long_list, "spikes/times has a list of 262,145 numbers"),
])
def test_events_source_reads_this_file_alone_and_within_limits(tmp_path, rng, change, reason):
    (tmp_path / "elsewhere").mkdir()
    write_shd(tmp_path, rng)
    write_events(tmp_path / "elsewhere" / "other.h5", recordings_of(rng, 20), np.arange(20))
    with h5py.File(tmp_path / "shd_test.h5", "a") as file:
        del file["spikes/times"]
        if change in (external_storage, large_chunks, foreign_filter):
            file["spikes/times"] = file["spikes/units"]
        change(tmp_path, file)
    with pytest.raises(ValueError, match=f"shd_test.h5: .*{reason}"):
        events.events_source(EventSettings(), tmp_path)


def test_events_source_takes_no_memory_for_a_list_that_claims_gigabytes(tmp_path, rng):
    write_shd(tmp_path, rng)
    path = tmp_path / "shd_test.h5"
    content = path.read_bytes()
    with h5py.File(path) as file:
        heap = content.index(b"GCOL")
        first = struct.pack("<I", 40) + struct.pack("<Q", heap)
        assert content.count(first) and len(file["spikes/times"]) == 20
    path.write_bytes(content.replace(first, struct.pack("<I", 0xFFFFFFF0) + first[4:]))
    with pytest.raises(ValueError, match="shd_test.h5: "):
        events.events_source(EventSettings(), tmp_path)
