"""Manifests of checkpoints: a file, written last, that says what a whole checkpoint holds.

A manifest is JSON: the step, its validation scores, the sums of an unfinished line of metrics, and
size and SHA-256 of every other file of the checkpoint, with a checksum over all of that.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from pspike_jax.analysis.files import is_file, is_folder, is_remote

MANIFEST = "manifest.json"
_KINDS = {"step": int, "scores": dict, "sums": dict | None, "files": dict}


def make_manifest(folder: epath.Path, contents: Mapping[str, Any]) -> str:
    """Return the manifest of a checkpoint whose other files are all written.

    `contents` are {"step", "scores", "sums"}.
    """
    files = {
        os.path.relpath(path, folder): _fingerprint(path)
        for path in _files(folder)
        if path.name != MANIFEST
    }
    manifest = dict(contents) | {"files": files}
    manifest["checksum"] = _checksum(manifest)
    return json.dumps(manifest, indent=1)


def read_manifest(folder: epath.Path) -> dict[str, Any] | None:
    """Return {"step", "scores", "sums", "files"}, or None where there is none, or a damaged one."""
    if not is_file(folder / MANIFEST):
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        whole = manifest.pop("checksum") == _checksum(manifest)
        whole = whole and all(isinstance(manifest[name], kind) for name, kind in _KINDS.items())
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return manifest if whole else None


def find_damage(folder: epath.Path, step: int, finished: bool) -> str | None:
    """Say what differs between a checkpoint and its manifest, or None if it is whole.

    Step and `finished` are what the folder's name says.
    """
    if not is_folder(folder):
        return f"{folder} is not a folder"
    manifest = read_manifest(folder)
    if manifest is None:
        return f"it was cut short, {folder / MANIFEST} is missing or unreadable"
    if (manifest["step"], manifest["sums"] is None) != (step, finished):
        return f"{folder / MANIFEST} is that of another checkpoint"
    for name, expected in manifest["files"].items():
        path = folder / name
        if not _inside(folder, name) or not is_file(path) or _fingerprint(path) != expected:
            return f"{path} is missing, cut short or changed"
    return None


def _inside(folder: epath.Path, name: str) -> bool:
    """Return whether a name leads to a place in the folder, and not over a link."""
    if is_remote(folder):
        return ".." not in name.split("/")
    whole = os.path.realpath(folder)
    return os.path.realpath(os.path.join(folder, name)) == os.path.join(whole, name)


def _checksum(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _fingerprint(path: epath.Path) -> list:
    """Return the size and SHA-256 of a file; None in place of one that cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return [file.tell(), digest]
    except OSError:
        return [None, None]


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir()):
        if is_folder(path):
            yield from _files(path)
        elif is_file(path):
            yield path
