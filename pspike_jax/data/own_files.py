"""Tasks of one's own files, without code: an archive of arrays, folders of sound, events.

Each is a name in `TASKS`, so that a config or the command line can ask for it:
--config.task.name=csv --config.task.path=FILE.csv. What files may say is what `from_arrays` and
`from_events` take.
"""

import dataclasses
import os
import pathlib
import wave
from typing import Any

import numpy as np

from pspike_jax import objectives
from pspike_jax.data.archives import read_npz
from pspike_jax.data.arrays import from_arrays
from pspike_jax.data.batches import Task
from pspike_jax.data.event_lists import from_events
from pspike_jax.data.hdf5 import open_sets
from pspike_jax.data.partition import random_rows
from pspike_jax.data.untrusted import list_files, open_regular

# Those that a name alone can ask for.
OBJECTIVES = {
    name: getattr(objectives, name) for name in objectives.__all__
    if dataclasses.is_dataclass(getattr(objectives, name))
}
_MOST_BYTES = 1 << 34  # of one file
_SOUND = {1: np.uint8, 2: np.dtype("<i2"), 4: np.dtype("<i4")}  # sample width in bytes


def load_arrays(
    *, path: str, objective: str | None = None, horizon: int | None = None,
    vocab_size: int | None = None, validation: float = 0.1, test: float = 0.1, seed: int = 0,
) -> Task:
    """Read a task from an archive of arrays, as `numpy.savez` writes it.

    Args:
      path: of the .npz file. It holds "inputs", and as they are known "targets", "lengths", "dt",
        "groups", and "split", the name of a split for each row; all as `from_arrays` takes them.
      objective: name of a class of `pspike_jax.objectives`; None for what the targets ask for.
      horizon: steps ahead, of a Forecast.
      vocab_size: number of tokens, or None for numbers.
      validation, test: shares, where the file has no "split".
      seed: of the choice.

    Returns:
      The task.

    Raises:
      FileNotFoundError: there is no such file.
      TypeError, ValueError: its arrays do not fit, or it has arrays of other names.
    """
    place = existing(path)
    arrays = read_npz(place, _MOST_BYTES)
    known = ("inputs", "targets", "lengths", "dt", "groups", "split")
    unknown = sorted(set(arrays) - set(known))
    if unknown or "inputs" not in arrays:
        raise ValueError(
            f"{place} holds {', '.join(sorted(arrays)) or 'nothing'}; expected inputs, and of "
            f"{', '.join(known[1:])} what there is"
        )
    return from_arrays(
        arrays["inputs"],
        arrays.get("targets"),
        objective=named_objective(objective, horizon),
        lengths=arrays.get("lengths"),
        dt=arrays.get("dt"),
        groups=arrays.get("groups"),
        splits=arrays.get("split"),
        vocab_size=vocab_size,
        name=place.stem,
        **shares(validation, test, seed),
    )


def load_wav_folder(
    *, path: str, frame: int = 1, validation: float = 0.1, test: float = 0.1, seed: int = 0
) -> Task:
    """Read a task from a folder of sound: in it a folder for each class, in that its .wav files.

    Args:
      path: of the folder.
      frame: samples that make one step; each is a feature. 1 reads sample by sample.
      validation, test, seed: as of `load_arrays`.

    Returns:
      The task, classes named by their folders, inputs in [-1, 1]; channels are averaged.

    Raises:
      FileNotFoundError: there is no such folder, or no sound in it.
      ValueError: a file is no uncompressed sound, or the files differ in their rates.
    """
    folder = existing(path)
    if frame < 1:
        raise ValueError(f"frame is {frame}, expected at least 1 sample")
    sounds, labels, rates = [], [], {}
    for each in sorted(one for one in folder.iterdir() if one.is_dir()):
        for name in list_files(each, ".wav", folder):
            sound, rate = _read_wav(each / name)
            rates.setdefault(rate, each / name)
            steps = max(1, -(-len(sound) // frame))
            padded = np.zeros(steps * frame, np.float32)
            padded[: len(sound)] = sound
            sounds.append(padded.reshape(steps, frame))
            labels.append(each.name)
    if not sounds:
        raise FileNotFoundError(f"{folder} holds no folders of .wav files, one a class")
    if len(rates) > 1:
        found = ", ".join(f"{rate} Hz {place}" for rate, place in rates.items())
        raise ValueError(f"sampling rates differ: {found}")
    return from_arrays(sounds, labels, name=folder.name, **shares(validation, test, seed))


def load_events(
    *, path: str, unit: str, bin_width: float | None = None, duration: float | None = None,
    num_channels: int | None = None, dt_unit: str = "s", test_path: str | None = None,
    validation: float = 0.1, test: float = 0.1, seed: int = 0,
) -> Task:
    """Read a task from lists of events in one file, or in two.

    Args:
      path: of an .npz file that holds "times" and "channels" of all examples one after the other,
        "counts", the events of each, and "labels"; or of an HDF5 file as the Heidelberg spiking
        datasets have it: "spikes/times", "spikes/units", "labels".
      unit: of times: "s", "ms", "us" or "ns".
      bin_width, duration, num_channels, dt_unit: as of `from_events`.
      test_path: of a file like that with the examples of the test split; `test` is then not used.
      validation, test, seed: as of `load_arrays`.

    Returns:
      The task.

    Raises:
      FileNotFoundError: there is no such file.
      TypeError, ValueError: it does not hold what is said above.
    """
    times, channels, labels = _read_events(existing(path))
    split: dict[str, Any] = shares(validation, test, seed)
    if test_path is not None:
        known, more = len(labels), _read_events(existing(test_path))
        times, channels = [*times, *more[0]], [*channels, *more[1]]
        labels = np.concatenate([labels, more[2]])
        _, classes = np.unique(labels[:known], return_inverse=True)
        rows = random_rows(known, (validation, 0.0), seed=seed, classes=classes)
        split = {"splits": rows | {"test": np.arange(known, len(labels))}}
    return from_events(
        times, channels, labels, unit=unit, bin_width=bin_width, duration=duration,
        num_channels=num_channels, dt_unit=dt_unit, name=pathlib.Path(path).stem, **split,
    )


def _read_events(place: pathlib.Path) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Return times, channels and labels of the examples of a file."""
    if place.suffix == ".npz":
        arrays = read_npz(place, _MOST_BYTES)
        missing = [n for n in ("times", "channels", "counts", "labels") if n not in arrays]
        if missing:
            raise ValueError(f"{place} lacks {', '.join(missing)}; it holds {sorted(arrays)}")
        cuts = np.cumsum(arrays["counts"])
        if cuts[-1] != len(arrays["times"]) or len(arrays["channels"]) != cuts[-1]:
            raise ValueError(
                f"{place}: counts say {cuts[-1]} events, there are {len(arrays['times'])} times "
                f"and {len(arrays['channels'])} channels"
            )
        times, channels = (np.split(arrays[name], cuts[:-1]) for name in ("times", "channels"))
        return times, channels, arrays["labels"]
    wanted = ("spikes/times", "spikes/units", "labels")
    with open_sets(place, wanted) as sets:
        times, channels = (list(sets[name][:]) for name in wanted[:2])
        return times, channels, np.asarray(sets["labels"][:])


def existing(path: str | os.PathLike) -> pathlib.Path:
    """Return the place of a file or folder; FileNotFoundError where there is none."""
    place = pathlib.Path(path).expanduser()
    if not str(path) or not place.exists():
        raise FileNotFoundError(f"task.path is {str(path)!r}, and nothing is there")
    return place


def shares(validation: float, test: float, seed: int) -> dict[str, Any]:
    """Return what `from_arrays` takes for a random split."""
    return {"validation": validation, "test": test, "seed": seed}


def named_objective(name: str | None, horizon: int | None) -> Any:
    """Return a class of `pspike_jax.objectives`, or an objective, by its name; None for None."""
    if name is None:
        return None
    if name not in OBJECTIVES:
        raise ValueError(f"objective is {name!r}, expected one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name] if horizon is None else OBJECTIVES[name](horizon)


def _read_wav(path: pathlib.Path) -> tuple[np.ndarray, int]:
    """Return the samples of a file in [-1, 1], channels averaged, and their rate."""
    with open_regular(path, _MOST_BYTES) as opened:
        try:
            with wave.open(opened, "rb") as file:
                width, channels = file.getsampwidth(), file.getnchannels()
                rate = file.getframerate()
                content = file.readframes(file.getnframes())
        except (wave.Error, EOFError) as error:
            raise ValueError(f"{path} is no uncompressed sound: {error}") from error
    if width not in _SOUND:
        raise ValueError(f"{path} has samples of {width} bytes, expected 1, 2 or 4")
    samples = np.frombuffer(content, _SOUND[width]).reshape(-1, channels).mean(axis=1)
    samples = (samples - 128) / 128 if width == 1 else samples / 2.0 ** (8 * width - 1)
    return samples.astype(np.float32), rate
