"""Read arrays from files of strangers: no pickles, and no array that is not there in full."""

import math
import os
import zipfile
from typing import IO

import numpy as np

# Of all arrays of a file together. Weights and features take megabytes; a few compressed bytes that
# ask for more are no such file.
MOST_BYTES = 1 << 30


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read an archive of arrays, as NumPy writes it; sizes are compared before anything is kept.

    Args:
      path: of the `.npz` file.

    Returns:
      {name: array}.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, is no such archive, holds objects, or more than `MOST_BYTES`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise ValueError(f"its arrays take more than {MOST_BYTES:,} bytes")
            arrays = {}
            for entry in entries:
                with archive.open(entry) as file:
                    name = entry.filename.removesuffix(".npy")
                    arrays[name] = _read_array(file, name, entry.file_size)
            return arrays
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged bytes make zipfile, zlib and NumPy raise a dozen types
        raise ValueError(f"{path}: not a readable archive of arrays ({error})") from error


def _read_array(file: IO[bytes], name: str, size: int) -> np.ndarray:
    """Read one .npy file whose header asks for as many bytes as there are."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0
    }
    shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"{name} is {dtype} {shape}, which its {size:,} bytes do not hold")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)
