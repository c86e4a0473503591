"""Ways to damage a file; a seeded generator chooses where."""

import pathlib
import random
import re
from collections.abc import Callable

NUMBERS = (
    b"0", b"-1", b"7", b"255", b"2147483648", b"9223372036854775807", b"1" + 30 * b"0", b"1e999"
)


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    """Choose a short piece more often than a long one."""
    first = rng.randrange(len(data))
    return first, min(len(data), first + 2 ** rng.randrange(11))


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def empty(data: bytes, rng: random.Random) -> bytes:
    return b""


def flip(data: bytes, rng: random.Random) -> bytes:
    """Turn over a few bits."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def blank(data: bytes, rng: random.Random) -> bytes:
    """Make a piece zeros, as a file system may after a power cut."""
    first, last = _span(data, rng)
    return data[:first] + bytes(last - first) + data[last:]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    first, last = _span(data, rng)
    return data[:first] + rng.randbytes(last - first) + data[last:]


def insert(data: bytes, rng: random.Random) -> bytes:
    first, last = _span(data, rng)
    return data[:first] + rng.randbytes(last - first) + data[first:]


def cut(data: bytes, rng: random.Random) -> bytes:
    first, last = _span(data, rng)
    return data[:first] + data[last:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    first, last = _span(data, rng)
    return data[:last] + data[first:]


def extreme(data: bytes, rng: random.Random) -> bytes:
    """Make a binary number the smallest or largest of its kind."""
    width = rng.choice((1, 2, 4, 8))
    first = rng.randrange(len(data))
    value = rng.choice((bytes(width), b"\xff" * width, b"\xff" * (width - 1) + b"\x7f"))
    return data[:first] + (value if rng.random() < 0.5 else value[::-1]) + data[first + width :]


def number(data: bytes, rng: random.Random) -> bytes:
    """Make a number that is written in decimal another one, or a huge one."""
    found = list(re.finditer(rb"-?\d+", data))
    if not found:
        return extreme(data, rng)
    chosen = rng.choice(found)
    return data[: chosen.start()] + rng.choice(NUMBERS) + data[chosen.end() :]


def nest(data: bytes, rng: random.Random) -> bytes:
    """Open more brackets than a parser should follow."""
    first = rng.randrange(len(data))
    return data[:first] + rng.choice((b"[", b"(", b'{"a":')) * 50_000 + data[first:]


Way = Callable[[bytes, random.Random], bytes]
WAYS: tuple[Way, ...] = (
    truncate, empty, flip, blank, overwrite, insert, cut, repeat, extreme, number, nest
)


def damage(path: pathlib.Path, way: Way | None, rng: random.Random) -> bytes:
    """Damage a file, or remove it.

    Args:
      path: of the file.
      way: how; None removes it. Where it would change nothing, another one is taken.
      rng: consumed.

    Returns:
      What the file held before.
    """
    before = path.read_bytes()
    if way is None:
        path.unlink()
        return before
    while (after := way(before, rng)) == before:
        way = rng.choice(WAYS)
    path.write_bytes(after)
    return before
