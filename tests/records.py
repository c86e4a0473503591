"""Records of the long checks, which run from the folder of the tests."""

import pathlib
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import checks  # noqa: E402


def write_record(path: str | None, started: float, content: dict[str, Any]) -> None:
    """Keep a record as `checks.keep` does."""
    checks.keep(path, [sys.argv[0]], started, content)
