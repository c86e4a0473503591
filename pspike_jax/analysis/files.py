"""Files that are whole or as they were before, local or in an object storage.

The paths of an object storage have a scheme such as gs://.
"""

import contextlib
import errno
import os
import pathlib
import stat
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

from etils import epath

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def is_remote(path: str | os.PathLike) -> bool:
    """Return whether a path is in an object storage: no appending, no renaming."""
    return "://" in os.fspath(path)


def is_folder(path: epath.Path) -> bool:
    """Return whether a folder itself, and not a link to one, is at a path."""
    return path.is_dir() if is_remote(path) else _mode(path, stat.S_ISDIR)


def is_file(path: epath.Path) -> bool:
    """Return whether a regular file itself, and not a link to one, is at a path."""
    return path.exists() if is_remote(path) else _mode(path, stat.S_ISREG)


def _mode(path: os.PathLike, kind: Any) -> bool:
    try:
        return kind(os.lstat(path).st_mode)
    except OSError:
        return False


def set_aside(path: epath.Path) -> None:
    """Rename whatever stands at a path, and say so; a link is not followed."""
    number = 1
    while os.path.lexists(aside := f"{os.fspath(path)}.foreign-{number}"):
        number += 1
    os.rename(path, aside)
    warnings.warn(f"{path} stood where this run writes; it is now {aside}", stacklevel=2)


def space_hint(error: BaseException, path: os.PathLike) -> str:
    """Return a guess at why a write to a path failed; "" unless it was for lack of space."""
    number = getattr(error, "errno", None)
    told = str(error)  # TensorStore's errors have no number
    if number not in NO_SPACE and not any(os.strerror(known) in told for known in NO_SPACE):
        return ""
    with contextlib.suppress(OSError, ValueError):
        if not is_remote(path):
            folder = next(p for p in pathlib.Path(path).parents if p.is_dir())
            if not os.statvfs(folder).f_favail:
                return ", are the disk's inodes used up?"
    return ", is the disk full?"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Give a path to write to; it takes the place of `path` when the block ends well.

    The folder of `path`, a local one, must exist. OSError names the file where it could not be
    written.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        with contextlib.suppress(OSError):  # its folder may be what is missing
            partial.unlink()


def atomic_write(path: str | os.PathLike, text: str) -> None:
    """Write a file so that it is whole or as it was before; OSError names it."""
    if is_remote(path):  # an object appears when it is whole
        epath.Path(path).write_text(text)
        return
    with atomic_path(path) as partial:
        partial.write_text(text)


def explained(error: OSError, path: os.PathLike) -> OSError:
    """Return an error that names a file that could not be written, and guesses why."""
    hint = space_hint(error, path)
    return OSError(error.errno, f"could not write {path}{hint}: {error.strerror}")


@contextlib.contextmanager
def local_folder(folder: os.PathLike) -> Iterator[os.PathLike]:
    """Give a local folder for files that end up in a folder which may be remote.

    That is the folder itself, or a temporary one whose files, in folders too, are copied.
    """
    if not is_remote(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as here:
        yield here
        for path in pathlib.Path(here).rglob("*"):
            if path.is_file():
                copy = epath.Path(folder) / path.relative_to(here)
                copy.parent.mkdir(parents=True, exist_ok=True)
                epath.Path(path).copy(copy, overwrite=True)
