"""A run's own text files: written atomically, and metrics as JSON lines.

Files may lie in an object storage, whose paths have a scheme such as gs://.
"""

import contextlib
import errno
import json
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


def run_folder(path: str | os.PathLike) -> epath.Path:
    """Return the folder of a run, absolute where it is local; "~" is the user's home.

    Raises ValueError for an object storage that checkpoints cannot be written to.
    """
    if not is_remote(path):
        return epath.Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
    if not os.fspath(path).startswith("gs://"):  # Orbax makes a local folder named "s3:" of it
        raise ValueError(f"workdir is {path}, expected a folder or gs://BUCKET/...")
    return epath.Path(path)


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


def atomic_write(path: str | os.PathLike, text: str) -> None:
    """Write a file so that it is whole or as it was before; OSError names it."""
    if is_remote(path):  # an object appears when it is whole
        epath.Path(path).write_text(text)
        return
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise _named(error, path) from error
    finally:
        with contextlib.suppress(OSError):  # its folder may be what is missing
            partial.unlink()


def _named(error: OSError, path: os.PathLike) -> OSError:
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


def read_lines(path: epath.Path) -> list[dict[str, Any]]:
    """Read the lines of a metrics file, if there is one, without a line that a kill tore.

    Raises ValueError for a line that is not JSON with a step, naming it.
    """
    lines = []
    for number, line in enumerate(_whole_lines(path).splitlines(), 1):
        try:
            entry = json.loads(line)
            whole = type(entry["step"]) is int
        except (ValueError, TypeError, KeyError, RecursionError):
            whole = False
        if not whole:
            raise ValueError(
                f"{path}, line {number} is {line[:80]!r}, expected a JSON object with a step"
            )
        lines.append(entry)
    return lines


def _whole_lines(path: epath.Path) -> str:
    # Bytes that are no text are shown as such, in the message about their line.
    text = path.read_bytes().decode(errors="backslashreplace") if is_file(path) else ""
    return text[: text.rfind("\n") + 1]


class MetricsLog:
    """`metrics.jsonl`: one line per logged step, no step twice, whatever was killed when.

    Lines are kept on disk alone, so a long run holds as much memory as a short one; but in an
    object storage, which cannot append, new ones are kept until `flush`.
    """

    def __init__(self, path: epath.Path, begin: epath.Path | None, *, writes: bool = True):
        """Open a file and give it the lines that there are, whatever stood there.

        `begin` has all lines up to the step that the run goes on from, None for a new run; `writes`
        is whether this process writes.
        """
        self._path, self._writes = path, writes
        self._waiting: list[str] = []
        self._file = None
        text = "" if begin is None else _whole_lines(begin)
        if writes and not is_remote(path) and os.path.lexists(path) and not is_file(path):
            set_aside(path)
        if writes and not (path.exists() and path.read_bytes() == text.encode()):
            atomic_write(path, text)
        if writes and not is_remote(path):
            # A line goes to the system in one call.
            self._file = open(os.fspath(path), "ab", buffering=0)

    def write(self, line: dict[str, Any]) -> None:
        """Append a line and hand it to the disk; OSError names the file."""
        # repr of a Python float, which json uses, reads back as the same float.
        text = json.dumps(line, allow_nan=False) + "\n"
        if self._file is None:
            self._waiting += [text] if self._writes else []
            return
        data = text.encode()
        try:
            if self._file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _named(error, self._path) from error

    def flush(self) -> None:
        """Write the lines that `write` could not append."""
        if self._waiting:
            atomic_write(self._path, self.text())
            self._waiting.clear()

    def text(self) -> str:
        """Return all whole lines; "" where this process does not write them."""
        return _whole_lines(self._path) + "".join(self._waiting) if self._writes else ""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
