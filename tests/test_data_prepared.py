"""Prepared sets: what is read is what was written, and nothing half-prepared passes for whole."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
from data_writers import write_mnist

from pspike_jax import data
from pspike_jax.command import prepare as command
from pspike_jax.data import catalog, prepared
from pspike_jax.data.scaled import Scaled, Scaling
from pspike_jax.data.source import Source, held_out, in_order, load_source


def make_source(**changes):
    """Twelve examples of 5 steps and 2 numbers, in blocks of 4; example k holds k everywhere."""
    inputs = np.repeat(np.arange(12, dtype=np.int16), 10).reshape(12, 5, 2)
    lengths, labels = np.arange(12, dtype=np.int32) % 5 + 1, np.arange(12, dtype=np.int32) % 3
    fields = dict(
        name="twelve",
        counts={"train": 7, "validation": 2, "test": 3},
        shape=(5, 2),
        dtype="int16",
        num_classes=3,
        vocab_size=None,
        blocks=((inputs[i : i + 4], lengths[i : i + 4], labels[i : i + 4]) for i in (0, 4, 8)),
        settings={"seed": 1},
        scaling=lambda train: Scaling(2.0, np.full(2, train.max(), np.float32), None),
    )
    return Source(**fields | changes)


@pytest.fixture
def folder(tmp_path):
    """A prepared set."""
    prepared.write_prepared(make_source(), tmp_path / "data" / "twelve")
    return tmp_path / "data" / "twelve"


def test_open_prepared_reads_what_was_written(folder):
    task, memory = prepared.open_prepared(folder), load_source(make_source())
    assert task.name == "twelve" and task.num_classes == 3
    for name, split in task.splits().items():
        expected = memory.splits()[name]
        for array, other in zip(split[:3], expected):
            np.testing.assert_array_equal(array[:], other[:])
    np.testing.assert_array_equal(task.test.inputs[:][:, 0, 0], np.arange(9, 12) / 2 - 6)
    assert isinstance(task.train.inputs.values, np.memmap)


def test_write_prepared_leaves_the_set_alone_in_its_parent(folder):
    names = {"inputs.npy", "labels.npy", "lengths.npy", "manifest.json", "mean.npy"}
    assert {path.name for path in folder.iterdir()} == names
    assert list(folder.parent.iterdir()) == [folder]


def test_open_prepared_makes_batches(folder):
    task = prepared.open_prepared(folder)
    batch = data.train_batch(task.train, seed=0, step=1, batch_size=3)
    rows = data.train_rows(7, seed=0, step=1, batch_size=3)
    np.testing.assert_array_equal(batch["inputs"][:, 0, 0], rows / 2 - 6)
    assert [array.dtype for array in batch.values()] == [np.float32, np.int32, np.int32]


def test_open_prepared_selects_on_the_test_split_when_told(folder):
    task = prepared.open_prepared(folder, validation="test")
    assert len(task.train.targets) == 9
    np.testing.assert_array_equal(task.validation.targets, task.test.targets)
    with pytest.raises(ValueError, match="validation is 'train'"):
        prepared.open_prepared(folder, validation="train")


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def edit(folder, **changes):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


@pytest.mark.parametrize("damage, reason", [
    (lambda f: flip(f / "inputs.npy", -3), "inputs.npy: its sha256 is not that"),
    (lambda f: flip(f / "labels.npy", -3), "labels.npy: its sha256 is not that"),
    (lambda f: flip(f / "mean.npy", -3), "mean.npy: its sha256 is not that"),
    (lambda f: os.truncate(f / "inputs.npy", 200), "inputs.npy: 200 bytes, manifest.json says"),
    (lambda f: (f / "lengths.npy").unlink(), "lengths.npy: missing"),
    (lambda f: os.truncate(f / "manifest.json", 300), "manifest.json: not a manifest"),
    (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json: not a manifest"),
    (lambda f: edit(f, num_classes=4), "manifest.json: damaged, its checksum does not fit"),
    (lambda f: edit(f, format=2), "manifest.json: format 2, this version reads 1"),
])
def test_open_prepared_names_the_damaged_file(folder, damage, reason):
    damage(folder)
    with pytest.raises(ValueError, match=reason):
        prepared.open_prepared(folder)


def test_open_prepared_notices_another_array_without_checksums(folder):
    with (folder / "inputs.npy").open("r+b") as file:
        header = file.read(128)
        file.seek(0)
        file.write(header.replace(b"(12, 5, 2)", b"(12, 2, 5)"))
    with pytest.raises(ValueError, match=r"inputs.npy: <i2 \(12, 2, 5\), manifest.json says"):
        prepared.open_prepared(folder, verify=False)


def sign(folder, **changes):
    """Change a manifest, as a stranger may, and write a checksum that fits."""
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    del manifest["checksum"]
    manifest["checksum"] = prepared.checksum(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("changes, reason", [
    ({"arrays": {}}, "twelve: not a prepared data set .'inputs'"),
    ({"arrays": {"inputs": 1}}, "manifest.json: not a manifest"),
    ({"arrays": None}, "manifest.json: not a manifest"),
    ({"splits": {}}, "twelve: not a prepared data set .'train'"),
    ({"splits": {"train": [0, 2], "validation": [0, 99], "test": [5, 3]}}, "no empty axis"),
    ({"num_classes": 2}, "twelve: not a prepared data set .*expected 0 to 1"),
    ({"num_classes": "two"}, "twelve: not a prepared data set"),
    ({"divisor": 0}, "twelve: not a prepared data set .*divisor is 0"),
])
def test_open_prepared_trusts_no_signature(folder, changes, reason):
    sign(folder, **changes)
    with pytest.raises(ValueError, match=reason):
        prepared.open_prepared(folder)


def failing_blocks():
    yield from list(make_source().blocks)[:2]
    raise ValueError("file 9 is damaged")


@pytest.mark.parametrize("changes, reason", [
    ({"blocks": failing_blocks()}, "file 9 is damaged"),
    ({"blocks": list(make_source().blocks)[:2]}, "8 examples came, 12 were announced"),
    ({"counts": {"train": 6, "validation": 2, "test": 3}}, "more than the 11 examples"),
    ({"counts": {"train": 9, "validation": 0, "test": 3}}, "no examples for validation"),
    ({"dtype": "uint8"}, "a block holds int16"),
    ({"num_classes": 2}, "labels from 0 to 2, expected 0 to 1"),
    ({"differences": ["train: 7 examples, 70 were published"]}, "7 examples, 70 were published"),
])
def test_write_prepared_leaves_nothing_behind_when_it_fails(tmp_path, changes, reason):
    with pytest.raises(ValueError, match=reason):
        prepared.write_prepared(make_source(**changes), tmp_path / "data" / "twelve")
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())


def test_write_prepared_names_a_partial_set(tmp_path):
    source = make_source(differences=["train: 7 examples, 70 were published"])
    prepared.write_prepared(source, tmp_path / "twelve", partial=True)
    assert prepared.open_prepared(tmp_path / "twelve").name == "twelve (partial)"
    assert not prepared.read_manifest(tmp_path / "twelve")["complete"]


def test_write_prepared_refuses_to_overwrite(folder):
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(FileExistsError, match="exists; delete it"):
        prepared.write_prepared(make_source(settings={"seed": 2}), folder)
    assert (folder / "manifest.json").read_bytes() == before


def test_write_prepared_begins_nothing_that_the_disk_cannot_hold(tmp_path, monkeypatch):
    needed = 12 * (5 * 2 * 2 + 4 + 4)  # int16 inputs, a length and a label
    for free in (needed - 1, needed):
        usage = types.SimpleNamespace(free=free)
        monkeypatch.setattr(prepared.shutil, "disk_usage", lambda folder, usage=usage: usage)
        if free < needed:
            with pytest.raises(OSError, match="twelve takes 336 bytes, but .* has only 335 left"):
                prepared.write_prepared(make_source(), tmp_path / "twelve")
            assert not list(tmp_path.iterdir())
    prepared.write_prepared(make_source(), tmp_path / "twelve")


def test_a_killed_run_leaves_no_set_and_the_next_one_makes_it(tmp_path):
    """Killed in the middle of writing: the place stays empty, the left-over is named."""
    program = (
        "import sys\nsys.path[:0] = ['tests', '.']\n"
        "import time, test_data_prepared as t\n"
        "from pspike_jax.data import prepared\n"
        "def slow():\n"
        "    blocks = list(t.make_source().blocks)\n"
        "    yield blocks[0]\n"
        "    print('started', flush=True)\n"
        "    time.sleep(60)\n"
        f"prepared.write_prepared(t.make_source(blocks=slow()), {str(tmp_path / 'twelve')!r})\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True,
        cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
    )
    with run:
        assert run.stdout.readline() == "started\n"
        run.send_signal(signal.SIGKILL)
    assert not (tmp_path / "twelve").exists()
    assert len(prepared.unfinished_folders(tmp_path / "twelve")) == 1
    with pytest.raises(FileNotFoundError):
        prepared.open_prepared(tmp_path / "twelve")
    prepared.write_prepared(make_source(), tmp_path / "twelve")
    assert len(prepared.open_prepared(tmp_path / "twelve").train.targets) == 7


def test_scaled_divides_then_takes_the_mean_then_divides_by_the_deviation():
    values = np.arange(24, dtype=np.int16).reshape(3, 4, 2)
    mean, std = np.array([1, 2], np.float32), np.array([2, 4], np.float32)
    scaled = Scaled(values, Scaling(8.0, mean, std))
    rows = np.array([2, 0])
    np.testing.assert_array_equal(scaled[rows], (values[rows] / 8 - mean) / std)
    assert scaled.shape == (3, 4, 2) and len(scaled) == 3 and scaled[rows].dtype == np.float32


@pytest.mark.parametrize("values, scaling, error", [
    (np.zeros(3), Scaling(1.0), TypeError),
    (np.zeros(3, int), Scaling(0.0), ValueError),
    (np.zeros(3, int), Scaling(1.0, None, np.zeros(1)), ValueError),
    (np.zeros(3, int), Scaling(1.0, np.array([np.nan])), ValueError),
    (np.zeros(3, int), Scaling(1.0, None, np.full(1, 1e-38, np.float32)), ValueError),
])
def test_scaled_refuses_what_is_not_finite(values, scaling, error):
    with pytest.raises(error, match="expected"):
        Scaled(values, scaling)


def test_held_out_takes_the_same_share_of_every_class():
    labels = np.repeat([0, 1, 2], [50, 25, 33])
    stay, out = held_out(labels, 0.1, seed=3)
    assert sorted([*stay, *out]) == list(range(108))
    assert len(out) == 11
    assert np.abs(np.bincount(labels[out]) - np.array([5.0, 2.5, 3.3])).max() < 1
    again = held_out(labels, 0.1, seed=3)
    np.testing.assert_array_equal(out, again[1])


@pytest.mark.parametrize("count", [0, 1])
def test_held_out_refuses_to_leave_nothing(count):
    with pytest.raises(ValueError, match=f"{count} examples, expected at least 2"):
        held_out(np.zeros(count, int), 0.1, seed=0)


def test_in_order_keeps_the_order_of_several_processes():
    assert list(in_order(abs, range(-50, 0), 2)) == list(range(50, 0, -1))


@pytest.mark.parametrize("dataset", list(catalog.CATALOG))
def test_load_prepared_says_what_to_do_about_a_missing_set(tmp_path, dataset):
    entry = catalog.CATALOG[dataset]
    with pytest.raises(FileNotFoundError) as error:
        data.load_prepared(dataset=dataset, data_dir=str(tmp_path))
    message = str(error.value)
    assert f"pspike prepare --dataset={dataset} --data_dir={tmp_path}" in message
    assert entry.size in message and entry.files in message
    if entry.raw is not None:
        assert str(tmp_path / "raw" / entry.raw) in message


def test_load_prepared_names_the_known_sets(tmp_path):
    with pytest.raises(ValueError, match="known data sets: listops, pathfinder32"):
        data.load_prepared(dataset="imagenet", data_dir=str(tmp_path))


SMALL = {"min_length": "5", "max_length": "40", "num_train": "60", "num_validation": "5",
         "num_test": "5"}


def test_prepare_builds_then_verifies(tmp_path):
    first = command.prepare("listops", tmp_path, changes=SMALL)
    again = command.prepare("listops", tmp_path, changes=SMALL)
    assert "prepared and verified" in first and "already prepared, verified" in again
    assert "train: 60 examples (40,)" in first and "listops (reduced)" in first
    task = data.load_prepared(dataset="listops", data_dir=str(tmp_path))
    memory = data.generate_listops(
        min_length=5, max_length=40, num_train=60, num_validation=5, num_test=5, seed=0
    )
    np.testing.assert_array_equal(task.train.inputs, memory.train.inputs)
    np.testing.assert_array_equal(task.test.targets, memory.test.targets)


def test_prepare_refuses_other_settings_in_the_same_place(tmp_path):
    command.prepare("listops", tmp_path, changes=SMALL)
    with pytest.raises(ValueError, match="was prepared with .* give another --name"):
        command.prepare("listops", tmp_path, changes=SMALL | {"seed": "1"})
    command.prepare("listops", tmp_path, changes=SMALL | {"seed": "1"}, name="other")
    assert data.load_prepared(dataset="other", data_dir=str(tmp_path)).num_classes == 10


def test_prepare_does_not_take_a_generated_set_for_the_published_one(tmp_path):
    command.prepare("listops", tmp_path, changes=SMALL)
    with pytest.raises(ValueError, match="'published_files': False.*'published_files': True"):
        command.prepare("listops", tmp_path, changes=SMALL, source_dir=tmp_path)


def test_prepare_draws_a_contact_sheet(tmp_path, monkeypatch):
    from PIL import Image

    counts = {"num_train": "10", "num_validation": "1", "num_test": "1"}

    def stop_halfway(path, images, labels):
        path.write_bytes(b"\x89PNG")
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(command, "write_contact_sheet", stop_halfway)
        command.prepare("pathfinder32", tmp_path, changes=counts)
    assert not list(tmp_path.rglob("*contact_sheet*"))
    command.prepare("pathfinder32", tmp_path, changes=counts)
    with Image.open(tmp_path / "pathfinder32" / "contact_sheet.png") as sheet:
        assert sheet.size == (8 * 134, 2 * (4 * 134 + 22))
        assert np.asarray(sheet).max() == 255


def test_prepare_says_where_missing_files_go(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)lacks .*train-images.*Put train-images.*in"):
        command.prepare("psmnist", tmp_path)
    assert not (tmp_path / "psmnist").exists()


def test_prepare_looks_for_files_under_raw(tmp_path, rng):
    (tmp_path / "raw" / "mnist").mkdir(parents=True)
    write_mnist(tmp_path / "raw" / "mnist", rng)
    with pytest.raises(ValueError, match="60,000 were published.*--allow_partial"):
        command.prepare("psmnist", tmp_path)
    assert not (tmp_path / "psmnist").exists()
    report = command.prepare("psmnist", tmp_path, allow_partial=True)
    assert "psmnist (partial)" in report


@pytest.mark.parametrize("changes, reason", [
    ({"sed": "1"}, "unknown setting 'sed'; did you mean 'seed'"),
    ({"seed": "one"}, "seed is 'one', expected int"),
    ({"color": "maybe"}, "color is 'maybe', expected bool"),
])
def test_change_settings_refuses_what_it_cannot_read(changes, reason):
    with pytest.raises(ValueError, match=reason):
        command.change_settings(catalog.CATALOG["image"].settings, changes)


def test_change_settings_reads_every_kind_of_field():
    settings = command.change_settings(catalog.CATALOG["image"].settings, {"color": "true"})
    assert settings == dataclasses.replace(catalog.CATALOG["image"].settings, color=True)
    assert command.change_settings(catalog.CATALOG["ssc"].settings, {"max_time": "1"}).max_time == 1


@pytest.mark.parametrize("dataset", ["sc10", "retrieval", "listops"])
def test_load_stand_in_has_the_shapes_of_the_set(dataset):
    task = data.load_stand_in(dataset=dataset, length=20, num_train=40, seed=0)
    assert task.name == f"stand-in for {dataset} (synthetic)"
    shape = {"sc10": (40, 20, 1), "retrieval": (40, 2, 20), "listops": (40, 20)}[dataset]
    assert task.train.inputs.shape == shape
    again = data.load_stand_in(dataset=dataset, length=20, num_train=40, seed=0)
    np.testing.assert_array_equal(task.train.inputs, again.train.inputs)
