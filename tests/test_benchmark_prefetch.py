"""Benchmark of prefetching: sets in the form of the real ones, shares as the log has them."""

import pathlib
import sys

import numpy as np
import pytest
from data_writers import write_cifar, write_events, write_mnist, write_reviews, write_speech

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import prefetch, storage, timing  # noqa: E402
from pspike_jax.data.catalog import CATALOG  # noqa: E402


def write_hdf5(folder, rng):
    for name in ("shd_train", "shd_test", "ssc_train", "ssc_valid", "ssc_test"):
        write_events(folder / f"{name}.h5", [([0.1], [3])] * 20, np.arange(20))


def write_texts(folder, rng):
    write_reviews(folder, {
        (split, name): ["good"] * 10 for split in ("train", "test") for name in ("neg", "pos")
    })
    for split in ("train", "eval", "test"):
        (folder / f"new_aan_pairs.{split}.tsv").write_text("1\ta\tb\tone\tother\n")


WRITERS = {
    "mnist": write_mnist, "cifar10": write_cifar, "speech_commands": write_speech,
    "shd": write_hdf5, "ssc": write_hdf5, "imdb": write_texts, "aan": write_texts,
    None: lambda folder, rng: None,
}


@pytest.mark.parametrize("dataset", prefetch.STORED)
def test_random_sets_have_the_stored_form_of_the_real_ones(dataset, tmp_path, rng):
    entry = CATALOG[dataset]
    WRITERS[entry.raw](tmp_path, rng)
    real = entry.make(entry.settings, tmp_path if entry.raw else None, 1)
    made = prefetch.random_source(dataset, 2, 1)
    for field in ("shape", "dtype", "num_classes", "lengths_shape"):
        assert getattr(made, field) == getattr(real, field), field
    assert (made.vocab_size is None) == (real.vocab_size is None)
    assert (made.scaling is None) == (real.scaling is None)
    if real.scaling is not None:
        given, expected = (source.scaling(np.zeros(0)) for source in (made, real))
        assert given.divisor == expected.divisor
        assert np.shape(given.mean) == np.shape(expected.mean)


def test_every_config_has_a_record(monkeypatch):
    monkeypatch.setattr(prefetch, "train", lambda name, steps: name)
    assert prefetch.measure(False) == [
        "listops", "text", "retrieval", "image", "pathfinder", "pathx", "smnist", "psmnist",
        "sc10", "sc35", "shd", "ssc", "gsc",
    ]


def test_where_time_goes_leaves_out_the_line_that_counts_compilation():
    lines = [
        {"time/data": data, "time/compute": compute, "time/save": 0.0,
         "time/waiting_for_data": data / (data + compute)}
        for data, compute in ((9.0, 1.0), (0.1, 0.3), (0.3, 1.3))
    ]
    assert prefetch.where_time_goes(lines) == {
        "data_s": 0.2, "compute_s": 0.8, "save_s": 0.0, "waiting": 0.2,
        "waiting_by_line": [0.25, 0.1875],
    }


def test_feed_trains_at_the_shape_of_the_config(tmp_path):
    timing.report(
        "prefetch", prefetch.measure, None, quick=True, folder=tmp_path, tabulate=prefetch.table
    )
    _, (record,) = timing.read(tmp_path / "prefetch.jsonl")
    assert (record["config"], record["inputs"], record["steps"]) == ("gsc", [8, 98, 40], 8)
    assert len(record["waiting_by_line"]) == prefetch.LINES - 1
    step = record["data_s"] + record["compute_s"] + record["save_s"]
    assert record["waiting"] == pytest.approx(record["data_s"] / step, abs=1e-6)
    assert record["batch_s"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["prefetch.jsonl"]


def test_batches_of_both_kinds_of_storage_are_equal():
    pytest.importorskip("array_record.python.array_record_module")
    records = storage.measure(quick=True)  # raises where they differ
    assert [r["contender"] for r in records] == ["memory map", "array_record"]
    assert records[1]["difference"] == 0 and "array_record" in storage.table(records)
