"""Every loader of the library, with small files that it reads and what a right result looks like.

A loader reads all that `write` made, and sees that what came has the shapes and ranges that its
configuration says. It may refuse a file by a ValueError, or a FileNotFoundError, that names it.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from data_writers import write_cifar, write_events, write_mnist, write_reviews, write_speech
from etils import epath
from hostile import PLACES
from hostile import folder as put_folder
from hostile import pipe as put_pipe
from test_data_pathfinder import write_published
from test_data_series import write_digits, write_vowels
from tiny import TinySpiking, one_device, tiny_settings, tiny_task

from pspike_jax import data
from pspike_jax.data import cifar, events, gsc, listops, mnist, pathfinder, prepared, retrieval
from pspike_jax.data import speech_commands, text
from pspike_jax.data.source import Source, load_source
from pspike_jax.interop import export_silif, load_pspikessm, load_silif, read_state_dict
from pspike_jax.interop import pspikessm as authors
from pspike_jax.models.pspikessm import PRESETS
from pspike_jax.models.zoo import create_model
from pspike_jax.pretrained import load_pretrained
from pspike_jax.pretrained.weights import write_weights
from pspike_jax.training import create_state
from pspike_jax.training.checkpoints import Checkpoints
from pspike_jax.training.creation import state_shapes
from pspike_jax.training.files import read_lines
from pspike_jax.training.manifest import MANIFEST, make_manifest
from pspike_jax.training.workdir import check_workdir, claim_workdir, describe


class Loader(NamedTuple):
    """How a kind of file is made and read.

    Attributes:
      write: (folder, generator) -> None.
      load: (folder) -> None; raises AssertionError where what came is not what was announced.
      sign: (folder) -> None, after a file was damaged: makes checksums fit, as a stranger would.
      places: what else may be put in the place of a file, see `hostile`.
    """

    write: Callable[[pathlib.Path, np.random.Generator], object]
    load: Callable[[pathlib.Path], object]
    sign: Callable[[pathlib.Path], object] = lambda folder: None
    places: tuple[Callable[[pathlib.Path, pathlib.Path], None], ...] = PLACES


def check_task(task: data.Task, shape: tuple[int, ...], classes: int) -> None:
    """See that all splits hold examples of a shape, finite, with lengths and labels in range."""
    assert task.num_classes == classes
    for split in task.splits().values():
        inputs, count = np.asarray(split.inputs), len(split.targets)
        assert count and inputs.shape == (count, *shape) and np.isfinite(inputs).all()
        longest = shape[split.lengths.ndim - 1]
        assert len(split.lengths) == count
        assert split.lengths.min() >= 1 and split.lengths.max() <= longest
        assert split.targets.min() >= 0 and split.targets.max() < classes


def of_source(make: Callable[..., Source], settings: object) -> Callable[[pathlib.Path], None]:
    """Return a loader of a source's files."""

    def load(folder):
        source = make(settings, folder)
        check_task(load_source(source), source.shape, source.num_classes)

    return load


def write_listops(folder, rng):
    for name in ("basic_train.tsv", "basic_val.tsv", "basic_test.tsv"):
        rows = [f"( ( [MAX {a} ) {b} ) ]\t{max(a, b)}" for a, b in rng.integers(0, 10, (12, 2))]
        (folder / name).write_text("\n".join(["Source\tTarget", *rows]) + "\n")


def write_pairs(folder, rng):
    for name in retrieval.FILES.values():
        rows = [f"{k % 2}.0\tP{k}\tQ{k}\tsome text {k}\tother, {k * k}" for k in range(12)]
        (folder / name).write_text("\n".join(rows) + "\n")


def write_imdb(folder, rng):
    texts = [f"review number {k}" for k in range(10)]
    write_reviews(folder, {(s, c): texts for s in ("train", "test") for c in ("neg", "pos")})


def write_shd(folder, rng):
    for name in events.FILES["shd"].values():
        recordings = [(rng.random(30), rng.integers(0, 700, 30)) for _ in range(20)]
        write_events(folder / name, recordings, np.arange(20))


def write_tiny(folder, rng):
    inputs = rng.integers(-99, 99, (12, 5, 2)).astype(np.int16)
    source = Source(
        name="twelve", counts={"train": 7, "validation": 2, "test": 3}, shape=(5, 2), dtype="int16",
        num_classes=3, vocab_size=None, settings={},
        blocks=[(inputs, np.full(12, 5, np.int32), np.arange(12, dtype=np.int32) % 3)],
        scaling=lambda _: data.source.Scaling(2.0, np.zeros(2, np.float32), np.ones(2, np.float32)),
    )
    prepared.write_prepared(source, folder / "twelve")


def load_tiny(folder, verify=True):
    check_task(prepared.open_prepared(folder / "twelve", verify=verify), (5, 2), 3)


def read_json(path):
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError, OSError):
        return None


def sign_tiny(folder):
    """Write checksums that fit into the manifest."""
    path = folder / "twelve" / prepared.MANIFEST
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("arrays", {}), dict):
        return
    for name, entry in (manifest.get("arrays") or {}).items():
        file = path.with_name(f"{name}.npy")
        if isinstance(entry, dict) and file.is_file():
            entry |= {"bytes": file.stat().st_size, "sha256": prepared._sha256(file)}
    manifest.pop("checksum", None)
    path.write_text(json.dumps(manifest | {"checksum": prepared.checksum(manifest)}))


@functools.cache
def tiny_state():
    return create_state(TinySpiking(), tiny_task(), tiny_settings(), one_device())


def write_checkpoints(folder, rng):
    checkpoints = Checkpoints(folder / "checkpoints", keep=2, keep_best=1)
    for step in (1, 2):
        state = tiny_state().replace(step=jnp.int32(step))
        checkpoints.save(state, {"accuracy": 0.5, "loss": 1.0}, '{"step": 1}\n')
        checkpoints.wait()
    checkpoints.close()


def load_checkpoints(folder, check_bits=True):
    """Read the newest and the best state; bits are those saved unless somebody signed others."""
    like = state_shapes(TinySpiking(), tiny_task(), tiny_settings(), one_device())
    checkpoints = Checkpoints(folder / "checkpoints", keep=2, keep_best=1)
    for state in (checkpoints.restore_latest(like).state, checkpoints.restore_best(like)):
        for leaf, expected in zip(*map(jax.tree.leaves, (state.params, tiny_state().params))):
            assert leaf.shape == expected.shape and leaf.dtype == expected.dtype
            assert not check_bits or (np.asarray(leaf) == np.asarray(expected)).all()


def sign_checkpoints(folder):
    """Write manifests that fit."""
    for path in folder.glob(f"checkpoints/*/{MANIFEST}"):
        manifest = read_json(path)
        if isinstance(manifest, dict):
            manifest.pop("checksum", None)
            path.write_text(make_manifest(epath.Path(path.parent), manifest))


def description():
    return describe(TinySpiking(), tiny_task(), tiny_settings(), None)


def write_run(folder, rng):
    claim_workdir(folder / "run", description())


def write_lines(folder, rng):
    lines = [json.dumps({"step": k, "train/loss": 1 / (1 + k)}) for k in range(30)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def load_lines(folder):
    assert all(isinstance(line["step"], int) for line in read_lines(folder / "metrics.jsonl"))


@functools.cache
def silif_weights():
    model = create_model("silif", num_outputs=2, widths=(4, 5))
    variables = model.init(jax.random.key(0), np.ones((1, 3, 6), np.float32))
    return export_silif(model, variables["params"], variables["batch_stats"])


def load_weights(folder, name):
    _, variables = load_silif(read_state_dict(folder / name), neuron="silif")
    expected = silif_weights()["snn.1.W.weight"].shape[::-1]
    assert variables["params"]["backbone"]["layers_1"]["input"]["kernel"].shape == expected


OFFICIAL = {"prenorm": True, "norm": "layer", "residual": True}


@functools.cache
def pspikessm_weights():
    sizes = {"d_model": 4, "d_state": 4, "n_layers": 2, "l_max": 8}
    entries = authors._entries(dataclasses.replace(PRESETS["official"], **sizes | OFFICIAL))
    return {name: np.ones(shape, np.float32) for name, (_, _, shape, _) in entries.items()}


def load_backbone(folder):
    arrays = read_state_dict(folder / "weights.npz")
    _, variables = load_pspikessm(arrays, length=8, **OFFICIAL)
    assert variables["params"]["backbone"]["blocks"]["mixer"]["linear"]["kernel"].shape == (2, 8, 4)


def write_card(folder, rng):
    """Write a small model as `experiments.publish` writes one."""
    fields = {"num_outputs": 2, "d_model": 4, "d_state": 4, "n_layers": 1}
    model = create_model("pspikessm", "paper", **fields)
    variables = model.init(jax.random.key(0), np.ones((1, 8, 1), "f4"))
    write_weights(folder / "tiny.npz", nn.meta.unbox(variables))
    card = {
        "name": "tiny", "input": {"shape": [8, 1]},
        "model": {"name": "pspikessm", "preset": "paper", "fields": fields},
        "weights": {"file": "tiny.npz", "sha256": ""},
    }
    (folder / "tiny.json").write_text(json.dumps(card))
    sign_card(folder)


def load_card(folder):
    _, variables, card = load_pretrained("tiny", folder)
    assert variables["params"]["encoder"] and isinstance(card["model"]["fields"], dict)


def sign_card(folder):
    """Write a checksum that fits into the card."""
    card, weights = read_json(folder / "tiny.json"), folder / "tiny.npz"
    if isinstance(card, dict) and isinstance(card.get("weights"), dict) and weights.is_file():
        card["weights"]["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        (folder / "tiny.json").write_text(json.dumps(card))


def write_torch(folder, rng):
    import torch

    torch.save({n: torch.tensor(a) for n, a in silif_weights().items()}, folder / "weights.pth")


NAMED = (put_pipe, put_folder)  # whoever names a file may name a link

LOADERS = {
    "idx": Loader(write_mnist, of_source(mnist.mnist_source, mnist.MnistSettings())),
    "idx.gz": Loader(
        functools.partial(write_mnist, suffix=".gz"),
        of_source(mnist.mnist_source, mnist.MnistSettings()),
    ),
    "CIFAR binary": Loader(write_cifar, of_source(cifar.cifar_source, cifar.CifarSettings())),
    "WAV, raw": Loader(
        functools.partial(write_speech, words=speech_commands.TEN_WORDS),
        of_source(speech_commands.speech_source, speech_commands.SpeechSettings(words=10)),
    ),
    "WAV and lists, features": Loader(write_speech, of_source(gsc.gsc_source, gsc.GscSettings())),
    "HDF5": Loader(write_shd, of_source(events.events_source, events.EventSettings())),
    "TSV, listops": Loader(
        write_listops, of_source(listops.listops_source, listops.ListOpsSettings(5, 50))
    ),
    "TSV, pairs": Loader(
        write_pairs,
        of_source(retrieval.retrieval_source, retrieval.RetrievalSettings(max_length=30)),
    ),
    "text": Loader(write_imdb, of_source(text.text_source, text.TextSettings(max_length=30))),
    "PNG and lists": Loader(
        lambda folder, rng: write_published(folder),
        of_source(pathfinder.pathfinder_source, pathfinder.PathfinderSettings()),
    ),
    "ts": Loader(
        write_vowels,
        lambda folder: check_task(
            data.load_japanese_vowels(source_dir=str(folder), seed=0), (29, 12), 9
        ),
    ),
    "npz, features": Loader(
        write_digits,
        lambda folder: check_task(
            data.load_spoken_digits(source_dir=str(folder), seed=0), (92, 13), 10
        ),
    ),
    "prepared": Loader(write_tiny, load_tiny),
    "prepared, not verified": Loader(write_tiny, functools.partial(load_tiny, verify=False)),
    "prepared, signed again": Loader(write_tiny, load_tiny, sign_tiny),
    "checkpoint": Loader(write_checkpoints, load_checkpoints, places=()),
    "checkpoint, signed again": Loader(
        write_checkpoints, functools.partial(load_checkpoints, check_bits=False), sign_checkpoints,
        places=(),
    ),
    "metrics.jsonl": Loader(write_lines, load_lines, places=()),
    "config.json": Loader(
        write_run, lambda folder: check_workdir(folder / "run", description()), places=()
    ),
    "card and weights": Loader(write_card, load_card),
    "card and weights, signed again": Loader(write_card, load_card, sign_card),
    "npz, weights": Loader(
        lambda folder, rng: np.savez(folder / "weights.npz", **silif_weights()),
        functools.partial(load_weights, name="weights.npz"),
        places=NAMED,
    ),
}
LOADERS["npz, weights of P-SpikeSSM"] = Loader(
    lambda folder, rng: np.savez(folder / "weights.npz", **pspikessm_weights()), load_backbone,
    places=NAMED,
)
if importlib.util.find_spec("torch"):
    LOADERS["pth, weights"] = Loader(
        write_torch, functools.partial(load_weights, name="weights.pth"), places=NAMED
    )
