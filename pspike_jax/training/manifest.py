"""Seals of checkpoints: a file, written last, that says what a whole checkpoint holds.

A seal is JSON: the step, its validation scores, the sums of an unfinished window, and size and
SHA-256 of every other file of the checkpoint, with a checksum over all of that.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from pspike_jax.data.prepared import checksum

SEAL = "seal.json"
_KINDS = {"step": int, "scores": dict, "window": dict | None, "files": dict}


def make_seal(folder: epath.Path, contents: Mapping[str, Any]) -> str:
    """Return the text of the seal of a checkpoint whose other files are all written.

    Args:
      folder: of the checkpoint.
      contents: {"step", "scores", "window"}.

    Returns:
      What belongs into the file SEAL of that folder.
    """
    seal = dict(contents) | {"files": fingerprints(folder)}
    seal["checksum"] = checksum(seal)
    return json.dumps(seal, indent=1)


def read_seal(folder: epath.Path) -> dict[str, Any] | None:
    """Read a seal; the files that it speaks of are not looked at.

    Args:
      folder: of a checkpoint.

    Returns:
      {"step", "scores", "window", "files"}, or None where the seal is missing or damaged.
    """
    try:
        seal = json.loads((folder / SEAL).read_text())
        whole = seal.pop("checksum") == checksum(seal)
        whole = whole and all(isinstance(seal[name], kind) for name, kind in _KINDS.items())
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return seal if whole else None


def find_damage(folder: epath.Path, step: int, finished: bool) -> str | None:
    """Compare a checkpoint with its seal.

    Args:
      folder: of the checkpoint.
      step: updates done, by the folder's name.
      finished: whether the folder's name says that nothing of that step is to come.

    Returns:
      What is wrong with the checkpoint, or None if it is whole.
    """
    seal = read_seal(folder)
    if seal is None:
        return f"it was cut short, {folder / SEAL} is missing or unreadable"
    if (seal["step"], seal["window"] is None) != (step, finished):
        return f"{folder / SEAL} is that of another checkpoint"
    found = fingerprints(folder)
    for name, expected in seal["files"].items():
        if found.get(name) != expected:
            return f"{folder / name} is missing, cut short or changed"
    return None


def fingerprints(folder: epath.Path) -> dict[str, list]:
    """Return the size and SHA-256 of every file of a checkpoint but the seal, by its path inside.

    Args:
      folder: of the checkpoint.

    Returns:
      {path: [bytes, hexadecimal digest]}.
    """
    found = {}
    for path in _files(folder):
        if path.name != SEAL:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[path.relative_to(folder).as_posix()] = [file.tell(), digest]
    return found


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path
