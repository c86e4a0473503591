"""A few of the damaged files that `fuzz.py` reads by the thousand."""

import functools
import random
import shutil
import warnings

import numpy as np
import pytest
from fuzz import read_damaged
from fuzz_loaders import LOADERS, Loader
from hostile import limited, shadow

# Reading takes a process, a compilation, or hundreds of files; fuzz.py does it by the thousand.
SLOW = {"HDF5": 4, "WAV, raw": 4, "WAV and lists, features": 4, "card and weights": 4,
        "card and weights, signed again": 4, "text": 8, "PNG and lists": 8, "npz, features": 4}
# Orbax takes seconds for each; test_faults.py damages checkpoints.
QUICK = [name for name in LOADERS if not name.startswith(("checkpoint", "pth"))]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Write the files of a loader once, for all tests of this module."""

    @functools.cache
    def write(name):
        folder = tmp_path_factory.mktemp("sound") / name
        folder.mkdir()
        LOADERS[name].write(folder, np.random.default_rng(0))
        return folder

    return write


@pytest.mark.parametrize("name", QUICK)
def test_damaged_files_are_refused_by_name_or_read_right(sound, name):
    for number in range(SLOW.get(name, 20)):
        what, outcome = read_damaged(sound(name), LOADERS[name], random.Random(f"{name} {number}"))
        assert outcome in ("read", "refused"), (number, what)


def first_of_each_kind(folder):
    """Yield a file of each ending."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.setdefault(path.suffix, path.relative_to(folder))
    return list(found.values())


@pytest.mark.parametrize("name", [name for name in QUICK if LOADERS[name].places])
def test_what_is_no_file_of_the_folder_is_refused_by_name(sound, tmp_path, name):
    for file in first_of_each_kind(sound(name)):
        if (name, file.suffix) == ("WAV, raw", ".txt"):  # lists that it does not read
            continue
        for place in LOADERS[name].places:
            copy = tmp_path / f"{place.__name__} {file.name}" / name
            shutil.copytree(sound(name), copy)
            place(copy / file, copy)
            with pytest.raises((ValueError, FileNotFoundError)) as caught:
                with limited(1 << 29, 60):
                    LOADERS[name].load(copy)
            assert file.name in str(caught.value), (place.__name__, file, caught.value)


@pytest.mark.parametrize("name", QUICK)
def test_shadows_that_macs_leave_are_not_read(sound, tmp_path, name):
    copy = tmp_path / name
    shutil.copytree(sound(name), copy)
    for file in first_of_each_kind(copy):
        shadow(copy / file)
    LOADERS[name].load(copy)


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
