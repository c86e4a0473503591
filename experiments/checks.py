"""Records of checks that take too long for the test suite, and the page that lists them."""

import json
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from experiments.record import hardware
from experiments.results_page import RESULTS, read_records
from pspike_jax.analysis.files import atomic_write
from pspike_jax.training.workdir import source_commit

CHECKS = RESULTS / "checks"
ASIDE = ("cores", "seconds", "seed")  # not counts of a long check
HEAD = """\
# Long checks

What the test suite tries a few times, tried often; each record has the command, the commit, the
machine and all counts. Each writes this page, too.

| check | what was counted | machine | minutes | command |
| --- | --- | --- | --- | --- |
"""


def keep(path: str | None, program: Sequence[str], started: float, content: Mapping[str, Any]):
    """Print and keep the record of a check; SystemExit where it failed.

    `path` is that of the record, or None; `program` stands between "python" and the arguments of
    the command line; the work began at `started`, by `time.monotonic()`; `content` is what was
    found, with "failures", a list of texts, empty where all is well.
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
        if file.parent.resolve() == CHECKS:
            atomic_write(CHECKS / "README.md", page(read_records(CHECKS)))
    if content["failures"]:
        raise SystemExit(1)


def page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the records of the long checks, by name, as Markdown."""
    lines = []
    for name, record in records.items():
        counts = {key: value for key, value in record.items() if type(value) in (int, float)}
        counts = {"failures": len(record["failures"])} | counts
        found = (f"{key.replace('_', ' ')} {n:,}" for key, n in counts.items() if key not in ASIDE)
        cells = (
            f"[{name}]({name}.json)", ", ".join(found),
            f"{record['processor']}, {record['cores']} cores", f"{record['seconds'] / 60:.1f}",
            f"`{record['command']}`",
        )
        lines.append(f"| {' | '.join(cells)} |\n")
    return HEAD + "".join(lines)
