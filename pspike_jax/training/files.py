"""The lines of metrics of a run, as JSON, in a file that nothing tears; and the run's folder."""

import errno
import json
import os
from typing import Any

from etils import epath

from pspike_jax.analysis.files import atomic_write, explained, is_file, is_remote, set_aside


def run_folder(path: str | os.PathLike) -> epath.Path:
    """Return the folder of a run, absolute where it is local; "~" is the user's home.

    Raises ValueError for an object storage that checkpoints cannot be written to.
    """
    if not is_remote(path):
        return epath.Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
    if not os.fspath(path).startswith("gs://"):  # Orbax makes a local folder named "s3:" of it
        raise ValueError(f"workdir is {path}, expected a folder or gs://BUCKET/...")
    return epath.Path(path)


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
            raise explained(error, self._path) from error

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
