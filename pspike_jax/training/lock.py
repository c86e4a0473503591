"""One owner of a folder at a time: a lock that the system takes back when its owner dies."""

import contextlib
import datetime
import errno
import json
import os
import pathlib
import socket
import warnings
from collections.abc import Iterator

from pspike_jax.analysis.files import is_file, is_remote, set_aside

LOCK = "owner.json"
UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def owned(folder: os.PathLike) -> Iterator[None]:
    """Own an existing folder as long as the block runs; owners who died own nothing.

    RuntimeError names the run, here or on another machine, that owns it. An object storage has no
    locks: there, nothing keeps two runs apart.
    """
    if is_remote(folder):
        yield
        return
    path = pathlib.Path(folder) / LOCK
    if os.path.lexists(path) and not is_file(path):
        set_aside(path)
    # The file stays when the block ends: were it removed, two could lock two files of one name.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_me()).encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: pathlib.Path) -> None:
    import fcntl  # not on every system that can read a run

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RuntimeError(
            f"workdir {path.parent} belongs to {_owner(descriptor)}, which has not ended; "
            "expected another folder, or its end"
        ) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        warnings.warn(
            f"{path.parent} cannot be locked: see that one run alone uses it", stacklevel=4
        )


def _me() -> dict[str, str | int]:
    started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "process": os.getpid(), "since": started}


def _owner(descriptor: int) -> str:
    try:
        said = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {said['process']} on host {said['host']}, since {said['since']}"
    except (ValueError, TypeError, KeyError):  # it has only just begun
        return "another process"
