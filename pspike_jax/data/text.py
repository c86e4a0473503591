"""IMDB reviews read character by character: the Text task of the Long Range Arena.

Two classes, up to 4,096 tokens with <eos>; characters that occur fewer than 15 times in the
training reviews become <unk>. A tenth of the 25,000 training reviews is held out for validation, by
a seeded choice of this project; the published programs select models on the test reviews instead,
which `open_prepared(..., validation="test")` repeats. The vocabulary is counted on all 25,000.
Reads the published folders of the archive aclImdb (Maas et al. 2011).
"""

import dataclasses
import itertools
import os
import pathlib

import numpy as np

from pspike_jax.data.characters import count_characters
from pspike_jax.data.source import Source, count_differences, held_out
from pspike_jax.data.tfds_reader import in_batches, open_tfds
from pspike_jax.data.untrusted import list_files, read_text

CLASSES = ("neg", "pos")
PUBLISHED = {"train": 25_000, "test": 25_000}
_BLOCK = 1000
_MOST_BYTES = 1 << 20  # of a review; the longest published has some 14,000


@dataclasses.dataclass(frozen=True)
class TextSettings:
    """How to read IMDB.

    Attributes:
      max_length: L, tokens with <eos>; what is longer is cut.
      min_frequency: rarer characters become <unk>.
      validation_share: share of the training reviews that is held out.
      reader: "files" for the published folders, "tfds" for a set that TensorFlow Datasets prepared.
      seed: of the order of the reviews and of the choice for validation.
    """

    max_length: int = 4096
    min_frequency: int = 15
    validation_share: float = 0.1
    reader: str = "files"
    seed: int = 42

    def __post_init__(self):
        if self.max_length < 2 or not 0 < self.validation_share < 1:
            raise ValueError(
                f"max_length is {self.max_length} and validation_share {self.validation_share}, "
                f"expected at least 2, and a share between 0 and 1"
            )
        if self.reader not in ("files", "tfds"):
            raise ValueError(f"reader is {self.reader!r}, expected 'files' or 'tfds'")


def text_source(
    settings: TextSettings, source_dir: str | os.PathLike, processes: int = 1
) -> Source:
    """Read IMDB as characters.

    Args:
      settings: lengths and vocabulary, and where the reviews come from.
      source_dir: the folder aclImdb, or the one it lies in; or the data_dir of TFDS.
      processes: not used.

    Returns:
      A Source of inputs (n, max_length) tokens.

    Raises:
      FileNotFoundError, ValueError: files are missing or damaged.
    """
    splits = (_read_files if settings.reader == "files" else _read_tfds)(source_dir)
    texts, labels = splits["train"]
    vocabulary = count_characters(texts, settings.max_length, settings.min_frequency)
    train, validation = held_out(labels, settings.validation_share, seed=settings.seed)
    found = {name: len(labels) for name, (_, labels) in splits.items()}

    def blocks():
        rows = {"test": np.arange(found["test"]), "train": np.concatenate([train, validation])}
        for name in ("train", "test"):
            texts, labels = splits[name]
            for start in range(0, len(labels), _BLOCK):
                block = rows[name][start : start + _BLOCK]
                tokens = vocabulary.encode([texts[row] for row in block], settings.max_length)
                yield *tokens, labels[block]

    return Source(
        name="text (IMDB)",
        counts={"train": len(train), "validation": len(validation), "test": found["test"]},
        shape=(settings.max_length,),
        dtype=vocabulary.dtype,
        num_classes=len(CLASSES),
        vocab_size=len(vocabulary),
        blocks=blocks(),
        settings=dataclasses.asdict(settings),
        differences=count_differences(PUBLISHED, found),
        notes=[f"vocabulary: {len(vocabulary)} tokens"],
    )


def _read_files(source_dir):
    folder = pathlib.Path(source_dir)
    folder = folder / "aclImdb" if (folder / "aclImdb").is_dir() else folder
    splits = {}
    for split in PUBLISHED:
        texts, labels = [], []
        for label, name in enumerate(CLASSES):
            place = folder / split / name
            files = list_files(place, ".txt", source_dir)
            if not files:
                raise FileNotFoundError(f"{place}: no .txt files")
            texts += [_read_text(place / file) for file in files]
            labels += [label] * len(files)
        splits[split] = (texts, np.array(labels, np.int32))
    return splits


def _read_text(path):
    text = read_text(path, _MOST_BYTES)
    if not text:
        raise ValueError(f"{path}: empty")
    if "\0" in text:  # a disk that lost a file may leave as many zeros
        raise ValueError(f"{path}: damaged, it holds zero bytes")
    return text


def _read_tfds(source_dir):
    sets = open_tfds(
        "imdb_reviews", source_dir, tuple(PUBLISHED), read=_read_example, config="plain_text"
    )
    splits = {}
    for name, examples in sets.items():
        texts, labels = zip(*itertools.chain.from_iterable(in_batches(examples, 1000)))
        splits[name] = (texts, np.array(labels, np.int32))
    return splits


def _read_example(example):
    if not 0 <= example["label"] < len(CLASSES):
        raise ValueError(f"a label is {example['label']}, expected 0 to {len(CLASSES) - 1}")
    return example["text"].decode("utf-8"), example["label"]
