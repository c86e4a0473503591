"""Files of strangers: opened only where they are plain files, in their folder, and small enough.

Every reader of files that others wrote goes through here. What goes wrong is one of two errors,
and both name the file: FileNotFoundError where there is none, ValueError for all else.
"""

import gzip
import json
import os
import pathlib
import stat
import zlib
from typing import IO, Any

MOST_BYTES = 1 << 30  # of one file, and of all that it unpacks to, where a reader says no less
MOST_TEXT = 1 << 24  # of a list, a card, a manifest: they take kilobytes
_PIECE = 1 << 20


def open_regular(path: str | os.PathLike, most: int | None = MOST_BYTES) -> IO[bytes]:
    """Open a file to read bytes, without waiting: pipes and devices are refused, not read.

    Args:
      path: of the file; links are followed, see `inside` for those that a stranger may have set.
      most: bytes that it may have; None for files of which only parts are read.

    Returns:
      The open file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no regular file, has more bytes, or cannot be opened.
    """
    try:
        # A pipe without a writer would be waited for.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be opened ({error})") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ValueError(f"{path}: a folder, a pipe or a device, expected a file")
    if most is not None and status.st_size > most:
        os.close(descriptor)
        raise ValueError(f"{path}: {status.st_size:,} bytes, expected at most {most:,}")
    return open(descriptor, "rb")


def inside(folder: str | os.PathLike, name: str) -> pathlib.Path:
    """Find what a list, a card or an archive names, and see that it does not leave its folder.

    Args:
      folder: of the list; may itself be a link, for its owner chose it.
      name: relative to the folder, as a stranger wrote it.

    Returns:
      folder / name, which may not exist.

    Raises:
      ValueError: the name is absolute, climbs up, or goes through a link that leaves the folder.
    """
    parts = pathlib.PurePath(name).parts
    absolute = os.path.isabs(name) or pathlib.PureWindowsPath(name).anchor
    if absolute or not parts or ".." in parts or set("\0\\") & set(name):
        raise ValueError(f"{name!r} is not the name of a file in {folder}")
    return check_link(folder, pathlib.Path(folder) / name)


def check_link(folder: str | os.PathLike, path: str | os.PathLike) -> str | os.PathLike:
    """See that a path leads to a place in a folder, whatever is a link on the way there.

    Args:
      folder: may itself be a link.
      path: that begins with the folder.

    Returns:
      The path.

    Raises:
      ValueError: a link leads elsewhere.
    """
    home, target = os.path.realpath(folder), os.path.realpath(path)
    if os.path.commonpath([home, target]) != home:
        raise ValueError(
            f"{path} is a link that leaves {folder}, to {target}; put the file itself there"
        )
    return path


def list_files(
    folder: str | os.PathLike, suffix: str, root: str | os.PathLike | None = None
) -> list[str]:
    """List the files of a folder in order, without the ._* that Macs leave beside each file.

    Args:
      folder: where they lie; one that does not exist holds none.
      suffix: of their names, such as ".wav"; "" for all.
      root: folder that links must not leave; None for `folder` itself.

    Returns:
      Their names.

    Raises:
      ValueError: the folder or one of its files is a link that leaves `root`, or is no folder.
    """
    root = folder if root is None else root
    check_link(root, folder)
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(suffix) and not entry.name.startswith("._"):
                    if entry.is_symlink():
                        check_link(root, entry.path)
                    names.append(entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ValueError(f"{folder}: cannot be listed ({error.strerror})") from error
    return sorted(names)


def read_bytes(path: str | os.PathLike, most: int = MOST_BYTES) -> bytes:
    """Read a whole file.

    Args:
      path: of the file.
      most: bytes that it may have.

    Returns:
      Its bytes.

    Raises:
      FileNotFoundError, ValueError: as `open_regular`.
    """
    with open_regular(path, most) as file:
        return read_at_most(file, most, path)


def read_at_most(file: IO[bytes], most: int, where: object) -> bytes:
    """Read to the end of a file, piece by piece, so that memory is taken for what came.

    Args:
      file: plain, or one that unpacks.
      most: bytes that may come.
      where: the name for the error.

    Returns:
      The bytes.

    Raises:
      ValueError: more bytes come, or reading fails.
    """
    pieces, left = [], most
    try:
        while piece := file.read(min(_PIECE, left + 1)):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise ValueError(f"{where}: holds more than {most:,} bytes")
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{where}: truncated or damaged ({error})") from error
    return b"".join(pieces)


def read_gzip(path: str | os.PathLike, most: int) -> bytes:
    """Unpack a gzip file.

    Args:
      path: of the file.
      most: bytes that it may unpack to.

    Returns:
      The bytes.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, or unpacks to more.
    """
    with open_regular(path, most) as packed, gzip.GzipFile(fileobj=packed) as file:
        return read_at_most(file, most, path)


def read_text(
    path: str | os.PathLike, most: int = MOST_TEXT, encoding: str = "utf-8"
) -> str:
    """Read a text file.

    Args:
      path: of the file.
      most: bytes that it may have.
      encoding: of its characters.

    Returns:
      The text.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no such text.
    """
    try:
        return read_bytes(path, most).decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error})") from error


def read_json(path: str | os.PathLike, most: int = MOST_TEXT) -> dict[str, Any]:
    """Read a JSON object, of which every key is given once.

    Args:
      path: of the file.
      most: bytes that it may have.

    Returns:
      The object.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not JSON, no object, or says something twice.
    """
    text = read_text(path, most)
    try:
        content = json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a JSON {type(content).__name__}, expected an object")
    return content


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key is given twice")
    return content
