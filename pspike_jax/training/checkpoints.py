"""Checkpoints by Orbax, each sealed: one that was cut short, or damaged, is never taken for whole.

  DIR/00000100/state/     what Orbax wrote: step, parameters, statistics, optimizer, key
  DIR/00000100/seal.json  written last: size and SHA-256 of every file, and the validation scores

No step of this relies on renaming folders; a folder without a seal is not a checkpoint.
"""

import hashlib
import json
import pathlib
import shutil
import warnings
from collections.abc import Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from pspike_jax.training.files import write_whole
from pspike_jax.training.state import TrainState

LEAVES = ("step", "params", "batch_stats", "opt_state", "key")
SEAL = "seal.json"


class Checkpoints:
    """The checkpoints of one run: the newest ones, and the best ones by validation."""

    def __init__(self, directory: pathlib.Path, keep: int, keep_best: int = 1):
        """Use a folder, made at the first save.

        Args:
          directory: the folder.
          keep: newest checkpoints that stay.
          keep_best: best checkpoints that stay besides them.
        """
        self.directory = directory
        self.keep = keep
        self.keep_best = keep_best

    def save(self, state: TrainState, scores: Mapping[str, float] | None) -> None:
        """Write a checkpoint and its seal, then remove those that the policy does not keep.

        Args:
          state: what to keep.
          scores: validation metrics by name, or None where this step was not validated.

        Raises:
          OSError: the checkpoint could not be written; the ones before it are as they were.
        """
        step = int(state.step)
        folder = self._folder(step)
        try:
            _remove(folder)
            folder.mkdir(parents=True)
            ocp.save(folder / "state", {name: getattr(state, name) for name in LEAVES})
            seal = {"step": step, "scores": dict(scores or {}), "files": _fingerprints(folder)}
            write_whole(folder / SEAL, json.dumps(seal, indent=1))
        except (OSError, ValueError) as error:  # tensorstore reports a full disk as ValueError
            shutil.rmtree(folder, ignore_errors=True)
            raise OSError(
                f"could not write the checkpoint of step {step} to {folder}, is the disk full? "
                f"Whole checkpoints: {sorted(self._seals()) or 'none'}. {error}"
            ) from error
        self._prune()

    def restore_latest(self, like: TrainState) -> TrainState | None:
        """Read the newest whole checkpoint; warn about newer ones that are not whole.

        Args:
          like: a state with the shapes and shardings to restore into.

        Returns:
          The state, or None if there is no whole checkpoint.
        """
        for step in sorted(self._steps(), reverse=True):
            damage = self._damage(step)
            if damage is None:
                return self._restore(step, like)
            warnings.warn(f"skipped the checkpoint of step {step}: {damage}", stacklevel=2)
        return None

    def restore_best(self, like: TrainState) -> TrainState:
        """Read the checkpoint with the best validation accuracy; among equals, the lowest loss.

        Args:
          like: a state with the shapes and shardings to restore into.

        Returns:
          The state.

        Raises:
          FileNotFoundError: no whole checkpoint has validation scores.
        """
        for step in _by_merit(self._seals()):
            damage = self._damage(step)
            if damage is None:
                return self._restore(step, like)
            warnings.warn(f"skipped the best checkpoint, step {step}: {damage}", stacklevel=2)
        raise FileNotFoundError(f"no whole checkpoint with validation scores in {self.directory}")

    def _folder(self, step: int) -> pathlib.Path:
        return self.directory / f"{step:08d}"

    def _steps(self) -> list[int]:
        if not self.directory.is_dir():
            return []
        return [int(path.name) for path in self.directory.iterdir() if path.name.isdigit()]

    def _seals(self) -> dict[int, dict[str, Any]]:
        """Return the seals that can be read, by step; their files are not looked at."""
        seals = {step: _read_seal(self._folder(step)) for step in self._steps()}
        return {step: seal for step, seal in seals.items() if seal is not None}

    def _damage(self, step: int) -> str | None:
        """Say what is wrong with a checkpoint, or None if it is whole."""
        folder = self._folder(step)
        seal = _read_seal(folder)
        if seal is None:
            return f"it was cut short, {folder / SEAL} is missing or unreadable"
        found = _fingerprints(folder)
        for name, expected in seal["files"].items():
            if found.get(name) != expected:
                return f"{folder / name} is missing, cut short or changed"
        return None

    def _restore(self, step: int, like: TrainState) -> TrainState:
        shapes = {name: jax.tree.map(_abstract, getattr(like, name)) for name in LEAVES}
        loaded = ocp.load(self._folder(step) / "state", shapes)
        # Orbax gives a key the sharding of its words, which is one axis longer than the key's own.
        loaded["key"] = jax.device_put(loaded["key"], shapes["key"].sharding)
        return like.replace(**loaded)

    def _prune(self) -> None:
        seals = self._seals()
        kept = set(sorted(seals)[-self.keep :]) | set(_by_merit(seals)[: self.keep_best])
        for step in set(self._steps()) - kept:
            _remove(self._folder(step))


def _remove(folder: pathlib.Path) -> None:
    # The seal goes first, so that a removal that is cut short leaves no half checkpoint.
    (folder / SEAL).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def _by_merit(seals: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Sort the steps that were validated, the best first."""
    scores = {step: seal["scores"] for step, seal in seals.items() if seal["scores"]}
    return sorted(scores, key=lambda step: (-scores[step]["accuracy"], scores[step]["loss"], step))


def _read_seal(folder: pathlib.Path) -> dict[str, Any] | None:
    try:
        seal = json.loads((folder / SEAL).read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(seal, dict) and {"step", "scores", "files"} <= seal.keys()
    return seal if whole else None


def _fingerprints(folder: pathlib.Path) -> dict[str, list]:
    """Return the size and SHA-256 of every file of a checkpoint, by its path inside."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SEAL:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(folder).as_posix()] = [path.stat().st_size, digest]
    return found


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
