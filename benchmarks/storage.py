"""Time to make a batch from a memory-mapped array, and from an ArrayRecord file.

  pip install -e ".[data]"
  python -m benchmarks.storage

The examples are random numbers in the stored form of psMNIST and of raw Speech Commands; batches
are random, as in training, and files are in the memory of the system. The ArrayRecord file has one
record an example, its bytes alone: decoding, as a data set of TFDS needs, would come on top.
"""

import functools
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.prefetch import STORED

BATCHES = 16  # of a set


def write_both(folder: pathlib.Path, examples: np.ndarray) -> tuple[np.ndarray, Any]:
    """Write examples in both formats; return the mapped array and a reader of records."""
    from array_record.python import array_record_module

    mapped = np.lib.format.open_memmap(
        folder / "examples.npy", mode="w+", dtype=examples.dtype, shape=examples.shape
    )
    mapped[:] = examples
    mapped.flush()
    # Groups of one record, which random access is fastest with.
    writer = array_record_module.ArrayRecordWriter(str(folder / "examples"), "group_size:1")
    for example in examples:
        writer.write(example.tobytes())
    writer.close()
    reader = array_record_module.ArrayRecordReader(str(folder / "examples"))
    return np.load(folder / "examples.npy", mmap_mode="r"), reader


def from_records(reader: Any, like: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return a batch of records; `like` is an array of its dtype and shape."""
    records = reader.read(rows.tolist())
    return np.frombuffer(b"".join(records), like.dtype).reshape(len(rows), *like.shape[1:])


def compare(name: str, batch_size: int) -> list[timing.Record]:
    """Time batches of one data set in both formats."""
    shape, dtype, high, _ = STORED[name]
    rng = np.random.default_rng(0)
    examples = rng.integers(0, high, (BATCHES * batch_size, *shape), dtype)
    rows = rng.permutation(len(examples))[:batch_size]
    with tempfile.TemporaryDirectory() as folder:
        mapped, reader = write_both(pathlib.Path(folder), examples)
        ways = {
            "memory map": lambda rows: mapped[rows],
            "array_record": functools.partial(from_records, reader, mapped),
        }
        programs = [timing.Program(way, 0.0, 0, read, (rows,)) for way, read in ways.items()]
        differences = timing.check_agreement(programs, 0.0)
        setting = {"data": name, "batch": batch_size}
        return timing.measure(programs, setting=setting, differences=differences, budget_s=5)


def measure(quick: bool) -> list[timing.Record]:
    """Time all sets, or one with tiny batches."""
    batches = {"psmnist": 2} if quick else {"psmnist": 64, "sc10": 16}
    return [record for name, size in batches.items() for record in compare(name, size)]


def table(records: Sequence[timing.Record]) -> str:
    """Return the records as lines of text."""
    return "".join(
        f"{r['data']:10}batch {r['batch']:4} {r['contender']:14}{1e3 * r['median_s']:10.4g} ms\n"
        for r in records
    )


if __name__ == "__main__":
    timing.main("storage", measure, tabulate=table)
