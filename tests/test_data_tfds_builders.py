"""The generated sets as TensorFlow datasets: the same examples as everywhere else."""

import socket

import numpy as np
import pytest

from pspike_jax.data import pathfinder, source, tfds_builders
from pspike_jax.data.listops import ListOpsSettings, listops_source
from pspike_jax.data.pathfinder import PathfinderSettings, pathfinder_source

tfds = pytest.importorskip("tensorflow_datasets")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_datasets")

LISTOPS = ListOpsSettings(min_length=5, max_length=24, num_train=30, num_validation=4, num_test=5)
PATHFINDER = PathfinderSettings(num_train=7, num_validation=5, num_test=4, contour_length=6)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any attempt to open a connection fails the test."""

    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_registered_listops_builder_holds_the_examples_of_the_source(tmp_path, monkeypatch):
    builder_class, _ = tfds_builders.register_builders()
    monkeypatch.setattr(builder_class, "settings", LISTOPS)
    builder = tfds.builder("pspike_listops", data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    task = source.load_source(listops_source(LISTOPS))
    for name, split in task.splits().items():
        examples = builder.as_data_source(name)
        found = [(e["inputs"].tobytes(), int(e["length"]), int(e["label"])) for e in examples]
        expected = [
            (row.tobytes(), int(length), int(label))
            for row, length, label in zip(split.inputs, split.lengths, split.targets)
        ]
        assert sorted(found) == sorted(expected)  # TFDS shuffles what it writes


def test_registered_pathfinder_builder_has_a_config_for_each_size():
    _, builder_class = tfds_builders.register_builders()
    assert tfds.builder_cls("pspike_pathfinder") is builder_class
    shapes = {
        name: config_shape(tfds, name) for name in ("size32", "size64", "size128", "size256")
    }
    assert shapes == {f"size{size}": (size, size, 1) for size in (32, 64, 128, 256)}


def config_shape(tfds, name):
    return tfds.builder(f"pspike_pathfinder/{name}").info.features["image"].shape


def test_pathfinder_rows_are_those_of_the_source(monkeypatch):
    for module in (pathfinder, tfds_builders):  # splits begin and end inside blocks
        monkeypatch.setattr(module, "BLOCK", 6)
    task = source.load_source(pathfinder_source(PATHFINDER))
    for name, split in task.splits().items():
        rows, examples = zip(*tfds_builders.pathfinder_rows(PATHFINDER, name))
        assert rows == tuple(range(len(split.targets)))
        assert [example["label"] for example in examples] == split.targets.tolist()
        images = np.stack([example["image"] for example in examples])
        np.testing.assert_array_equal(images.reshape(len(images), -1, 1), split.inputs.values)
