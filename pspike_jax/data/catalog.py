"""The data sets of the experiments, by name: how each is made, from which files, and how large."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

from pspike_jax.data.batches import Task
from pspike_jax.data.cifar import CifarSettings, cifar_source
from pspike_jax.data.events import EventSettings, events_source
from pspike_jax.data.gsc import GscSettings, gsc_source
from pspike_jax.data.listops import ListOpsSettings, listops_source
from pspike_jax.data.mnist import MnistSettings, mnist_source
from pspike_jax.data.pathfinder import PathfinderSettings, pathfinder_source
from pspike_jax.data.prepared import open_prepared
from pspike_jax.data.retrieval import RetrievalSettings, retrieval_source
from pspike_jax.data.source import Source, load_source
from pspike_jax.data.speech_commands import SpeechSettings, speech_source
from pspike_jax.data.text import TextSettings, text_source


@dataclasses.dataclass(frozen=True)
class Entry:
    """One data set.

    Attributes:
      make: (settings, source_dir, processes) -> Source.
      settings: the published ones.
      size: of the prepared set on disk.
      raw: folder under DIR/raw where its files are looked for, or None for a generated set.
      files: which files, of which publication.
    """

    make: Callable[[Any, str | os.PathLike | None, int], Source]
    settings: Any
    size: str
    raw: str | None = None
    files: str = ""


_MNIST = (
    "mnist", "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
    "t10k-labels-idx1-ubyte of MNIST, plain or .gz (55 MB, or 12 MB)",
)
_CIFAR = ("cifar10", "cifar-10-batches-bin, the binary version of CIFAR-10 (184 MB)")
_SPEECH = (
    "speech_commands",
    "the folders of speech_commands_v0.02.tar.gz with validation_list.txt and testing_list.txt "
    "(2.3 GB packed)",
)
_SHD = ("shd", "shd_train.h5 and shd_test.h5 of the Heidelberg spiking datasets, unpacked")
_SSC = ("ssc", "ssc_train.h5, ssc_valid.h5 and ssc_test.h5 of the Heidelberg spiking datasets, "
        "unpacked")

CATALOG = {
    "listops": Entry(listops_source, ListOpsSettings(), "200 MB"),
    "pathfinder32": Entry(pathfinder_source, PathfinderSettings(size=32), "206 MB"),
    "pathfinder64": Entry(pathfinder_source, PathfinderSettings(size=64), "821 MB"),
    "pathfinder128": Entry(pathfinder_source, PathfinderSettings(size=128), "3.3 GB"),
    "pathfinder256": Entry(pathfinder_source, PathfinderSettings(size=256), "13 GB"),
    "smnist": Entry(mnist_source, MnistSettings(order="rows"), "55 MB", *_MNIST),
    "psmnist": Entry(mnist_source, MnistSettings(order="bit_reversal"), "55 MB", *_MNIST),
    "psmnist_random": Entry(mnist_source, MnistSettings(order="random"), "55 MB", *_MNIST),
    "image": Entry(cifar_source, CifarSettings(color=False), "62 MB", *_CIFAR),
    "image_color": Entry(cifar_source, CifarSettings(color=True), "185 MB", *_CIFAR),
    "text": Entry(
        text_source, TextSettings(), "205 MB", "imdb", "the folder aclImdb of aclImdb_v1.tar.gz "
        "(84 MB packed)",
    ),
    "retrieval": Entry(
        retrieval_source, RetrievalSettings(), "1.5 GB", "aan", "new_aan_pairs.train.tsv, "
        "new_aan_pairs.eval.tsv and new_aan_pairs.test.tsv of the Long Range Arena release",
    ),
    "sc10": Entry(speech_source, SpeechSettings(words=10), "1.1 GB", *_SPEECH),
    "sc35": Entry(speech_source, SpeechSettings(words=35), "3.4 GB", *_SPEECH),
    "gsc": Entry(gsc_source, GscSettings(), "1.7 GB", *_SPEECH),
    "shd": Entry(events_source, EventSettings(), "730 MB", *_SHD),
    "ssc": Entry(
        events_source, EventSettings(dataset="ssc", num_steps=300, max_time=1.2), "8.9 GB", *_SSC
    ),
    "ssc_10ms": Entry(
        events_source, EventSettings(dataset="ssc", num_steps=100, max_time=1.0), "3 GB", *_SSC
    ),
}


def raw_folder(entry: Entry, data_dir: str | os.PathLike) -> pathlib.Path | None:
    """Choose the folder in which the files of a data set are looked for.

    Args:
      entry: of the catalog.
      data_dir: folder of all data.

    Returns:
      DIR/raw/NAME if that is there, else DIR itself; None for a generated set.
    """
    if entry.raw is None:
        return None
    folder = pathlib.Path(data_dir) / "raw" / entry.raw
    return folder if folder.is_dir() else pathlib.Path(data_dir)


def how_to_prepare(name: str, data_dir: str | os.PathLike) -> str:
    """Say what to run, where to put which files, and how large the set will be.

    Args:
      name: of the set, in the catalog.
      data_dir: folder of all data.

    Returns:
      One sentence or two.
    """
    entry = CATALOG[name]
    command = f"pspike prepare --dataset={name} --data_dir={data_dir}"
    if entry.raw is None:
        return f"Run: {command} (it is generated, {entry.size})."
    folder = pathlib.Path(data_dir) / "raw" / entry.raw
    return (
        f"Put {entry.files} into {folder}, and run: {command} (the prepared set takes "
        f"{entry.size}). Nothing is downloaded."
    )


def load_prepared(
    *, dataset: str, data_dir: str, validation: str = "held_out", verify: bool = True
) -> Task:
    """Open a data set that `pspike prepare` has prepared.

    Args:
      dataset: its name in the catalog, or the name it was prepared under.
      data_dir: folder of all data.
      validation: "held_out" or "test"; see `open_prepared`.
      verify: compare checksums, which reads the whole set once.

    Returns:
      The task; its arrays stay on disk.

    Raises:
      FileNotFoundError: it is not prepared; the message says how to prepare it.
      ValueError: it is damaged, or nobody knows it.
    """
    data_dir = pathlib.Path(data_dir).expanduser()
    folder = data_dir / dataset
    if folder.parent != data_dir or dataset == "..":  # a config names it, maybe a stranger's
        raise ValueError(f"dataset is {dataset!r}, expected the name of a folder in {data_dir}")
    if not folder.exists():
        if dataset not in CATALOG:
            raise ValueError(f"{folder} does not exist; known data sets: {', '.join(CATALOG)}")
        raise FileNotFoundError(f"{folder} does not exist. {how_to_prepare(dataset, data_dir)}")
    return open_prepared(folder, validation=validation, verify=verify)


def generate_listops(
    *, min_length: int, max_length: int, num_train: int, num_validation: int, num_test: int,
    seed: int, train_min_length: int | None = None,
) -> Task:
    """Generate ListOps in memory.

    Args:
      min_length: tokens that every expression exceeds; published: 500.
      max_length: tokens that every expression stays below; published: 2,000.
      num_train: examples for training.
      num_validation: examples for validation.
      num_test: examples for test.
      seed: not negative.
      train_min_length: of expressions for training; None for min_length.

    Returns:
      The task; its name says where it is reduced.
    """
    settings = ListOpsSettings(
        min_length=min_length, max_length=max_length, num_train=num_train,
        num_validation=num_validation, num_test=num_test, seed=seed,
        train_min_length=train_min_length,
    )
    return load_source(listops_source(settings))


def generate_pathfinder(
    *, size: int, num_train: int, num_validation: int, num_test: int, seed: int, processes: int = 1
) -> Task:
    """Generate pathfinder-style images in memory.

    Args:
      size: 32, 64, 128 or 256 pixels.
      num_train: images for training.
      num_validation: images for validation.
      num_test: images for test.
      seed: not negative.
      processes: how many processes share the work.

    Returns:
      The task; its name says where it is reduced.
    """
    settings = PathfinderSettings(
        size=size, num_train=num_train, num_validation=num_validation, num_test=num_test, seed=seed
    )
    return load_source(pathfinder_source(settings, processes=processes))
