"""Read tables of text by strangers row by row: no line, and no row of several lines, is long."""

import csv
import itertools
import os
from collections.abc import Iterator

from pspike_jax.data.untrusted import open_regular

_END = "end of the file"


def read_rows(
    path: str | os.PathLike, most: int, encoding: str
) -> Iterator[tuple[int, list[str]]]:
    """Read a file of fields that tabs separate and quotation marks may enclose.

    Args:
      path: of the file; it may be larger than memory.
      most: bytes that a line, and characters that a row, may have.
      encoding: of the text; one in which only b"\\n" is the end of a line.

    Yields:
      Number of the row's last line, and its fields.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no such table, or a row is longer.
    """
    csv.field_size_limit(most)
    taken = 0

    def lines():
        nonlocal taken
        for number in itertools.count(1):
            line = file.readline(most + 1)
            taken += len(line)
            if taken > most:
                raise ValueError(f"{path}, line {number}: a row of more than {most:,} bytes")
            if not line:
                # A quotation that is not closed would swallow the last line, and say nothing.
                yield _END
                return
            try:
                yield line.decode(encoding)
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number}: damaged, not text ({error})") from error

    with open_regular(path, None) as file:
        rows = csv.reader(lines(), delimiter="\t")
        try:
            for row in rows:
                if row == [_END]:
                    return
                taken = 0
                yield rows.line_num, row
        except csv.Error as error:
            raise ValueError(f"{path}, after line {rows.line_num}: damaged ({error})") from error
    raise ValueError(f"{path}: truncated, a quotation does not end")
