"""Read arrays from files of strangers: no pickles, and no array that is not there in full.

An archive is opened once. Names, shapes and dtypes are read first, a few bytes each, and a caller
who knows what to expect compares them before memory is taken; each array is then read from the
very entry that was looked at, never from another one of the same name.
"""

import contextlib
import io
import math
import os
import struct
import zipfile
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np

from pspike_jax.data import untrusted
from pspike_jax.data.untrusted import MOST_BYTES

KINDS = "biufcSU"  # no objects, no structures, no dates
_END = struct.Struct("<4s4H2LH")  # how a zip file ends
_END64_BYTES = 20  # of what stands before it in a file that may be larger than 4 GB
_MOST_DIRECTORY = 1 << 22  # bytes; of some 50,000 arrays
_MOST_HEADER = 10_000  # as NumPy
_READERS = {
    (1, 0): (2, np.lib.format.read_array_header_1_0),
    (2, 0): (4, np.lib.format.read_array_header_2_0),
}


class Header(NamedTuple):
    """What an .npy file says of its array.

    Attributes:
      shape: of the array.
      dtype: of its numbers, maybe one that is refused.
      fortran_order: whether the first axis varies fastest.
      bytes: that the header takes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    bytes: int


def read_header(file: IO[bytes]) -> Header:
    """Read the header of an .npy file.

    Args:
      file: at its beginning; it is left behind the header.

    Returns:
      The header; nothing but its form is checked.

    Raises:
      ValueError, EOFError: it is none.
    """
    version = np.lib.format.read_magic(file)
    if version not in _READERS:
        raise ValueError(f"format {version} of .npy, expected 1.0 or 2.0")
    width, parse = _READERS[version]
    prefix = file.read(width)
    length = int.from_bytes(prefix, "little")
    if length > _MOST_HEADER:
        raise ValueError(f"a header of {length:,} bytes, expected at most {_MOST_HEADER:,}")
    content = file.read(length)
    shape, fortran_order, dtype = parse(io.BytesIO(prefix + content))
    return Header(shape, dtype, fortran_order, 8 + width + length)


def check_header(header: Header, name: str, size: int) -> None:
    """Refuse an array whose numbers its bytes do not hold, or that are no numbers.

    Args:
      header: as read.
      name: for the error.
      size: bytes of the .npy file.

    Raises:
      ValueError: it cannot be read.
    """
    shape, dtype, *_ = header
    if dtype.kind not in KINDS or not dtype.itemsize or dtype.hasobject:
        raise ValueError(f"{name} is {dtype} {shape}, expected numbers or text, allow_pickle=False")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - header.bytes:
        raise ValueError(f"{name} is {dtype} {shape}, which its {size:,} bytes do not hold")


class Archive:
    """The arrays of an .npz file that is open.

    Attributes:
      headers: {name: Header}, of all arrays.
    """

    def __init__(self, file: IO[bytes], most: int):
        """Read all headers.

        Args:
          file: the archive.
          most: bytes that all arrays together may take.
        """
        _check_directory(file)
        self._archive = zipfile.ZipFile(file)
        self._entries, self.headers = {}, {}
        entries = self._archive.infolist()
        if sum(entry.file_size for entry in entries) > most:
            raise ValueError(f"its arrays take more than {most:,} bytes")
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name in self._entries:
                raise ValueError(f"two arrays are named {name}")
            # The others' unpackers take as much memory as their bytes ask for.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is packed in a way that NumPy does not use")
            with self._archive.open(entry) as member:
                self.headers[name] = read_header(member)
            self._entries[name] = entry

    def read(self, name: str) -> np.ndarray:
        """Read one array.

        Args:
          name: a key of `headers`.

        Returns:
          The array.
        """
        entry = self._entries[name]
        check_header(self.headers[name], name, entry.file_size)
        with self._archive.open(entry) as member:
            return np.lib.format.read_array(member, allow_pickle=False)


def _check_directory(file: IO[bytes]) -> None:
    """Refuse an archive whose list of members is long: zipfile takes memory for all of it."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - _END.size - _END64_BYTES))
    tail = file.read()
    found = _END.unpack(tail[-_END.size :]) if len(tail) >= _END.size else (b"",)
    if found[0] != b"PK\5\6" or found[-1]:
        raise ValueError("it does not end as an archive without remarks")
    if tail[: -_END.size].startswith(b"PK\6\7") or found[5] > _MOST_DIRECTORY:
        raise ValueError(f"its list of members takes more than {_MOST_DIRECTORY:,} bytes")
    file.seek(0)


@contextlib.contextmanager
def open_npz(
    path: str | os.PathLike, content: bytes | None = None, most: int = MOST_BYTES
) -> Iterator[Archive]:
    """Open an archive of arrays, as NumPy writes it; what fails within names it.

    Args:
      path: of the `.npz` file.
      content: its bytes, where they were read already.
      most: bytes that the file, and all its arrays together, may take.

    Yields:
      The archive.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, is no such archive, holds objects or two arrays of one name, or
        more than `most`.
    """
    opened = untrusted.open_regular(path, most) if content is None else io.BytesIO(content)
    with opened as file:
        try:
            yield Archive(file, most)
        except Exception as error:  # damaged bytes make zipfile, zlib and NumPy raise a dozen types
            raise ValueError(f"{path}: not a readable archive of arrays ({error})") from error


def read_npz(path: str | os.PathLike, most: int = MOST_BYTES) -> dict[str, np.ndarray]:
    """Read an archive of arrays, as NumPy writes it; sizes are compared before anything is kept.

    Args:
      path: of the `.npz` file.
      most: bytes that the file, and all its arrays together, may take.

    Returns:
      {name: array}.

    Raises:
      FileNotFoundError, ValueError: as `open_npz`.
    """
    with open_npz(path, most=most) as archive:
        return {name: archive.read(name) for name in archive.headers}
