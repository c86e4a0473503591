"""Damage files, thousands of them, and read each with its loader.

  python tests/fuzz.py --files=2000 --output=experiments/results/checks/fuzz.json

Each must end in a result of the announced shapes, or in a ValueError or FileNotFoundError that
names the file: never in another exception, a crash, a hang, or an allocation of more than half a
GiB. One file in eight is not damaged but replaced: by a link out of its folder, a pipe, a folder.
File k of a seed is always the same; --only=k reads that one alone, and shows what it raises. The
files are read in a process of their own, so that its death can be counted. `.pth` files are among
them where PyTorch is installed.
"""

import argparse
import collections
import json
import pathlib
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
from damage import WAYS, damage
from fuzz_loaders import LOADERS, Loader
from hostile import limited
from records import write_record

SECONDS = 120  # for a file; it takes milliseconds where nothing else goes on
FOLDERS = {"00000001", "00000002", "twelve"}
HEADROOM = 1 << 29  # bytes that reading one file may take
REPLACED = 1 / 8  # share of the files in whose place something else is put


def write_all(folder: pathlib.Path) -> None:
    """Write sound files for every loader, and see that they are read."""
    for name, loader in LOADERS.items():
        (folder / name).mkdir()
        loader.write(folder / name, np.random.default_rng(0))
        loader.load(folder / name)


def read_damaged(folder: pathlib.Path, loader: Loader, rng: random.Random) -> tuple[str, str]:
    """Damage one file of a loader's; return its name and what reading it came to."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    replaced = bool(loader.places) and rng.random() < REPLACED
    path, way = rng.choice(files), rng.choice(loader.places if replaced else WAYS)
    copy = shutil.copytree(folder, folder.parent / "damaged")
    damaged = copy / path.relative_to(folder)
    try:
        way(damaged, copy) if replaced else damage(damaged, way, rng)
        loader.sign(copy)
        with warnings.catch_warnings(), limited(HEADROOM, SECONDS):
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "skipped the")
            loader.load(copy)
        outcome = "read"
    except (ValueError, FileNotFoundError) as error:
        # What is wrong between whole files is said of their folder: a checkpoint, a prepared set.
        names = (damaged.name, *FOLDERS.intersection(damaged.parts))
        known = any(name in str(error) for name in names) or "state dict" in str(error)
        outcome = "refused" if known else f"NOT NAMED: {error!r:.300}"
        if any(isinstance(cause, MemoryError) for cause in (error.__cause__, error.__context__)):
            outcome = f"TOO LARGE: {error!r:.300}"
    except Exception as error:
        outcome = f"WRONG: {error!r:.300}"
    finally:
        shutil.rmtree(copy)
        shutil.rmtree(copy.with_name(f"{copy.name} elsewhere"), ignore_errors=True)
    return f"{way.__name__} {damaged.relative_to(copy)}", outcome


def work(folder: pathlib.Path, seed: int, numbers: range) -> None:
    """Read damaged files; say of each what it came to."""
    write_all(folder)
    names = list(LOADERS)
    for number in numbers:
        name = names[number % len(names)]
        rng = random.Random(f"{seed} {number}")
        what, outcome = read_damaged(folder / name, LOADERS[name], rng)
        print(json.dumps([number, name, what, outcome]), flush=True)


def watch(seed: int, first: int, last: int):
    """Yield what became of each file; where the process that reads them ends, start another."""
    while first < last:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
            worker = subprocess.Popen(
                [sys.executable, __file__, f"--seed={seed}", f"--files={last}",
                 f"--work={folder}", f"--first={first}"],
                stdout=subprocess.PIPE, stderr=errors, text=True,
            )
            begun = False
            while first < last:
                # The first file waits for imports and for sound files.
                ready, _, _ = select.select([worker.stdout], [], [], SECONDS if begun else 900)
                line = worker.stdout.readline() if ready else ""
                if not line:
                    break
                begun = True
                yield json.loads(line)
                first += 1
            worker.kill()
            worker.wait()
            if first < last:
                errors.seek(0)
                how = "ended" if ready else "hung"
                name = list(LOADERS)[first % len(LOADERS)]
                said = errors.read()[-2000:]
                if not begun and first == 0:
                    raise SystemExit(f"error: the sound files were not read: {said}")
                yield first, name, "?", f"PROCESS {how} with {worker.returncode}: {said}"
                first += 1


def main() -> None:
    """Read the files that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=2000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the damages")
    parser.add_argument("--output", help="file of the record")
    parser.add_argument("--only", type=int, help="number of one file")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(pathlib.Path(asked.work), asked.seed, range(asked.first, asked.files))
        return
    started = time.monotonic()
    numbers = (0, asked.files) if asked.only is None else (asked.only, asked.only + 1)
    counts, failures = collections.defaultdict(collections.Counter), []
    for number, name, what, outcome in watch(asked.seed, *numbers):
        if outcome not in ("read", "refused"):
            failures.append(f"{number}, {name}, {what}: {outcome}")
            print(failures[-1], file=sys.stderr, flush=True)
            outcome = "FAILED"
        counts[name][outcome] += 1
    outcomes = {name: dict(counts[name]) for name in LOADERS}
    write_record(asked.output, started, {
        "seed": asked.seed, "files": numbers[1] - numbers[0], "outcomes": outcomes,
        "failures": failures,
    })


if __name__ == "__main__":
    main()
