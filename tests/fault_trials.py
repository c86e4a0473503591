"""Trials of faults: a run is spoiled once and started again, and must end with the same bits."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import damage
import fault_job

JOB = pathlib.Path(fault_job.__file__)
ROOT = JOB.parents[1]
TIMEOUT = 600  # seconds; a run takes a few where nothing else goes on
# By point: the mark that comes before, how often a run passes it, seconds within which to kill.
POINTS = {
    "during a step": ("step", 40, 0.01),
    "during an evaluation": ("evaluation", 4, 0.02),
    "during a save": ("save", 7, 0.1),
    "between files of a save": ("save", 7, 0.0),
    "during a removal": ("removal", 10, 0.002),
    "during a restart": ("restore", 1, 0.5),
}


class Failed(Exception):
    """A trial did not end as it must."""


def expect(condition: bool, message: str) -> None:
    """Fail a trial unless something holds."""
    if not condition:
        raise Failed(message)


def lines_of(workdir: pathlib.Path) -> list[dict]:
    """Return the metrics of a run without what clocks said."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def unfinished(workdir: pathlib.Path) -> list[int]:
    """Count the files of each checkpoint that is being written, or that was cut short."""
    counts = []
    with contextlib.suppress(FileNotFoundError):  # one is removed while it is looked at
        for folder in (workdir / "checkpoints").glob("*"):
            if not (folder / "manifest.json").exists():
                counts.append(sum(path.is_file() for path in folder.rglob("*")))
    return counts


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a file system of 1 MiB in memory; only root may mount one."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


class Process:
    """One process of a run, and what it says."""

    def __init__(self, *arguments: pathlib.Path | str, cache: pathlib.Path, **environment: str):
        base = {
            "PYTHONPATH": str(ROOT),
            "PATH": os.environ["PATH"],
            "JAX_NUM_CPU_DEVICES": "1",
            # All runs share what the first one compiles.
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        with tempfile.NamedTemporaryFile(dir=cache.parent, prefix="errors-", delete=False) as file:
            self._errors = pathlib.Path(file.name)
            self._popen = subprocess.Popen(
                [sys.executable, str(JOB), *map(str, arguments)], cwd=ROOT, env=base | environment,
                stdout=subprocess.PIPE, stderr=file, text=True,
            )

    def wait_for(self, word: str, count: int) -> None:
        """Read marks until a word has come so often."""
        while count:
            line = self._popen.stdout.readline()
            expect(line != "", f"it ended before {word} {count} came: {self.errors()}")
            count -= line == f"{word}\n"

    def finish(self, timeout: float = TIMEOUT) -> tuple[int, str]:
        """Wait for the end; return the status and the last line of standard output."""
        try:
            said, _ = self._popen.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise Failed(f"it hangs: no end within {timeout} s") from error
        return self._popen.returncode, (said.splitlines() or [""])[-1]

    def errors(self) -> str:
        """Return the end of what was written to standard error."""
        return self._errors.read_text()[-4000:]

    def send(self, number: int) -> None:
        """Send a signal."""
        self._popen.send_signal(number)

    def runs(self) -> bool:
        """Return whether it has not ended."""
        return self._popen.poll() is None

    def kill(self) -> None:
        """End it as a lost machine does."""
        expect(self.runs(), f"it ended with {self._popen.returncode} before it was killed")
        self._popen.kill()
        self._popen.communicate()


class Trials:
    """What all trials share: the data, a run that nothing happens to, and one that was killed.

    A trial is a method of (workdir, generator, ...): the folder does not exist yet, the generator
    chooses where to strike and is consumed. It returns what happened, or raises Failed.
    """

    def __init__(self, folder: pathlib.Path):
        """Make the runs.

        Args:
          folder: for everything that is written.
        """
        self.folder, self.data = folder, folder / "data"
        fault_job.prepare(self.data)
        self.bits = self.end(self.start(folder / "whole"))
        self.lines = lines_of(folder / "whole")
        self.killed = folder / "killed"
        process = self.start(self.killed)
        process.wait_for("step", 30)
        process.kill()

    def start(self, workdir: pathlib.Path, *job: str, data=None, **environment: str) -> Process:
        """Start the command of a run."""
        cache = self.folder / "cache"
        return Process(data or self.data, workdir, *job, cache=cache, **environment)

    def end(self, process: Process) -> str:
        """Wait for a run that must end well; return the digest of its bits."""
        status, digest = process.finish()
        expect(status == 0, f"status {status}: {process.errors()}")
        return digest

    def compare(self, workdir: pathlib.Path, bits: str) -> None:
        """See that a run has ended as the one did that nothing happened to."""
        expect(bits == self.bits, "other parameters, statistics or optimizer state")
        expect(lines_of(workdir) == self.lines, "other lines of metrics")
        expect(not unfinished(workdir), "a half-written checkpoint was left")

    def resume(self, workdir: pathlib.Path, data: pathlib.Path | None = None) -> None:
        """Start the same command again, and see that it ends with the same bits."""
        self.compare(workdir, self.end(self.start(workdir, data=data)))

    def refuse(self, process: Process, *words: str) -> None:
        """See that a run ends with an error that has all of these words."""
        status, _ = process.finish()
        said = process.errors()
        missing = [word for word in words if word not in said]
        expect(status == 1 and not missing, f"status {status}, nothing of {missing}: {said}")

    def kill(self, workdir: pathlib.Path, rng: random.Random, point: str) -> str:
        """Kill a run at a point, after a random step."""
        mark, times, seconds = POINTS[point]
        if mark == "restore":
            shutil.copytree(self.killed, workdir)
        process = self.start(workdir)
        process.wait_for(mark, rng.randint(1, times))
        if point == "between files of a save":
            some = rng.randint(1, 12)
            while max(unfinished(workdir), default=0) < some:
                expect(process.runs(), "it ended before a save was caught")
        time.sleep(rng.uniform(0, seconds))
        process.kill()
        left = any(unfinished(workdir))
        self.resume(workdir)
        return "left a half-written checkpoint" if left else "left whole checkpoints alone"

    def spoil_run(
        self, workdir: pathlib.Path, rng: random.Random, name: str, way: damage.Way | None
    ) -> str:
        """Damage or remove a file of a run that was killed; put it back where it is refused."""
        shutil.copytree(self.killed, workdir)
        path = workdir / name
        before = damage.damage(path, way, rng)
        process = self.start(workdir)
        status, bits = process.finish()
        if status == 0:
            self.compare(workdir, bits)
            return "went on from what was whole"
        said = process.errors()
        expect(status == 1 and path.name in said and name == "config.json", f"{status}: {said}")
        path.write_bytes(before)
        self.resume(workdir)
        return "refused by name, went on when it was put back"

    def spoil_data(
        self, workdir: pathlib.Path, rng: random.Random, name: str, way: damage.Way | None
    ) -> str:
        """Damage or remove a file of the data of a run that was killed."""
        shutil.copytree(self.killed, workdir)
        data = shutil.copytree(self.data, workdir.parent / "data")
        before = damage.damage(data / name, way, rng)
        self.refuse(self.start(workdir, data=data), name)
        (data / name).write_bytes(before)
        self.resume(workdir, data)
        return "refused by name, went on when it was put back"

    def hide_data(self, workdir: pathlib.Path, rng: random.Random) -> str:
        """Make the data vanish from under a run, which is then killed."""
        data = shutil.copytree(self.data, workdir.parent / "data")
        away = workdir.parent / "away"
        process = self.start(workdir, data=data)
        process.wait_for("step", rng.randint(1, 20))
        data.rename(away)
        process.wait_for("step", 5)  # mapped files outlive their names
        process.kill()
        self.refuse(self.start(workdir, data=data), "FileNotFoundError", str(data))
        away.rename(data)
        self.resume(workdir, data)
        return "went on without it, refused to start, went on when it was back"

    def fill_disk(self, workdir: pathlib.Path, rng: random.Random) -> str:
        """Let a run fill the disk that it is on."""
        with small_disk(workdir.parent / "disk") as disk:
            workdir = disk / "run"
            workdir.mkdir()
            room = rng.randrange(4, 300) << 10
            with (disk / "filler").open("wb") as filler:
                filler.write(bytes(shutil.disk_usage(disk).free - room))
            self.refuse(self.start(workdir), "could not write", "No space left")
            (disk / "filler").unlink()
            self.resume(workdir)
        return "ended with an error, went on when there was space"

    def poison(self, workdir: pathlib.Path, rng: random.Random) -> str:
        """Make the inputs of one batch not numbers."""
        step = rng.randint(1, 40)
        process = self.start(workdir, NAN_AT_STEP=str(step))
        self.refuse(process, f"FloatingPointError: step {step}: the loss is nan")
        self.resume(workdir)
        return "ended at that step with an error, went on when inputs were numbers"
