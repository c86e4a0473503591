"""Which modules of the package does a lane not reach? For Python 3.12 and newer.

  PYTHONPATH=tests python -m pytest -p reached -n 0 -m quick

lists the modules none of whose functions has run; "at least one test of every module" is judged by
that, not by the names of files.
"""

import pathlib
import sys

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "pspike_jax"
TOOL = sys.monitoring.PROFILER_ID
reached = set()


def note(code, offset):
    """Note the file of a function that starts, and hear no more of that function."""
    if code.co_name != "<module>":
        reached.add(code.co_filename)
    return sys.monitoring.DISABLE


sys.monitoring.use_tool_id(TOOL, "reached")
sys.monitoring.register_callback(TOOL, sys.monitoring.events.PY_START, note)
sys.monitoring.set_events(TOOL, sys.monitoring.events.PY_START)


def pytest_terminal_summary(terminalreporter):
    """Print the modules that were not reached."""
    missed = [
        str(path.relative_to(PACKAGE)) for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "__init__.py" and str(path) not in reached and "def " in path.read_text()
    ]
    terminalreporter.write_line(f"not reached: {', '.join(missed) or 'none'}")
