"""Files that are whole or as they were before."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Give a path to write to; it takes the place of `path` when the block ends well.

    Args:
      path: the file to replace; its folder must exist.

    Yields:
      A new name in the same folder.

    Raises:
      OSError: it could not be written, naming it.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise OSError(error.errno, f"could not write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
