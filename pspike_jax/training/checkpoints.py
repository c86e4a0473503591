"""Checkpoints by Orbax, each with a manifest: one cut short, or damaged, is never taken for whole.

  DIR/00000100/state/         what Orbax wrote: step, parameters, statistics, optimizer, key
  DIR/00000100/metrics.jsonl  the run's lines of metrics up to that step
  DIR/00000100/manifest.json  written last: size and SHA-256 of every file, validation scores
  DIR/00000107-unfinished/    of a run that was told to stop between step 107 and what follows it

No step of this relies on renaming; a folder without a manifest is not a checkpoint, and neither is
a file, or a link. A save goes on in a thread while the next steps run. Every process writes the
shards that it holds; process 0 writes the manifest, removes what the policy does not keep, and says
which checkpoint all of them read. What stays is chosen here, not by Orbax's `Checkpointer` and its
policies: tried in version 0.12, a byte flipped among its arrays came back as another number, a
damaged newest checkpoint as an error where older ones were whole, and of unfinished steps they know
nothing.
"""

import concurrent.futures
import contextlib
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from pspike_jax.analysis.files import atomic_write, is_folder, is_remote, set_aside, space_hint
from pspike_jax.objectives import metrics
from pspike_jax.training.distributed import barrier, broadcast, is_primary
from pspike_jax.training.manifest import MANIFEST, find_damage, make_manifest, read_manifest
from pspike_jax.training.state import TrainState, leaf_paths

LEAVES = ("step", "params", "batch_stats", "opt_state", "key")
LOG = "metrics.jsonl"
UNFINISHED = "-unfinished"
PROBE = ".probe"
PLAIN = re.compile(r"[\w./+=,@-]*", re.ASCII)  # Orbax globs some paths, and quotes none


class Entry(NamedTuple):
    """A checkpoint's place in a run; they sort by time.

    It is not `finished` where validation and the line of metrics of its step are still to come.
    """

    step: int
    finished: bool

    def __str__(self) -> str:
        return f"step {self.step}"


class Restored(NamedTuple):
    """What a run goes on from: state, file of the lines of metrics, sums since the last of them.

    The sums are None right after a line.
    """

    state: TrainState
    log: epath.Path
    sums: metrics.Metrics | None


class Checkpoints:
    """The checkpoints of one run: the newest ones, and the best ones by validation."""

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        keep: int,
        keep_best: int,
        merit: tuple[str, str] = ("accuracy", "max"),
    ):
        """Use a folder, which may be in an object storage, made at the first save.

        Of all checkpoints the newest `keep` stay, and the best `keep_best`, by the name of a score
        and "max" or "min".
        """
        self.directory = epath.Path(directory)
        self.keep, self.keep_best, self.merit = keep, keep_best, merit
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._saving: concurrent.futures.Future | None = None
        self._proven = False  # that what is written here can be read
        self._closing = contextlib.ExitStack()

    def prove(self) -> None:
        """Write, read and remove a small checkpoint; raise OSError before any step is paid for."""
        folder = self.directory / PROBE
        tree = {"probe": jnp.arange(2, dtype=jnp.float32)}
        try:
            self._make_folder(folder)
            ocp.save(self._plain(folder) / "state", tree)
            jax.block_until_ready(ocp.load(self._plain(folder) / "state", tree))
        except (OSError, ValueError) as error:  # TensorStore's errors are ValueErrors
            raise OSError(
                f"checkpoints cannot be kept in {self.directory}{space_hint(error, folder)}: "
                f"{error}"
            ) from error
        finally:
            barrier("probe")
            if is_primary():
                with contextlib.suppress(OSError):
                    _remove(folder)

    def save(
        self,
        state: TrainState,
        scores: Mapping[str, float] | None,
        log: str,
        sums: metrics.Metrics | None = None,
    ) -> None:
        """Begin to write a checkpoint, its manifest, and to remove those that are not kept.

        The state may be donated as soon as this returns. `scores` are the validation metrics, or
        None; `log` the lines of metrics so far; `sums` those since the last line, where the run
        stops before what follows this step. Raises OSError where this checkpoint, or the one before
        it, could not be written; those that were whole are as they were.
        """
        self.wait()
        entry = Entry(int(state.step), sums is None)
        folder = self._folder(entry)
        contents = {
            "step": entry.step,
            "scores": dict(scores or {}),
            "sums": jax.tree.map(lambda x: np.asarray(x).tolist(), sums),
        }
        tree = {name: getattr(state, name) for name in LEAVES}
        shapes = jax.tree.map(_abstract, tree)
        with self._writing(entry):
            self._make_folder(folder)
            response = ocp.save_async(self._plain(folder) / "state", tree)
        self._saving = self._thread.submit(self._finish, entry, contents, log, response, shapes)

    def check(self) -> None:
        """Raise the OSError of a save that has ended."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the last save has ended; raise its OSError."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """Wait until nothing is written any more, whatever became of it."""
        self._thread.shutdown()
        self._closing.close()

    def restore_latest(self, like: TrainState) -> Restored | None:
        """Read the newest whole checkpoint, or None; warn about newer ones that are not whole.

        `like` has the shapes and shardings to restore into; ValueError, where the checkpoint is not
        of such a state.
        """
        newest = sorted(self._entries(), reverse=True)
        found = self._first(newest, "the checkpoint of ", like)
        if found is None:
            return None
        entry, state = found
        folder = self._folder(entry)
        sums = read_manifest(folder)["sums"]
        sums = jax.tree.map(np.float64, sums, is_leaf=lambda value: isinstance(value, list))
        return Restored(state, folder / LOG, sums)

    def restore_best(self, like: TrainState) -> TrainState:
        """Read the checkpoint with the best merit; among equals, the lowest loss.

        Raises FileNotFoundError where no whole one has scores, ValueError where it is not of such a
        state.
        """
        found = self._first(self._by_merit(), "the best checkpoint, ", like)
        if found is None:
            raise FileNotFoundError(
                f"no whole checkpoint with validation scores in {self.directory}"
            )
        return found[1]

    def _first(
        self, candidates: list[Entry], what: str, like: TrainState
    ) -> tuple[Entry, TrainState] | None:
        """Return the first candidate that is whole and can be read."""
        while (entry := self._choose(candidates, what)) is not None:
            try:
                return entry, self._restore(entry, like)
            except _Unreadable as error:
                if jax.process_count() > 1:  # the others may have read it
                    raise
                warnings.warn(f"skipped {what}{entry}: {error}", stacklevel=3)
                candidates = candidates[candidates.index(entry) + 1 :]
        return None

    def _choose(self, candidates: Iterable[Entry], what: str) -> Entry | None:
        """Return the first whole candidate of process 0, in every process."""
        code = -1
        if is_primary():
            for entry in candidates:
                damage = find_damage(self._folder(entry), *entry)
                if damage is None:
                    code = 2 * entry.step + entry.finished
                    break
                warnings.warn(f"skipped {what}{entry}: {damage}", stacklevel=3)
        code = broadcast(code)
        return None if code < 0 else Entry(code // 2, bool(code % 2))

    def _finish(
        self, entry: Entry, contents: dict[str, Any], log: str, response: Any, shapes: Any
    ) -> None:
        folder = self._folder(entry)
        with self._writing(entry):
            response.result()
            if not self._proven and jax.process_count() == 1:
                self._read_back(folder, shapes)
            if is_primary():
                atomic_write(folder / LOG, log)
                atomic_write(folder / MANIFEST, make_manifest(folder, contents))
        self._proven = True
        if is_primary():
            self._prune()

    def _read_back(self, folder: epath.Path, shapes: Any) -> None:
        """See that what was written can be read, into memory of the host."""
        empty = lambda leaf: np.empty(leaf.shape, leaf.dtype)
        host = jax.tree.map(empty, {name: shapes[name] for name in LEAVES if name != "key"})
        ocp.load(self._plain(folder) / "state", host | {"key": ocp.PLACEHOLDER})

    def _folder(self, entry: Entry) -> epath.Path:
        return self.directory / f"{entry.step:08d}{'' if entry.finished else UNFINISHED}"

    def _make_folder(self, folder: epath.Path) -> None:
        """Make an empty folder in process 0; what stands there and is none is set aside."""
        if is_primary():
            if not is_remote(folder) and os.path.lexists(folder) and not is_folder(folder):
                set_aside(folder)
            _remove(folder)
            folder.mkdir(parents=True)
        barrier(f"checkpoint {folder.name}")

    def _plain(self, folder: epath.Path) -> epath.Path:
        """Return a path to a folder of checkpoints that Orbax reads as it is written."""
        if is_remote(folder) or PLAIN.fullmatch(os.fspath(folder)):
            return folder
        if not hasattr(self, "_alias"):
            place = self._closing.enter_context(tempfile.TemporaryDirectory(prefix="pspike-"))
            self._alias = epath.Path(place) / "checkpoints"
            os.symlink(self.directory, self._alias)
        return self._alias / folder.name

    def _entries(self) -> list[Entry]:
        if not self.directory.is_dir():
            return []
        names = {path.name for path in self.directory.iterdir()}
        found = (re.fullmatch(rf"(\d+)({UNFINISHED})?", name) for name in names)
        entries = [Entry(int(match[1]), match[2] is None) for match in found if match]
        return [entry for entry in entries if self._folder(entry).name in names]

    def _manifests(self) -> dict[Entry, dict[str, Any]]:
        """Return the manifests that can be read; their files are not looked at."""
        folders = {entry: self._folder(entry) for entry in self._entries()}
        found = {e: read_manifest(folder) for e, folder in folders.items() if is_folder(folder)}
        return {entry: manifest for entry, manifest in found.items() if manifest is not None}

    def _by_merit(self) -> list[Entry]:
        """Sort the checkpoints that were validated, the best first."""
        name, direction = self.merit
        sign = -1 if direction == "max" else 1
        scores = {entry: found["scores"] for entry, found in self._manifests().items()}
        rated = [entry for entry, found in scores.items() if name in found]
        loss = lambda entry: scores[entry].get("loss", 0.0)
        return sorted(rated, key=lambda entry: (sign * scores[entry][name], loss(entry), entry))

    def _restore(self, entry: Entry, like: TrainState) -> TrainState:
        shapes = {name: jax.tree.map(_abstract, getattr(like, name)) for name in LEAVES}
        folder = self._folder(entry)
        try:
            saved = ocp.metadata(self._plain(folder) / "state").metadata
            differ = _differences(saved, shapes)
            loaded = None if differ else ocp.load(self._plain(folder) / "state", shapes)
        except Exception as error:  # of many types, for files are whole but somebody else's
            raise _Unreadable(f"{folder} does not hold such a state: {error}") from error
        if differ:
            raise ValueError(f"{folder} does not hold such a state: {differ}")
        # Orbax gives a key the sharding of its words, which is one axis longer than the key's own.
        loaded["key"] = jax.device_put(loaded["key"], shapes["key"].sharding)
        return like.replace(**loaded)

    def _prune(self) -> None:
        manifests = self._manifests()
        done = [e for e in manifests if e.finished or (e.step, True) not in manifests]
        kept = set(sorted(done)[-self.keep :]) | set(self._by_merit()[: self.keep_best])
        for entry in set(self._entries()) - kept:
            try:
                _remove(self._folder(entry))
            except OSError as error:  # another time
                warnings.warn(f"could not remove {self._folder(entry)}: {error}", stacklevel=2)

    @contextlib.contextmanager
    def _writing(self, entry: Entry) -> Iterator[None]:
        """Turn what a failed save raises into one error that says what is left, and clear up."""
        folder = self._folder(entry)
        try:
            yield
        except (OSError, ValueError) as error:  # TensorStore: a full disk is a ValueError
            hint = space_hint(error, folder)
            if is_primary():
                with contextlib.suppress(OSError):
                    _remove(folder)
            whole = [entry.step for entry in sorted(self._manifests())]
            raise OSError(
                f"could not write the checkpoint of {entry} to {folder}{hint or '.'} "
                f"Whole checkpoints: {whole or 'none'}. {error}"
            ) from error


def _remove(folder: epath.Path) -> None:
    if not is_folder(folder):  # nothing, or somebody else's file or link
        return
    # The manifest goes first, so that a removal that is cut short leaves no half checkpoint.
    (folder / MANIFEST).unlink(missing_ok=True)
    folder.rmtree()


class _Unreadable(ValueError):
    """A checkpoint that is whole, of a state of these shapes, and yet cannot be read."""


def _differences(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Name all variables that differ; Orbax would stop at one, amid its reading."""

    def shapes(tree):
        tree = {name: tree[name] for name in ("params", "batch_stats")}
        return dict(zip(leaf_paths(tree), [leaf.shape for leaf in jax.tree.leaves(tree)]))

    found, expected = shapes(saved), shapes(wanted)
    return "\n  ".join(
        f"{name} has shape {found.get(name)}; expected {expected.get(name)}"
        for name in found | expected
        if found.get(name) != expected.get(name)
    )


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
