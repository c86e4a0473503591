"""Sets that TensorFlow Datasets prepared: read without TensorFlow, and without a network."""

import importlib.util
import io
import socket

import numpy as np
import pytest
from PIL import Image

from pspike_jax.data import cifar, mnist, speech_commands, text
from pspike_jax.data.characters import count_characters
from pspike_jax.data.source import load_source
from pspike_jax.data.tfds_reader import open_tfds

tfds = pytest.importorskip("tensorflow_datasets")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_datasets")
WORDS = ["down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "_unknown_"]


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def build(folder, dataset, version, features, splits, config=None):
    """Prepare a data set as TensorFlow Datasets does, from {split: [example]}."""

    class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(rows) for split, rows in splits.items()}

        def _generate_examples(self, rows):
            yield from enumerate(rows)

    Written(data_dir=folder, file_format="array_record").download_and_prepare()


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to open a connection fails the test."""

    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def images_of(shape, splits):
    """Example k of a split is an image of k; labels are k % 10."""
    features = {
        "image": tfds.features.Image(shape=(*shape[:2], shape[2])),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    squeeze = shape if shape[2] == 3 else shape[:2]
    rows = {
        split: [
            {"image": png(np.full(squeeze, k, np.uint8)), "label": k % 10} for k in range(count)
        ]
        for split, count in splits.items()
    }
    return features, rows


def test_mnist_source_reads_a_prepared_set(tmp_path, no_network):
    build(tmp_path, "mnist", "3.0.1", *images_of((28, 28, 1), {"train": 60, "test": 20}))
    settings = mnist.MnistSettings(order="bit_reversal", reader="tfds")
    task = load_source(mnist.mnist_source(settings, tmp_path))
    assert [len(split.targets) for split in task.splits().values()] == [54, 6, 20]
    values = np.rint(255 * task.test.inputs[:][:, 0, 0]).astype(int)
    assert sorted(values) == list(range(20))
    np.testing.assert_array_equal(task.test.targets, values % 10)


def test_cifar_source_reads_a_prepared_set(tmp_path, no_network):
    build(tmp_path, "cifar10", "3.0.2", *images_of((32, 32, 3), {"train": 60, "test": 20}))
    settings = cifar.CifarSettings(color=True, reader="tfds")
    source = cifar.cifar_source(settings, tmp_path)
    inputs, _, labels = [np.concatenate(part) for part in zip(*source.blocks)]
    assert inputs.shape == (80, 1024, 3)
    np.testing.assert_array_equal(labels, inputs[:, 500, 1] % 10)


def test_text_source_reads_a_prepared_set(tmp_path, no_network):
    reviews = {
        split: [{"text": f"{word} film", "label": k} for k, word in enumerate(("bad", "good"))] * 5
        for split in ("train", "test")
    }
    features = {
        "text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["neg", "pos"])
    }
    build(tmp_path, "imdb_reviews", "1.0.0", features, reviews, config="plain_text")
    settings = text.TextSettings(max_length=9, min_frequency=1, reader="tfds")
    task = load_source(text.text_source(settings, tmp_path))
    letters = count_characters(["bad film", "good film"] * 5, 9, 1).characters
    for tokens, length, label in zip(*task.test[:3]):
        read = "".join(letters[token - 3] for token in tokens[: length - 1])
        assert read == ("good fil" if label else "bad film")


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="sound features need TensorFlow"
)
def test_speech_source_reads_the_ten_words_of_a_prepared_set(tmp_path, rng, no_network):
    clips = [
        {"audio": rng.integers(-9000, 9000, 16_000 if k % 3 else 900), "label": name}
        for name in WORDS for k in range(6)
    ]
    features = {
        "audio": tfds.features.Audio(file_format="wav", sample_rate=16_000),
        "label": tfds.features.ClassLabel(names=WORDS),
    }
    splits = {"train": clips[:40], "validation": clips[40:50], "test": clips[50:]}
    build(tmp_path, "speech_commands", "0.0.3", features, splits)
    settings = speech_commands.SpeechSettings(words=10, reader="tfds")
    source = speech_commands.speech_source(settings, tmp_path)
    assert source.num_examples == 40
    inputs, _, labels = [np.concatenate(part) for part in zip(*source.blocks)]
    read = {tuple(sound[:5, 0]): speech_commands.TEN_WORDS[k] for sound, k in zip(inputs, labels)}
    assert read == {
        tuple(clip["audio"][:5]): clip["label"]
        for clip in clips if clip["audio"].size == 16_000 and clip["label"] != "_unknown_"
    }


def test_open_tfds_says_how_to_prepare_a_missing_set(tmp_path, no_network):
    with pytest.raises(FileNotFoundError, match="tfds build mnist --file_format=array_record"):
        open_tfds("mnist", tmp_path, ("train",))


def test_open_tfds_names_a_missing_split(tmp_path):
    build(tmp_path, "mnist", "3.0.1", *images_of((28, 28, 1), {"train": 3}))
    with pytest.raises(ValueError, match=r"no split \['test'\], found \['train'\]"):
        open_tfds("mnist", tmp_path, ("train", "test"))


def edit(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


@pytest.mark.parametrize("file, old, new, reason", [
    ("features.json", "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
     "this.ClassLabel", "pythonClassName is 'this.ClassLabel', expected a feature of"),
    ("features.json", '"pythonClassName": "tensorflow_datasets.core.features.features_dict',
     '"type": "antigravity", "pythonClassName": "tensorflow_datasets.core.features.features_dict',
     "type is 'antigravity', expected a feature of"),
    ("dataset_info.json", "{DATASET}-", "../{DATASET}-", "filepathTemplate is .*in this folder"),
    ("dataset_info.json", '"name": "train"', '"name": "/etc/train"', "name is '/etc/train'"),
    ("dataset_info.json", '"fileFormat"', '"fileFormats"', "not readable as array_record"),
    ("features.json", "{", "[", "not JSON"),
])
def test_open_tfds_refuses_classes_and_files_of_others(tmp_path, file, old, new, reason):
    build(tmp_path, "mnist", "3.0.1", *images_of((28, 28, 1), {"train": 3, "test": 3}))
    edit(tmp_path / "mnist" / "3.0.1" / file, old, new)
    with pytest.raises(ValueError, match=f"3.0.1.*{reason}"):
        open_tfds("mnist", tmp_path, ("train", "test"))


def test_open_tfds_refuses_a_link_that_leaves(tmp_path):
    build(tmp_path / "set", "mnist", "3.0.1", *images_of((28, 28, 1), {"train": 3}))
    records = next((tmp_path / "set" / "mnist" / "3.0.1").glob("*-train.*"))
    records.rename(tmp_path / "away")
    records.symlink_to(tmp_path / "away")
    with pytest.raises(ValueError, match=f"{records.name} is a link that leaves"):
        open_tfds("mnist", tmp_path / "set", ("train",))


@pytest.mark.parametrize("image, reason", [
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no PNG file"),
    (png(np.zeros((9, 9), np.uint8)), r"\(9, 9\) pixels"),
    (png(np.zeros((28, 28), np.uint8))[:50], "cannot be read"),
])
def test_mnist_source_names_the_set_of_a_picture_that_is_none(tmp_path, image, reason):
    features, rows = images_of((28, 28, 1), {"train": 20, "test": 3})
    # Written as it is: the builder reads pictures only when it is given arrays.
    rows["train"][4]["image"] = io.BytesIO(image)
    build(tmp_path, "mnist", "3.0.1", features, rows)
    with pytest.raises(ValueError, match=f"3.0.1: one of examples 0 to 19 .*{reason}"):
        mnist.mnist_source(mnist.MnistSettings(reader="tfds"), tmp_path)


def test_mnist_source_names_the_set_of_damaged_records(tmp_path):
    build(tmp_path, "mnist", "3.0.1", *images_of((28, 28, 1), {"train": 20, "test": 3}))
    records = next((tmp_path / "mnist" / "3.0.1").glob("*-train.*"))
    content = bytearray(records.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    records.write_bytes(content)
    with pytest.raises(ValueError, match="3.0.1: "):
        mnist.mnist_source(mnist.MnistSettings(reader="tfds"), tmp_path)
