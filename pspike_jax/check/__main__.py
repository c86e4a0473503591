"""`python -m pspike_jax.check`: exit status 0 where every comparison holds, else 1."""

import argparse
import json
import sys
import time

import jax

import pspike_jax
from pspike_jax.check import table
from pspike_jax.check.comparisons import compare_all


def main(arguments: list[str] | None = None) -> int:
    """Compare, time, and say what was found.

    Args:
      arguments: of the command line; None takes the program's.

    Returns:
      The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m pspike_jax.check", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")
    parser.add_argument("--no-table", action="store_true", help="compare only; time nothing")
    options = parser.parse_args(arguments)
    start, found = time.perf_counter(), list(compare_all())
    failed = [comparison for comparison in found if not comparison.passed]
    report = {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "jax": jax.__version__,
        "pspike_jax": pspike_jax.__version__,
        "comparisons": [one._asdict() | {"passed": one.passed} for one in found],
        "passed": not failed,
    }
    if not failed and not options.no_table:  # times of wrong results are of no use
        report["rows"] = table.measure()
        report["table"] = str(table.write(report["rows"]))
    report["seconds"] = round(time.perf_counter() - start, 1)
    print(json.dumps(report) if options.json else _text(report))
    return 1 if failed else 0


def _text(report: dict) -> str:
    lines = [f"{report['device']} ({report['platform']}), jax {report['jax']}"]
    for one in report["comparisons"]:
        word = "ok  " if one["passed"] else "FAIL"
        lines.append(f"  {word} {one['name']}: {one['found']:.2g}, at most {one['allowed']:.2g}")
    for row in report.get("rows", ()):
        order = sorted(row["seconds"].items(), key=lambda item: item[1])
        times = ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in order)
        sizes = ", ".join(
            f"{name} {row[name]}" for name in ("batch", "length", "features", "state")
        )
        lines.append(f"  {sizes}: {times}")
    if "table" in report:
        lines.append(f"engine='auto' follows {report['table']} from now on")
    words = "all comparisons hold" if report["passed"] else "this device computes something else"
    return "\n".join([*lines, f"{words} ({report['seconds']} s)"])


if __name__ == "__main__":
    sys.exit(main())
