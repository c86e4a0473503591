"""Pairs of papers, character by character: the Retrieval task of the Long Range Arena.

Does one paper of the ACL Anthology Network cite the other? Each document has up to 4,000 tokens
with <eos>. Reads new_aan_pairs.{train,eval,test}.tsv of the published release: lines of label, two
identifiers and two texts, separated by tabs.
"""

import dataclasses
import functools
import os
import pathlib

import numpy as np

from pspike_jax.data.characters import count_characters
from pspike_jax.data.source import Source, count_differences
from pspike_jax.data.tables import read_rows
from pspike_jax.data.untrusted import check_link

FILES = {
    "train": "new_aan_pairs.train.tsv",
    "validation": "new_aan_pairs.eval.tsv",
    "test": "new_aan_pairs.test.tsv",
}
PUBLISHED = {"train": 147_086, "validation": 18_090, "test": 17_437}
_BLOCK = 500
_MOST_IN_A_PAIR = 1 << 24  # bytes, and characters of a document
_LOST = bytes(512)  # a sector of a disk


@dataclasses.dataclass(frozen=True)
class RetrievalSettings:
    """How to read the pairs.

    Attributes:
      max_length: L, tokens of each document with <eos>; what is longer is cut.
      min_frequency: rarer characters become <unk>.
    """

    max_length: int = 4000
    min_frequency: int = 1

    def __post_init__(self):
        if self.max_length < 2:
            raise ValueError(f"max_length is {self.max_length}, expected at least 2")


def retrieval_source(
    settings: RetrievalSettings, source_dir: str | os.PathLike, processes: int = 1
) -> Source:
    """Read the pairs as characters.

    Args:
      settings: lengths and vocabulary.
      source_dir: folder of the three .tsv files.
      processes: not used.

    Returns:
      A Source of inputs (n, 2, max_length) tokens and lengths (n, 2).

    Raises:
      FileNotFoundError, ValueError: files are missing or damaged.
    """
    folder = pathlib.Path(source_dir)
    missing = [name for name in FILES.values() if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}")
    for file in FILES.values():
        check_link(folder, folder / file)
    found = {name: sum(1 for _ in read_pairs(folder / file)) for name, file in FILES.items()}
    empty = [FILES[name] for name, count in found.items() if not count]
    if empty:
        raise ValueError(f"{folder}: no pairs in {', '.join(empty)}")
    texts = (text for _, *pair in read_pairs(folder / FILES["train"]) for text in pair)
    vocabulary = count_characters(texts, settings.max_length, settings.min_frequency)

    def blocks():
        for file in FILES.values():
            block = []
            for pair in read_pairs(folder / file):
                block.append(pair)
                if len(block) == _BLOCK:
                    yield _encode(block, vocabulary, settings.max_length)
                    block = []
            if block:
                yield _encode(block, vocabulary, settings.max_length)

    return Source(
        name="retrieval (AAN)",
        counts=found,
        shape=(2, settings.max_length),
        dtype=vocabulary.dtype,
        num_classes=2,
        vocab_size=len(vocabulary),
        blocks=blocks(),
        settings=dataclasses.asdict(settings),
        differences=count_differences(PUBLISHED, found) + [
            f"{file}: {damage}"
            for file in FILES.values() for damage in _signs_of_damage(folder / file)
        ],
        notes=[f"vocabulary: {len(vocabulary)} tokens"],
    )


def read_pairs(path: str | os.PathLike):
    """Read one published file, line by line.

    Args:
      path: of the file.

    Yields:
      Label (0 or 1) and the two texts.

    Raises:
      ValueError: a line is not of the published form.
    """
    for number, row in read_rows(path, _MOST_IN_A_PAIR, "utf-8"):
        if len(row) != 5 or row[0] not in ("0", "1", "0.0", "1.0"):
            raise ValueError(
                f"{path}, line {number}: {len(row)} fields that begin with "
                f"{row[0][:20] if row else ''!r}, expected label, two identifiers and two texts"
            )
        if not row[3] or not row[4]:
            raise ValueError(f"{path}, line {number}: an empty document")
        yield int(row[0][0]), row[3], row[4]


def _signs_of_damage(path):
    """Yield what a whole file would not have, though its lines can be read."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            yield "its last line does not end, it may be truncated"
        file.seek(0)
        if any(_LOST in piece for piece in iter(functools.partial(file.read, 1 << 24), b"")):
            yield "it holds a block of zeros, it may be damaged"


def _encode(pairs, vocabulary, length):
    texts = [text for _, *pair in pairs for text in pair]
    tokens, lengths = vocabulary.encode(texts, length)
    labels = np.array([label for label, *_ in pairs], np.int32)
    return tokens.reshape(-1, 2, length), lengths.reshape(-1, 2), labels
