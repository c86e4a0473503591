"""A run's own text files: written whole or not at all, and metrics as JSON lines."""

import errno
import json
import os
import pathlib
from typing import Any


def write_whole(path: pathlib.Path, text: str) -> None:
    """Write a file so that it is either whole or as it was before.

    Args:
      path: where.
      text: its content.

    Raises:
      OSError: it could not be written, naming it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, f"could not write {path}: {error.strerror}") from error


class MetricsLog:
    """`metrics.jsonl`: one line per logged step, no step twice, whatever was killed when.

    Attributes:
      lines: what stands in the file, as dicts in order of "step".
    """

    def __init__(self, path: pathlib.Path, step: int):
        """Open a file; lines after `step`, and a torn last line, are cut.

        Args:
          path: the file.
          step: step that the run goes on from; 0 for a new one.
        """
        self._path = path
        text = path.read_text() if path.exists() else ""
        self.lines = [line for line in _parse(path, text) if line["step"] <= step]
        kept = "".join(_format(line) for line in self.lines)
        if kept != text:
            write_whole(path, kept)
        self._file = path.open("ab", buffering=0)  # a line goes to the system in one call

    def write(self, line: dict[str, Any]) -> None:
        """Append a line and hand it to the disk.

        Args:
          line: "step", and floats by name.

        Raises:
          OSError: it could not be written, naming the file.
        """
        data = _format(line).encode()
        try:
            if self._file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(error.errno, f"could not write {self._path}: {error.strerror}") from error
        self.lines.append(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _format(line: dict[str, Any]) -> str:
    # repr of a Python float, which json uses, reads back as the same float.
    return json.dumps(line, allow_nan=False) + "\n"


def _parse(path: pathlib.Path, text: str) -> list[dict[str, Any]]:
    whole = text[: text.rfind("\n") + 1]  # what follows the last newline was torn by a kill
    lines = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            entry = json.loads(line)
            entry["step"] = int(entry["step"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}, line {number} is {line[:80]!r}, expected a JSON object with a step"
            ) from error
        lines.append(entry)
    return lines
