"""What follows from compiled programs: rows of the table of engines, and a part of the docs.

  python -m benchmarks.compiled_table

Reads benchmarks/results/compiled_TARGET.jsonl, see `benchmarks.compiled`. Rows of the platforms in
DECIDES take the place of those in pspike_jax/functional/engine_table.json, marked as compiled, not
measured. The seconds of an engine are the least that memory and products allow, and START_S for
each operation that is started; they are an estimate, good for an order.
"""

import collections
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import app

from benchmarks import timing
from benchmarks.compiled import NOTE, Record, read
from experiments.record import fill
from pspike_jax.functional import engine_choice
from pspike_jax.training.files import atomic_write

TABLE_PATH = pathlib.Path(engine_choice.__file__).parent / "engine_table.json"
PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "performance.md"
DECIDES = {"tpu": "v5e", "gpu": "h200"}
# An assumption: without it thousands of tiny operations, as a loop over steps has, would be free.
START_S = 1e-6
# Reversal, and so irfft, was a hundred times too slow on TPUs (openxla/xla, issue 23191), which no
# count of bytes shows.
LEFT_OUT = {"tpu": ("fft",), "gpu": ()}
SIZES = ("batch", "length", "features", "state")
SHOWN = {"batch": 8, "length": 2048}


def table_rows(platform: str, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the rows of a platform, from programs of `linear_ssm` for one device."""
    by_shape = collections.defaultdict(dict)
    for one in timing.select(records, recurrence="linear_ssm", devices=1, compiles=True):
        if one["engine"] not in LEFT_OUT[platform]:
            seconds = one["least_s"] + START_S * one["operations"]
            by_shape[tuple(one[name] for name in SIZES)][one["engine"]] = round(seconds, 9)
    flags = {"shared": False, "two_sided": False, "state_wanted": False}
    return [
        {
            "platform": platform,
            **dict(zip(SIZES, shape, strict=True)),
            **flags,
            "engine": engine_choice.fastest(seconds).value,
            "estimated_seconds": seconds,
            "measured": False,
            "note": f"{NOTE}, for {DECIDES[platform]}",
        }
        for shape, seconds in sorted(by_shape.items())
    ]


def all_rows(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Return the rows of all platforms in DECIDES."""
    return [
        row
        for platform, target in DECIDES.items()
        for row in table_rows(platform, read(folder / f"compiled_{target}.jsonl")[1])
    ]


def write_table(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    """Put rows into a table of engines, in the place of those of their platforms."""
    platforms = {row["platform"] for row in rows}
    kept = [row for row in json.loads(path.read_text()) if row["platform"] not in platforms]
    lines = ",\n".join(f" {json.dumps(row)}" for row in (*kept, *rows))
    atomic_write(path, f"[\n{lines}\n]\n")


def content(folder: pathlib.Path) -> str:
    """Return the lines of docs/performance.md: engines and steps at one shape, by target."""
    lines = []
    for path in sorted(folder.glob("compiled_*.jsonl")):
        header, records = read(path)
        for one in records:
            if any(one.get(name) != value for name, value in SHOWN.items()):
                continue
            pairs = f", {one['state']} pairs" if "state" in one else ""
            cells = [f"{one['devices']} x {header['device']}", one["program"] + pairs]
            if not one["compiles"]:
                lines.append(f"| {' | '.join(cells)} | does not compile | | | |")
                continue
            cells += [
                f"{one['temp_bytes'] / 2**20:,.0f} MiB",
                f"{one['bytes'] / 1e9:.3g} GB",
                f"{one['flops'] / 1e9:.3g} GFLOP",
                f"{one['least_s'] * 1e3:.3g} ms",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    head = "| device | program | temporary | moved | computed | at least |"
    return "\n".join((head, "| --- | --- | --- | --- | --- | --- |", *lines)) + "\n"


def main(argv: Sequence[str]) -> None:
    """Write the table and the page."""
    if argv[1:]:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    write_table(all_rows(timing.RESULTS), TABLE_PATH)
    atomic_write(PAGE, fill(PAGE.read_text(), "compiled", content(timing.RESULTS)))


if __name__ == "__main__":
    app.run(main)
