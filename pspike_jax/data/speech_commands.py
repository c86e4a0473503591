"""Speech Commands v0.02, raw at 16 kHz: one second of sound, 16,000 steps.

  sc10  ten words, only clips of exactly 16,000 samples, split 70/15/15 at random, with the same
        shares of every word; not the official lists: as the S4 and P-SpikeSSM programs do
  sc35  all 35 words, shorter clips padded with zeros behind, the official lists

Samples are 16-bit integers read as [-1, 1). `standardize="per_step"` repeats a quirk of those
programs, which may or may not have been meant: a second division by 2^15, then each time step by
its mean and deviation over the training clips, (x - mean_t) / (deviation_t + 1e-5).
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
import wave
from collections.abc import Sequence

import numpy as np

from pspike_jax.data.scaled import Scaling
from pspike_jax.data.source import Source, count_differences, held_out, in_order
from pspike_jax.data.tfds_reader import in_batches, open_tfds
from pspike_jax.data.untrusted import check_link, list_files, open_regular, read_text

SAMPLE_RATE = 16_000
LENGTH = 16_000
TEN_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
ALL_WORDS = tuple(
    "backward bed bird cat dog down eight five follow forward four go happy house learn left "
    "marvin nine no off on one right seven sheila six stop three tree two up visual wow yes zero"
    .split()
)
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
PUBLISHED_10 = {"clips of 16,000 samples of ten words": 34_975}
PUBLISHED_35 = {"train": 84_843, "validation": 9_981, "test": 11_005}
_FULL_SCALE = 2.0**15
_BLOCK = 256
_MOST_BYTES = 1 << 20  # of a clip; the sound takes 32 kB


@dataclasses.dataclass(frozen=True)
class SpeechSettings:
    """How to read Speech Commands.

    Attributes:
      words: 10 or 35.
      standardize: "none", or "per_step" as the published programs do.
      reader: "files" for the published folders, "tfds" (ten words only) for a set that TensorFlow
        Datasets prepared; it lacks part of the clips.
      seed: of the split of sc10.
    """

    words: int = 35
    standardize: str = "none"
    reader: str = "files"
    seed: int = 0

    def __post_init__(self):
        if self.words not in (10, 35) or self.standardize not in ("none", "per_step"):
            raise ValueError(
                f"words is {self.words} and standardize {self.standardize!r}, expected 10 or 35, "
                f"and 'none' or 'per_step'"
            )
        if self.reader not in ("files", "tfds") or (self.reader == "tfds" and self.words != 10):
            raise ValueError(
                f"reader is {self.reader!r} for {self.words} words, expected 'files', or 'tfds' "
                f"with ten words: that set names only these"
            )


def speech_source(
    settings: SpeechSettings, source_dir: str | os.PathLike, processes: int = 1
) -> Source:
    """Read Speech Commands as raw sound.

    Args:
      settings: which words, and how they are scaled.
      source_dir: folder of a folder for each word and the two lists; or the data_dir of TFDS.
      processes: how many processes read files.

    Returns:
      A Source of inputs (n, 16000, 1) int16.

    Raises:
      FileNotFoundError, ValueError: files are missing or damaged.
    """
    if settings.words == 35:
        splits = list_official(source_dir)
        counts = {name: len(paths) for name, (paths, _) in splits.items()}
        differences = count_differences(PUBLISHED_35, counts)
        jobs = (
            (paths[i : i + _BLOCK], labels[i : i + _BLOCK])
            for paths, labels in splits.values()
            for i in range(0, len(paths), _BLOCK)
        )
        blocks = in_order(_read_block, jobs, processes)
    else:
        read = _ten_words_from_files if settings.reader == "files" else _ten_words_from_tfds
        labels, read_rows = read(pathlib.Path(source_dir), processes)
        rest, test = held_out(labels, 0.15, seed=settings.seed)
        train, validation = held_out(labels[rest], len(test) / len(rest), seed=settings.seed)
        parts = {"train": rest[train], "validation": rest[validation], "test": test}
        counts = {name: len(rows) for name, rows in parts.items()}
        order = np.concatenate(list(parts.values()))
        blocks = read_rows(order)
        differences = count_differences(PUBLISHED_10, {name: len(labels) for name in PUBLISHED_10})
    return Source(
        name=f"sc{settings.words}",
        counts=counts,
        shape=(LENGTH, 1),
        dtype="int16",
        num_classes=settings.words,
        vocab_size=None,
        blocks=blocks,
        settings=dataclasses.asdict(settings),
        scaling=_per_step if settings.standardize == "per_step" else _full_scale,
        differences=differences,
    )


def list_official(
    source_dir: str | os.PathLike,
) -> dict[str, tuple[list[pathlib.Path], np.ndarray]]:
    """List the clips of all 35 words by the official lists.

    Args:
      source_dir: folder of a folder for each word and the two lists.

    Returns:
      For each split, paths in a fixed order, and labels (n,) int32, indices into ALL_WORDS.

    Raises:
      FileNotFoundError, ValueError: a list or a word is missing, or a list names no clip.
    """
    folder = pathlib.Path(source_dir)
    clips = _list_clips(folder, ALL_WORDS)
    named = {}
    for split, name in LISTS.items():
        path = check_link(folder, folder / name)
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing")
        lines = read_text(path, encoding="ascii").split()
        if not lines:
            raise ValueError(f"{path}: lists no clip")
        for number, line in enumerate(lines, 1):
            if line not in clips:
                raise ValueError(f"{path}, line {number}: no clip {line} in {folder}")
            if line in named:
                raise ValueError(f"{path}, line {number}: {line} is listed twice")
            named[line] = split
    splits = {}
    for split in ("train", "validation", "test"):
        members = [clip for clip in clips if named.get(clip, "train") == split]
        labels = [ALL_WORDS.index(clip.split("/")[0]) for clip in members]
        splits[split] = ([folder / clip for clip in members], np.array(labels, np.int32))
    return splits


def read_wav(path: str | os.PathLike) -> np.ndarray:
    """Read one clip: 16 kHz, one channel, 16-bit integers.

    Args:
      path: of the file.

    Returns:
      (n,) int16 samples, n from 1 to 16,000.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is empty, truncated, damaged or of another format.
    """
    with _open_wav(path) as file:
        count = file.getnframes()
        data = file.readframes(count)
    if len(data) != 2 * count:
        raise ValueError(f"{path}: truncated, {len(data) // 2:,} of {count:,} samples")
    return np.frombuffer(data, "<i2")


@contextlib.contextmanager
def _open_wav(path):
    """Open a clip of the published form; nothing but its header is read."""
    with open_regular(path, _MOST_BYTES) as opened:
        try:
            file = wave.open(opened, "rb")
        except (wave.Error, EOFError, OSError, RuntimeError, ValueError) as error:
            reason = str(error) or "it ends too soon"
            raise ValueError(f"{path}: not a readable WAV file ({reason})") from error
        form = (file.getframerate(), file.getnchannels(), 8 * file.getsampwidth())
        count = file.getnframes()
        if form != (SAMPLE_RATE, 1, 16):
            raise ValueError(
                f"{path}: {form[0]} Hz, {form[1]} channels, {form[2]} bits; expected 16000 Hz, 1 "
                f"channel, 16 bits"
            )
        if not 0 < count <= LENGTH:
            raise ValueError(f"{path}: {count:,} samples, expected 1 to {LENGTH:,}")
        yield file


def _list_clips(folder: pathlib.Path, words: Sequence[str]) -> dict[str, None]:
    """List clips as "word/file.wav", word by word and sorted by name; a dict, for look-up."""
    clips = {}
    for word in words:
        names = list_files(folder / word, ".wav", folder)
        if not names:
            raise FileNotFoundError(f"{folder / word}: no .wav files")
        clips |= dict.fromkeys(f"{word}/{name}" for name in names)
    return clips


def _has_full_length(path):
    with _open_wav(path) as file:
        return file.getnframes() == LENGTH


def _ten_words_from_files(folder, processes):
    """Labels of the clips of full length, and a function from rows to blocks."""
    clips = list(_list_clips(folder, TEN_WORDS))
    full = [clip for clip in clips if _has_full_length(folder / clip)]
    if not full:
        raise ValueError(f"{folder}: no clip of the ten words has {LENGTH:,} samples")
    labels = np.array([TEN_WORDS.index(clip.split("/")[0]) for clip in full], np.int32)

    def read_rows(rows):
        jobs = (
            ([folder / full[row] for row in block], labels[block])
            for block in np.split(rows, range(_BLOCK, len(rows), _BLOCK))
        )
        return in_order(_read_block, jobs, processes)

    return labels, read_rows


def _ten_words_from_tfds(folder, _):
    """As `_ten_words_from_files`, from all splits of TFDS, which are not used as such."""
    clips, labels = [], []
    splits = ("train", "validation", "test")
    sets = open_tfds(
        "speech_commands", folder, splits, read=lambda one: (one["label"], one["audio"])
    )
    for examples in sets.values():
        names = examples.records.dataset_info.features["label"].names
        for number, audio in itertools.chain.from_iterable(in_batches(examples, 500)):
            word = names[number] if 0 <= number < len(names) else ""
            if word in TEN_WORDS and audio.shape == (LENGTH,):
                clips.append(audio.astype(np.int16))
                labels.append(TEN_WORDS.index(word))
    labels = np.array(labels, np.int32)

    def read_rows(rows):
        for block in np.split(rows, range(_BLOCK, len(rows), _BLOCK)):
            sound = np.stack([clips[row] for row in block])[..., None]
            yield sound, np.full(len(block), LENGTH, np.int32), labels[block]

    return labels, read_rows


def _read_block(job):
    """Read clips, padded with zeros; lengths are those of the sound."""
    paths, labels = job
    inputs = np.zeros((len(paths), LENGTH, 1), np.int16)
    lengths = np.empty(len(paths), np.int32)
    for row, path in enumerate(paths):
        sound = read_wav(path)
        inputs[row, : sound.size, 0] = sound
        lengths[row] = sound.size
    return inputs, lengths, labels


def _full_scale(_):
    return Scaling(_FULL_SCALE)


def _per_step(sound):
    """Moments of each time step over the training clips, of samples divided twice."""
    pieces = range(0, len(sound), _BLOCK)
    read = functools.partial(_piece, sound)
    mean = sum(read(start).sum(axis=0) for start in pieces) / len(sound)
    square = sum(((read(start) - mean) ** 2).sum(axis=0) for start in pieces)
    std = np.sqrt(square / max(1, len(sound) - 1))
    return Scaling(_FULL_SCALE**2, mean.astype(np.float32), (std + 1e-5).astype(np.float32))


def _piece(sound, start):
    return sound[start : start + _BLOCK].astype(np.float64) / _FULL_SCALE**2
