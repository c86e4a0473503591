"""Kill, damage, fill, hide, poison and delay a small run; see that it ends with the same bits.

  python tests/faults.py --trials=100 --workdir=/tmp/faults \
      --output=experiments/results/checks/faults.json

A trial spoils a run once, puts right what the error names, and starts the same command again. That
must end with the parameters, statistics, optimizer state and lines of metrics of a run that nothing
happened to, bit for bit: not one step is lost or repeated. The record counts what happened. The
folder of a trial that fails is kept. Filling a disk needs root, to mount one of 1 MiB in memory.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable

import damage
from fault_job import HEARTBEAT
from fault_trials import POINTS, Process, Trials, expect, lines_of
from records import write_record

ROUNDS = 2  # of the trials that kill nothing at random
WAYS = (damage.truncate, damage.empty, damage.flip, damage.blank, None)
DATA = ("manifest.json", "inputs.npy", "lengths.npy", "labels.npy")


class Pairs:
    """Trials of two processes that are one run."""

    def __init__(self, trials: Trials):
        """Make a run that nothing happens to."""
        self.trials = trials
        workdir = trials.folder / "whole-pair"
        self.bits, self.lines = self.end(self.start(workdir)), lines_of(workdir)

    def start(self, workdir: pathlib.Path) -> list[Process]:
        """Start both processes."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        return [self.trials.start(workdir, address, "2", str(process)) for process in range(2)]

    def end(self, pair: list[Process]) -> set[str]:
        """Wait for processes that must end well; return the digests of their bits."""
        return {self.trials.end(process) for process in pair}

    def compare(self, workdir: pathlib.Path, pair: list[Process]) -> None:
        """See that both end as those did that nothing happened to."""
        expect(self.end(pair) == self.bits and len(self.bits) == 1, "other parameters")
        expect(lines_of(workdir) == self.lines, "other lines of metrics")

    def delay(self, workdir: pathlib.Path, rng: random.Random, seconds: float | None) -> str:
        """Stop one process at a random step, for some seconds or for ever."""
        pair = self.start(workdir)
        late = rng.randrange(2)
        pair[late].wait_for("step", rng.randint(1, 40))
        pair[late].send(signal.SIGSTOP)
        if seconds is not None:
            time.sleep(seconds)
            pair[late].send(signal.SIGCONT)
            self.compare(workdir, pair)
            return "waited for it"
        # Heartbeats are looked at every few seconds; a machine under load adds to that.
        status, _ = pair[1 - late].finish(timeout=6 * HEARTBEAT)
        said = pair[1 - late].errors()
        pair[late].kill()
        expect(status != 0 and any(word in said for word in ("task", "Gloo")), f"{status}: {said}")
        self.compare(workdir, self.start(workdir))
        return "gave it up with an error, went on when both were back"


def checkpoint_files(workdir: pathlib.Path) -> list[str]:
    """Name the files of the newest whole checkpoint that have content, and the run's own files."""
    newest = max((workdir / "checkpoints").glob("*/manifest.json")).parent
    found = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    return [str(path.relative_to(workdir)) for path in found]


def plan(trials: Trials, kills: int) -> list[tuple[str, Callable[..., str], list]]:
    """List what to do: (kind, trial, its arguments)."""
    points = [list(POINTS)[number % len(POINTS)] for number in range(kills)]
    listed = [(f"killed {point}", trials.kill, [point]) for point in points]
    for turn in range(ROUNDS):
        way = lambda place: WAYS[(turn + place) % len(WAYS)]
        for place, name in enumerate(checkpoint_files(trials.killed)):
            kind = "a file of a checkpoint damaged"
            listed.append((kind, trials.spoil_run, [name, way(place)]))
        for place, name in enumerate(("config.json", "metrics.jsonl")):
            listed.append((f"{name} damaged", trials.spoil_run, [name, way(place)]))
        for place, name in enumerate(DATA):
            listed.append(("a file of the data damaged", trials.spoil_data, [name, way(place)]))
        listed.append(("the data vanished", trials.hide_data, []))
        listed.append(("inputs not numbers", trials.poison, []))
        if os.getuid() == 0:
            listed.append(("disk full", trials.fill_disk, []))
    pairs = Pairs(trials)
    for seconds in (1, HEARTBEAT / 2, None, None):
        kind = "one of two processes late" if seconds else "one of two processes silent"
        listed.append((kind, pairs.delay, [seconds]))
    return listed


def attempt(folder: pathlib.Path, seed: str, trial: Callable[..., str], arguments: list) -> str:
    """Run a trial in a folder of its own, which stays if it fails; return what happened."""
    place = pathlib.Path(tempfile.mkdtemp(dir=folder, prefix="trial-"))
    try:
        outcome = trial(place / "run", random.Random(seed), *arguments)
    except Exception as failure:  # of the run, or of what watches it: the others go on
        return f"FAILED in {place}: {failure!r}"
    shutil.rmtree(place)
    return outcome


def main() -> None:
    """Run the trials that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100, help="how often to kill and go on")
    parser.add_argument("--workdir", required=True, help="folder for runs; it must not exist")
    parser.add_argument("--output", help="file of the record")
    parser.add_argument("--seed", type=int, default=0, help="of steps, moments and damages")
    parser.add_argument("--jobs", type=int, default=1, help="how many trials at a time")
    asked = parser.parse_args()
    started, folder = time.monotonic(), pathlib.Path(asked.workdir).absolute()
    folder.mkdir(parents=True)
    todo = plan(Trials(folder), asked.trials)
    seen, failures = collections.defaultdict(collections.Counter), []
    with concurrent.futures.ThreadPoolExecutor(asked.jobs) as pool:
        coming = [
            pool.submit(attempt, folder, f"{asked.seed} {number}", *trial)
            for number, (_, *trial) in enumerate(todo)
        ]
        for number, (future, (kind, _, arguments)) in enumerate(zip(coming, todo)):
            outcome = future.result()
            if outcome.startswith("FAILED"):
                failures.append(f"{number}, {kind} {arguments}: {outcome}")
                outcome = "FAILED"
            seen[kind][outcome] += 1
            print(f"{number + 1} of {len(todo)}: {kind}: {outcome}", file=sys.stderr, flush=True)
    write_record(asked.output, started, {
        "seed": asked.seed, "killed_and_resumed": asked.trials, "trials": len(todo),
        "outcomes": {kind: dict(outcomes) for kind, outcomes in seen.items()},
        "failures": failures,
    })


if __name__ == "__main__":
    main()
