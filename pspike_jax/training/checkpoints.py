"""Checkpoints by Orbax, each sealed: one that was cut short, or damaged, is never taken for whole.

  DIR/00000100/state/         what Orbax wrote: step, parameters, statistics, optimizer, key
  DIR/00000100/metrics.jsonl  the run's lines of metrics up to that step
  DIR/00000100/seal.json      written last: size and SHA-256 of every file, validation scores
  DIR/00000107-unfinished/    of a run that was told to stop between step 107 and what follows it

No step of this relies on renaming; a folder without a seal is not a checkpoint. A save goes on in a
thread while the next steps run. Every process writes the shards that it holds; process 0 writes the
seal, removes what the policy does not keep, and says which checkpoint all of them read.
"""

import concurrent.futures
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from pspike_jax.training import metrics
from pspike_jax.training.distributed import agree, is_primary, meet
from pspike_jax.training.files import write_whole
from pspike_jax.training.seals import SEAL, find_damage, make_seal, read_seal
from pspike_jax.training.state import TrainState

LEAVES = ("step", "params", "batch_stats", "opt_state", "key")
LOG = "metrics.jsonl"
UNFINISHED = "-unfinished"


class Entry(NamedTuple):
    """A checkpoint's place in a run; they sort by time.

    Attributes:
      step: updates done.
      finished: False where validation and the line of metrics of that step are still to come.
    """

    step: int
    finished: bool

    def __str__(self) -> str:
        return f"step {self.step}"


class Restored(NamedTuple):
    """What a run goes on from.

    Attributes:
      state: as it was saved.
      log: file of the lines of metrics up to its step.
      window: sums of the steps since the last of them; None right after one.
    """

    state: TrainState
    log: epath.Path
    window: metrics.Metrics | None


class Checkpoints:
    """The checkpoints of one run: the newest ones, and the best ones by validation."""

    def __init__(self, directory: str | os.PathLike, *, keep: int, keep_best: int):
        """Use a folder, made at the first save.

        Args:
          directory: the folder; may be a bucket of an object storage.
          keep: newest checkpoints that stay.
          keep_best: best checkpoints that stay besides them.
        """
        self.directory = epath.Path(directory)
        self.keep = keep
        self.keep_best = keep_best
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._saving: concurrent.futures.Future | None = None

    def save(
        self,
        state: TrainState,
        scores: Mapping[str, float] | None,
        log: str,
        window: metrics.Metrics | None = None,
    ) -> None:
        """Begin to write a checkpoint, its seal, and to remove those that the policy does not keep.

        Args:
          state: what to keep; it may be donated as soon as this returns.
          scores: validation metrics by name, or None where this step was not validated.
          log: the lines of metrics so far.
          window: sums of the steps since the last line of metrics, where the run stops before what
            follows this step; else None.

        Raises:
          OSError: this checkpoint, or the one before it, could not be written; those that were
            whole are as they were.
        """
        self.wait()
        entry = Entry(int(state.step), window is None)
        folder = self._folder(entry)
        seal = {
            "step": entry.step,
            "scores": dict(scores or {}),
            "window": jax.tree.map(lambda x: np.asarray(x).tolist(), window),
        }
        with _Writing(self, entry):
            if is_primary():
                _remove(folder)
                folder.mkdir(parents=True)
            meet(f"checkpoint {folder.name}")
            tree = {name: getattr(state, name) for name in LEAVES}
            response = ocp.save_async(folder / "state", tree)
        self._saving = self._thread.submit(self._finish, entry, seal, log, response)

    def check(self) -> None:
        """Raise what went wrong in a save that has ended.

        Raises:
          OSError: a checkpoint could not be written.
        """
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the last save has ended.

        Raises:
          OSError: a checkpoint could not be written.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """Wait until nothing is written any more, whatever became of it."""
        self._thread.shutdown()

    def restore_latest(self, like: TrainState) -> Restored | None:
        """Read the newest whole checkpoint; warn about newer ones that are not whole.

        Args:
          like: a state with the shapes and shardings to restore into.

        Returns:
          What was saved, or None if there is no whole checkpoint.

        Raises:
          ValueError: the checkpoint is whole, but not of such a state.
        """
        entry = self._choose(sorted(self._entries(), reverse=True), "the checkpoint of ")
        if entry is None:
            return None
        folder = self._folder(entry)
        window = read_seal(folder)["window"]
        sums = jax.tree.map(np.float64, window, is_leaf=lambda value: isinstance(value, list))
        return Restored(self._restore(entry, like), folder / LOG, sums)

    def restore_best(self, like: TrainState) -> TrainState:
        """Read the checkpoint with the best validation accuracy; among equals, the lowest loss.

        Args:
          like: a state with the shapes and shardings to restore into.

        Returns:
          The state.

        Raises:
          FileNotFoundError: no whole checkpoint has validation scores.
          ValueError: the checkpoint is whole, but not of such a state.
        """
        entry = self._choose(_by_merit(self._seals()), "the best checkpoint, ")
        if entry is None:
            raise FileNotFoundError(
                f"no whole checkpoint with validation scores in {self.directory}"
            )
        return self._restore(entry, like)

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
        code = agree(code)
        return None if code < 0 else Entry(code // 2, bool(code % 2))

    def _finish(self, entry: Entry, seal: dict[str, Any], log: str, response: Any) -> None:
        with _Writing(self, entry):
            response.result()
            if is_primary():
                folder = self._folder(entry)
                write_whole(folder / LOG, log)
                write_whole(folder / SEAL, make_seal(folder, seal))
        if is_primary():
            self._prune()

    def _folder(self, entry: Entry) -> epath.Path:
        return self.directory / f"{entry.step:08d}{'' if entry.finished else UNFINISHED}"

    def _entries(self) -> list[Entry]:
        if not self.directory.is_dir():
            return []
        names = (path.name for path in self.directory.iterdir())
        found = (re.fullmatch(rf"(\d+)({UNFINISHED})?", name) for name in names)
        return [Entry(int(match[1]), match[2] is None) for match in found if match]

    def _seals(self) -> dict[Entry, dict[str, Any]]:
        """Return the seals that can be read; their files are not looked at."""
        seals = {entry: read_seal(self._folder(entry)) for entry in self._entries()}
        return {entry: seal for entry, seal in seals.items() if seal is not None}

    def _restore(self, entry: Entry, like: TrainState) -> TrainState:
        shapes = {name: jax.tree.map(_abstract, getattr(like, name)) for name in LEAVES}
        folder = self._folder(entry)
        try:
            _check_variables(ocp.metadata(folder / "state").metadata, shapes)
            loaded = ocp.load(folder / "state", shapes)
        except Exception as error:  # of many types, for files are whole but somebody else's
            raise ValueError(f"{folder} does not hold such a state: {error}") from error
        # Orbax gives a key the sharding of its words, which is one axis longer than the key's own.
        place = jax.jit(lambda key: key, out_shardings=shapes["key"].sharding)
        loaded["key"] = place(loaded["key"])
        return like.replace(**loaded)

    def _prune(self) -> None:
        seals = self._seals()
        done = [entry for entry in seals if entry.finished or (entry.step, True) not in seals]
        kept = set(sorted(done)[-self.keep :]) | set(_by_merit(seals)[: self.keep_best])
        for entry in set(self._entries()) - kept:
            _remove(self._folder(entry))


class _Writing:
    """Turn what a failed save raises into one error that says what is left, and clear it away."""

    def __init__(self, checkpoints: Checkpoints, entry: Entry):
        self.checkpoints, self.entry = checkpoints, entry

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, _) -> None:
        if not isinstance(error, (OSError, ValueError)):  # tensorstore: a full disk is a ValueError
            return
        folder = self.checkpoints._folder(self.entry)
        if is_primary():
            folder.rmtree(missing_ok=True)
        whole = [entry.step for entry in sorted(self.checkpoints._seals())]
        raise OSError(
            f"could not write the checkpoint of {self.entry} to {folder}, is the disk full? "
            f"Whole checkpoints: {whole or 'none'}. {error}"
        ) from error


def _remove(folder: epath.Path) -> None:
    # The seal goes first, so that a removal that is cut short leaves no half checkpoint.
    (folder / SEAL).unlink(missing_ok=True)
    if folder.exists():
        folder.rmtree()


def _by_merit(seals: Mapping[Entry, Mapping[str, Any]]) -> list[Entry]:
    """Sort the checkpoints that were validated, the best first."""
    scores = {entry: seal["scores"] for entry, seal in seals.items() if seal["scores"]}
    return sorted(
        scores, key=lambda entry: (-scores[entry]["accuracy"], scores[entry]["loss"], entry)
    )


def _check_variables(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise one error for all variables that differ; Orbax would stop at one, amid its reading."""
    found, expected = (
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
            for path, leaf in jax.tree.leaves_with_path(
                {name: tree[name] for name in ("params", "batch_stats")}
            )
        }
        for tree in (saved, wanted)
    )
    differ = [name for name in found | expected if found.get(name) != expected.get(name)]
    if differ:
        raise ValueError(
            "\n  ".join(
                f"{name} has shape {found.get(name)}; expected {expected.get(name)}"
                for name in differ
            )
        )


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
