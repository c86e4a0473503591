"""Read data sets from HDF5 files of strangers, in this file alone and within limits.

HDF5 follows what a file says: to other files (external links, external storage, virtual sets), into
pipes, round in circles over a piece of zeros, and to gigabytes for a list whose length is one
number. So what a file holds is looked at link by link, and a process that can be spared, limited in
time and memory, reads all of it first. That process runs this file as a program, without the rest
of the package; hence only the standard library, NumPy and h5py are imported here.
"""

import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

BLOCK = 128  # rows read at once
MOST_IN_A_ROW = 1 << 18  # numbers of a list; published recordings hold some ten thousand
MOST_IN_A_CHUNK = 1 << 26  # bytes that are unpacked at once
MEMORY = 1 << 30  # bytes that the spared process may take beyond what its libraries take
SECONDS = 5  # of a processor, and a second more for each megabyte; far more than enough
WAIT = 20  # times as many of a clock, for a machine that does much else
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_FILTERS = {1, 2, 3, 4, 5, 6, 32_000}  # those of HDF5 and h5py; others are plug-ins


@contextlib.contextmanager
def open_sets(path: str | os.PathLike, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Open data sets of a file; whatever goes wrong while they are read is one error.

    Args:
      path: of the file.
      names: of the sets, as "group/set".

    Yields:
      {name: h5py.Dataset}, each of them stored in this file.

    Raises:
      ValueError: the file is damaged, lacks a set, or says to read another file; naming it.
    """
    import h5py

    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("a folder, a pipe or a device")
        with h5py.File(path, "r") as file:
            yield {name: _find(file, name) for name in names}
    # Where a file is damaged decides in which way h5py notices.
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{path}"):
            raise
        raise ValueError(
            f"{path}: truncated, damaged, or not an HDF5 file of this kind ({error})"
        ) from error


def _find(file: Any, name: str) -> Any:
    """Go to a data set link by link: h5py itself would follow a link before it says what it is."""
    import h5py

    place = file
    for part in name.split("/"):
        links = place.id.links if isinstance(place, h5py.Group) else None
        if links is None or not links.exists(part.encode()):
            raise ValueError(f"no {name}; found {sorted(file.keys())}")
        if links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{name} is a link to another place, expected the data themselves")
        place = place[part]
    if not isinstance(place, h5py.Dataset):
        raise ValueError(f"{name} is no data set")
    plan = place.id.get_create_plist()
    if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
        raise ValueError(f"the numbers of {name} are in another file, expected them in this one")
    filters = {plan.get_filter(index)[0] for index in range(plan.get_nfilters())}
    if not filters <= _FILTERS:
        raise ValueError(f"{name} is packed by filters {sorted(filters - _FILTERS)}, unknown here")
    if place.chunks and place.dtype.itemsize * _product(place.chunks) > MOST_IN_A_CHUNK:
        raise ValueError(f"{name} has chunks {place.chunks}, more than {MOST_IN_A_CHUNK:,} bytes")
    return place


def _product(numbers: Sequence[int]) -> int:
    product = 1
    for number in numbers:
        product *= number
    return product


def survey(path: str | os.PathLike, names: Sequence[str], window: float) -> dict[str, Any]:
    """Have a process that can be spared read all that a file holds.

    Args:
      path: of the file, which is there.
      names: of its sets; the first holds lists of times.
      window: seconds at which late times begin.

    Returns:
      {"shapes": {name: shape}, "events": number of times, "last": the largest of them, "late":
      {unit: how many are late if they are in this unit}}.

    Raises:
      ValueError: the file cannot be read within the limits, naming it.
    """
    seconds = SECONDS + os.path.getsize(path) // 1_000_000
    command = [sys.executable, "-P", __file__, os.fspath(path), str(seconds), str(window), *names]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT * seconds)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{path}: damaged, HDF5 does not come to its end") from error
    if done.returncode < 0:
        raise ValueError(
            f"{path}: damaged, HDF5 does not come to its end (signal {-done.returncode})"
        )
    try:
        found = json.loads(done.stdout)
    except ValueError as error:
        said = done.stderr.strip().splitlines()[-1:] or ["it says nothing"]
        raise ValueError(f"{path}: not read within the limits ({said[0]})") from error
    if "problem" in found:
        raise ValueError(found["problem"])
    return found


def _limit(seconds: int) -> None:
    """Limit this process in time and, where the system can, in memory."""
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    try:
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    except OSError:  # no /proc, no such limit
        pass


def _read_all(path: str, window: float, names: Sequence[str]) -> dict[str, Any]:
    """Read every row of every set; count times, and those that are late in each unit."""
    import numpy as np

    last, events, late = 0.0, 0, dict.fromkeys(UNITS, 0)
    with open_sets(path, names) as sets:
        shapes = {name: data.shape for name, data in sets.items()}
        for name, data in sets.items():
            for first in range(0, len(data) if data.shape else 0, BLOCK):
                rows = data[first : first + BLOCK]
                if rows.dtype != object:
                    continue
                longest = max(map(np.size, rows))
                if longest > MOST_IN_A_ROW:
                    raise ValueError(
                        f"{name} has a list of {longest:,} numbers, expected at most "
                        f"{MOST_IN_A_ROW:,}"
                    )
                if name == names[0]:
                    times = np.concatenate([np.ravel(row) for row in rows]).astype(np.float64)
                    last, events = max(last, times.max(initial=0.0)), events + times.size
                    for unit, scale in UNITS.items():
                        late[unit] += int((times * scale >= window).sum())
    return {"shapes": shapes, "events": events, "last": float(last), "late": late}


def _main() -> None:
    path, seconds, window, *names = sys.argv[1:]
    import h5py  # noqa: F401  before memory is limited by what is taken now
    import numpy  # noqa: F401

    _limit(int(seconds))
    try:
        found = _read_all(path, float(window), names)
    except ValueError as error:
        found = {"problem": str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
