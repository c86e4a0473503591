"""A few of the damaged files that `fuzz.py` reads by the thousand."""

import random
import warnings

import numpy as np
import pytest
from fuzz import read_damaged
from fuzz_loaders import LOADERS, Loader

QUICK = [
    "idx", "CIFAR binary", "TSV, listops", "TSV, pairs", "text", "PNG and lists", "prepared",
    "prepared, not verified", "prepared, signed again", "metrics.jsonl", "config.json",
    "npz, weights of P-SpikeSSM",
]


@pytest.mark.parametrize("name", QUICK)
def test_damaged_files_are_refused_by_name_or_read_right(tmp_path, name):
    loader, folder = LOADERS[name], tmp_path / name
    folder.mkdir()
    loader.write(folder, np.random.default_rng(0))
    loader.load(folder)
    for number in range(20):
        what, outcome = read_damaged(folder, loader, random.Random(f"{name} {number}"))
        assert outcome in ("read", "refused"), (number, what)


def raising(error, cause=None):
    def load(folder):
        raise error from cause

    return load


@pytest.mark.parametrize(
    ("load", "outcome"),
    [
        (raising(ValueError("somewhere")), "NOT NAMED: ValueError('somewhere')"),
        (raising(ValueError("in file.txt")), "refused"),
        (raising(ValueError("in file.txt"), MemoryError()), "TOO LARGE: ValueError('in file.txt')"),
        (raising(KeyError("file.txt")), "WRONG: KeyError('file.txt')"),
        (raising(AssertionError()), "WRONG: AssertionError()"),
        (lambda folder: warnings.warn("careless"), "WRONG: UserWarning('careless')"),
        (lambda folder: None, "read"),
    ],
)
def test_read_damaged_tells_what_came_of_it(tmp_path, load, outcome):
    (tmp_path / "sound").mkdir()
    (tmp_path / "sound" / "file.txt").write_text("content")
    found = read_damaged(tmp_path / "sound", Loader(None, load), random.Random(0))
    assert found[1] == outcome
