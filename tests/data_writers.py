"""Small files in the published formats of the data sets, for the tests of their readers."""

import gzip
import struct
import wave

import numpy as np

from pspike_jax.data.speech_commands import ALL_WORDS


def write_idx(path, array):
    """Write unsigned bytes as an idx file, gzipped where the name says so."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    opened = gzip.open(path, "wb") if path.suffix == ".gz" else open(path, "wb")
    with opened as file:
        file.write(header + array.astype(np.uint8).tobytes())


def write_mnist(folder, rng, train=40, test=20, suffix=""):
    """Write four idx files; return {split: (images, labels)}."""
    splits = {}
    for split, prefix, count in (("train", "train", train), ("test", "t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels)
        splits[split] = (images, labels)
    return splits


def write_cifar(folder, rng, count=10):
    """Write six binary batches; return {file name: (planes (n, 3, 32, 32), labels)}."""
    batches = {}
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        planes = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        records = np.concatenate([labels[:, None], planes.reshape(count, -1)], axis=1)
        (folder / name).write_bytes(records.tobytes())
        batches[name] = (planes, labels)
    return batches


def write_reviews(folder, texts):
    """Write {(split, class): [text]} as the folder aclImdb."""
    for (split, name), reviews in texts.items():
        place = folder / "aclImdb" / split / name
        place.mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(reviews):
            (place / f"{number}_7.txt").write_text(text, encoding="utf-8")


def write_wav(path, samples, rate=16_000, channels=1, width=2):
    """Write samples as a WAV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setframerate(rate)
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.writeframes(np.asarray(samples, f"<i{width}").tobytes())


def write_speech(folder, rng, clips=3, words=ALL_WORDS):
    """Write clips of every word, the last one short, and lists that name the first two."""
    sounds = {}
    for word in words:
        for k in range(clips):
            length = 16_000 if k < clips - 1 else 9_000
            sounds[f"{word}/{k:02d}.wav"] = rng.integers(-9000, 9000, length, dtype=np.int16)
    for name, sound in sounds.items():
        write_wav(folder / name, sound)
    for name, k in (("validation_list.txt", 0), ("testing_list.txt", 1)):
        (folder / name).write_text("".join(f"{word}/{k:02d}.wav\n" for word in words))
    return sounds


def write_events(path, recordings, labels):
    """Write recordings, each (times, units), as one HDF5 file of the published form."""
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("spikes")
        for place, name, dtype in ((0, "times", np.float32), (1, "units", np.int64)):
            data = group.create_dataset(
                name, (len(recordings),), dtype=h5py.vlen_dtype(np.dtype(dtype))
            )
            for row, recording in enumerate(recordings):
                data[row] = np.asarray(recording[place], dtype)
        file["labels"] = np.asarray(labels)
