"""Records of checks that take too long for the test suite, and the page that lists them.

  python -m experiments.checks

writes experiments/results/checks/README.md from the records beside it. A check adds its own record
with `keep`.
"""

import json
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from experiments.record import RESULTS, hardware
from pspike_jax.training.files import atomic_write
from pspike_jax.training.workdir import source_commit

CHECKS = RESULTS / "checks"
HEAD = """\
# Long checks

What the test suite tries a few times, tried often; each record has the command, the commit, the
machine and all counts. This page is made by `python -m experiments.checks`.

| check | what came of it | machine | minutes | command |
| --- | --- | --- | --- | --- |
"""


def keep(path: str | None, program: Sequence[str], started: float, content: Mapping[str, Any]):
    """Print a record, keep it, and end the process with status 1 where the check failed.

    Args:
      path: of the record, or None.
      program: what stands between "python" and the arguments of the command line.
      started: `time.monotonic()` when the work began.
      content: what was found; its "failures" are a list of texts, empty where all is well.

    Raises:
      SystemExit: there are failures.
    """
    record = {
        "command": shlex.join(["python", *program, *sys.argv[1:]]),
        "commit": source_commit(),
        **hardware(),
        "jax": jax.__version__,
        "seconds": round(time.monotonic() - started),
        **content,
    }
    text = json.dumps(record, indent=1) + "\n"
    print(text, end="")
    if path is not None:
        file = pathlib.Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, text)
    if content["failures"]:
        raise SystemExit(1)


def read() -> dict[str, dict[str, Any]]:
    """Return the records by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(CHECKS.glob("*.json"))}


def _faults(record):
    kinds = [kind for kind in record["outcomes"] if not kind.startswith("killed")]
    return (
        f"{record['killed_and_resumed']} runs killed and resumed, "
        f"{record['trials'] - record['killed_and_resumed']} spoiled ({', '.join(kinds)}): "
        f"{len(record['failures'])} ended with other bits than a run that nothing happened to"
    )


def _fuzz(record):
    counts = {
        outcome: sum(counted.get(outcome, 0) for counted in record["outcomes"].values())
        for outcome in ("refused", "read")
    }
    return (
        f"{record['files']:,} damaged files of {len(record['outcomes'])} kinds: "
        f"{counts['refused']:,} refused with an error that names the file, {counts['read']:,} read "
        f"(the damage left them valid), {len(record['failures'])} otherwise"
    )


def _long_run(record):
    return (
        f"{record['steps']:,} training steps: memory of the process grew by "
        f"{record['bytes_per_step']:g} bytes a step"
    )


def _long_sequence(record):
    share = record["bytes_of_each_device"] * record["devices"] / record["bytes_of_one_device"]
    return (
        f"{len(record['training'])} training steps on a sequence of {record['length']:,} over "
        f"{record['devices']} devices: memory of each {record['bytes_of_each_device']:,} bytes, "
        f"{share:.3f} of an even share of the {record['bytes_of_one_device']:,} of one alone"
    )


SENTENCES = {
    "faults": _faults, "fuzz": _fuzz, "long_run": _long_run, "long_sequence": _long_sequence,
}


def page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Write all records as Markdown."""
    lines = []
    for name, record in records.items():
        machine = f"{record['processor']}, {record['cores']} cores"
        cells = (
            f"[{name}]({name}.json)", SENTENCES[name](record), machine,
            f"{record['seconds'] / 60:.1f}", f"`{record['command']}`",
        )
        lines.append(f"| {' | '.join(cells)} |\n")
    return HEAD + "".join(lines)


if __name__ == "__main__":
    atomic_write(CHECKS / "README.md", page(read()))
