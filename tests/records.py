"""Records of the long checks: what was counted, by which command, of which commit, on what."""

import json
import pathlib
import shlex
import sys
import time
from typing import Any

import jax

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.record import hardware  # noqa: E402
from pspike_jax.training.workdir import source_commit  # noqa: E402


def write_record(path: str | None, started: float, content: dict[str, Any]) -> None:
    """Print a record, and keep it.

    Args:
      path: of the file, or None.
      started: `time.monotonic()` when the work began.
      content: what was found; its "failures" are those of the program, which then exits with 1.
    """
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "commit": source_commit(),
        **hardware(),
        "jax": jax.__version__,
        "seconds": round(time.monotonic() - started),
        **content,
    }
    text = json.dumps(record, indent=1) + "\n"
    print(text, end="")
    if path is not None:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_text(text)
    if content["failures"]:
        raise SystemExit(1)
