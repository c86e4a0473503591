"""Read PNG pictures of one size from bytes of strangers, with no other program and no other format.

Pillow guesses a format from the bytes, whatever a file is called, and starts other programs for
some. So it is told the format, and the size is read from the bytes before Pillow takes memory.
"""

import io
import struct

import numpy as np

MOST_BYTES = 1 << 20  # of a file; 256 x 256 pixels take less, packed badly
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">4s2I")  # behind the signature and a length


def decode_png(data: bytes, shape: tuple[int, ...], where: object) -> np.ndarray:
    """Decode one picture.

    Args:
      data: the file's bytes, at most `MOST_BYTES`.
      shape: (height, width) for gray, (height, width, 3) for colors.
      where: the name for the error.

    Returns:
      uint8 pixels of that shape.

    Raises:
      ValueError: it is no such picture.
    """
    from PIL import Image

    if len(data) > MOST_BYTES:
        raise ValueError(f"{where}: {len(data):,} bytes, expected at most {MOST_BYTES:,}")
    if not data.startswith(_SIGNATURE) or len(data) < 12 + _HEADER.size:
        raise ValueError(f"{where}: cannot be read as an image (it is no PNG file)")
    name, width, height = _HEADER.unpack_from(data, 12)
    if name != b"IHDR" or (height, width) != shape[:2]:
        raise ValueError(f"{where}: {(height, width)} pixels, expected {shape[:2]}")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as file:
            pixels = np.asarray(file.convert("RGB" if len(shape) == 3 else "L"))
    except Exception as error:  # damaged bytes make Pillow and zlib raise a dozen types
        raise ValueError(f"{where}: cannot be read as an image ({error})") from error
    if pixels.shape != shape:
        raise ValueError(f"{where}: {pixels.shape} pixels, expected {shape}")
    return pixels
