"""A run's own text files: written whole or not at all, and metrics as JSON lines.

Files may lie in an object storage, whose paths have a scheme such as gs://.
"""

import contextlib
import errno
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from etils import epath

from pspike_jax.analysis.files import whole_file


def is_remote(path: os.PathLike) -> bool:
    """Return whether a path is in an object storage: no appending, no renaming.

    Args:
      path: any path.
    """
    return "://" in os.fspath(path)


def run_folder(path: str | os.PathLike) -> epath.Path:
    """Return the folder of a run, absolute where it is local.

    Args:
      path: as the user gave it.

    Raises:
      ValueError: an object storage that checkpoints cannot be written to.
    """
    folder = epath.Path(path)
    if not is_remote(folder):
        return folder.absolute()
    if not os.fspath(folder).startswith("gs://"):  # Orbax makes a local folder named "s3:" of it
        raise ValueError(f"workdir is {folder}, expected a folder or gs://BUCKET/...")
    return folder


def write_whole(path: epath.Path, text: str) -> None:
    """Write a file so that it is either whole or as it was before.

    Args:
      path: where.
      text: its content.

    Raises:
      OSError: it could not be written, naming it.
    """
    if is_remote(path):  # an object appears when it is whole
        epath.Path(path).write_text(text)
        return
    with whole_file(path) as partial, partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def local_folder(folder: os.PathLike) -> Iterator[os.PathLike]:
    """Give a local folder to write files to, which end up in a folder that may be remote.

    Args:
      folder: where the files go.

    Yields:
      The folder itself, or a temporary one whose files, in folders too, are copied.
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
    """Read the lines of a metrics file; one that a kill tore is left out.

    Args:
      path: the file; none is read as no lines.

    Returns:
      Dicts in the order of the file.

    Raises:
      ValueError: a line is not JSON with a step, naming it.
    """
    # Bytes that are no text are shown as such, in the message about their line.
    text = path.read_bytes().decode(errors="backslashreplace") if path.exists() else ""
    lines = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
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


class MetricsLog:
    """`metrics.jsonl`: one line per logged step, no step twice, whatever was killed when.

    Lines are kept on disk alone, so a long run holds as much memory as a short one; but in an
    object storage, which cannot append, new ones are kept until `flush`.
    """

    def __init__(self, path: epath.Path, begin: epath.Path | None, *, writes: bool = True):
        """Open a file and give it the lines that there are, whatever stood there.

        Args:
          path: the file.
          begin: file of all lines up to the step that the run goes on from; None for a new run.
          writes: whether this process writes the file.
        """
        self._path, self._writes = path, writes
        self._waiting: list[str] = []
        self._file = None
        text = "" if begin is None else begin.read_text()
        if writes and not (path.exists() and path.read_bytes() == text.encode()):
            write_whole(path, text)
        if writes and not is_remote(path):
            # A line goes to the system in one call.
            self._file = open(os.fspath(path), "ab", buffering=0)

    def write(self, line: dict[str, Any]) -> None:
        """Append a line and hand it to the disk.

        Args:
          line: "step", and floats by name.

        Raises:
          OSError: it could not be written, naming the file.
        """
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
            raise OSError(
                error.errno, f"could not write {self._path}: {error.strerror}"
            ) from error

    def flush(self) -> None:
        """Write the lines that `write` could not append."""
        if self._waiting:
            write_whole(self._path, self.text())
            self._waiting.clear()

    def text(self) -> str:
        """Return all lines; "" where this process does not write them."""
        return self._path.read_text() + "".join(self._waiting) if self._writes else ""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
