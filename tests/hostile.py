"""What a stranger may put where a loader looks for a file, and limits on what reading it takes.

Damage changes bytes (`damage.py`); this changes what stands in a place: a link out of the folder, a
pipe that nobody writes to, a folder, and the shadows that Macs leave beside files.
"""

import contextlib
import os
import pathlib
import resource
import shutil
import signal


def link_away(path: pathlib.Path, root: pathlib.Path) -> None:
    """Move the file out of the loader's folder, and leave a link to it."""
    away = root.with_name(f"{root.name} elsewhere")
    away.mkdir(exist_ok=True)
    target = shutil.move(path, away / path.name)
    path.symlink_to(target)


def pipe(path: pathlib.Path, root: pathlib.Path) -> None:
    """Leave a pipe; who opens it to read waits for ever."""
    path.unlink()
    os.mkfifo(path)


def folder(path: pathlib.Path, root: pathlib.Path) -> None:
    """Leave a folder."""
    path.unlink()
    path.mkdir()


def shadow(path: pathlib.Path) -> None:
    """Put beside a file what a Mac puts there; no loader may mind."""
    path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7" + bytes(100))


PLACES = (link_away, pipe, folder)


@contextlib.contextmanager
def limited(headroom: int, seconds: int):
    """Limit what this process may take beyond what it has, and how long a block may last.

    Args:
      headroom: bytes of memory.
      seconds: of a clock.
    """

    def ring(*_):
        raise TimeoutError(f"it took more than {seconds} s")

    taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (taken + headroom, hard))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)
