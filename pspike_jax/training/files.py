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
    text = path.read_text() if path.exists() else ""
    lines = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        try:
            entry = json.loads(line)
            entry["step"] = int(entry["step"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}, line {number} is {line[:80]!r}, expected a JSON object with a step"
            ) from error
        lines.append(entry)
    return lines


class MetricsLog:
    """`metrics.jsonl`: one line per logged step, no step twice, whatever was killed when.

    In an object storage, which cannot append, lines are kept until `flush`.

    Attributes:
      lines: what stands in the file, as dicts in order of "step".
    """

    def __init__(self, path: epath.Path, step: int, *, writes: bool = True):
        """Open a file; lines after `step`, and a torn last line, are cut.

        Args:
          path: the file.
          step: step that the run goes on from; 0 for a new one.
          writes: whether this process writes the file, or only holds the lines.
        """
        self._path, self._writes = path, writes
        self.lines = [line for line in read_lines(path) if line["step"] <= step]
        self._file = None
        if writes and not (path.exists() and path.read_text() == self._text()):
            write_whole(path, self._text())
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
        data = _format(line).encode()
        if self._file is not None:
            try:
                if self._file.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
            except OSError as error:
                raise OSError(
                    error.errno, f"could not write {self._path}: {error.strerror}"
                ) from error
        self.lines.append(line)

    def flush(self) -> None:
        """Write the lines that `write` could not append."""
        if self._writes and self._file is None:
            write_whole(self._path, self._text())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _text(self) -> str:
        return "".join(_format(line) for line in self.lines)


def _format(line: dict[str, Any]) -> str:
    # repr of a Python float, which json uses, reads back as the same float.
    return json.dumps(line, allow_nan=False) + "\n"
