"""Put what the benchmarks found into docs/performance.md: what was to be reached, and was it.

  python -m benchmarks.summary

Reads the records in benchmarks/results/ and fills the table of docs/performance.md. Where a number
is missed, `benchmarks.claims.LIMITS` says what stands in the way.
"""

import pathlib
from collections.abc import Sequence

from absl import app

from benchmarks import timing
from benchmarks.claims import CLAIMS, LIMITS
from experiments.results_page import fill
from pspike_jax.analysis.files import atomic_write

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "performance.md"
Records = dict[str, list[timing.Record]]  # benchmark -> records


def number(value: float, unit: str) -> str:
    """Write a number with three digits, or more where it is large."""
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}") + unit


def rows(records: Records) -> list[str]:
    """Return the lines of the table, for the claims that the records speak of."""
    lines = []
    for claim in CLAIMS:
        try:
            value = claim.value(records[claim.benchmark])
        except (KeyError, IndexError):
            continue
        target, verdict = "", "reported"
        if claim.bound is not None:
            target = f"{'at most' if claim.most else 'at least'} {claim.bound:g}{claim.unit}"
            verdict = "reached" if claim.reached(value) else "missed: " + LIMITS.get(
                claim.what, "no cause known"
            )
        found = number(value, claim.unit)
        lines.append(f"| {claim.what} | {claim.where} | {target} | {found} | {verdict} |")
    return lines


def content(folder: pathlib.Path) -> str:
    """Return the lines of docs/performance.md, from the records in a folder."""
    names = sorted({claim.benchmark for claim in CLAIMS} & {p.stem for p in folder.glob("*.jsonl")})
    if not names:
        return "No measurement is committed yet.\n"
    read = {name: timing.read(folder / f"{name}.jsonl") for name in names}
    machines = {f"{m['processor']}, {m['cores']} cores, jax {m['jax']}" for m, _ in read.values()}
    busiest = max(machine["load_average"] for machine, _ in read.values())
    table = "\n".join(rows({name: records for name, (_, records) in read.items()}))
    links = ", ".join(f"[{name}](../benchmarks/results/{name}.jsonl)" for name in names)
    return (
        f"Measured on {'; '.join(sorted(machines))}, in float32; load average at the start at "
        f"most {busiest:.2g}. Times are forward and backward unless said, ratios are medians over "
        "rounds in which contenders take turns, after their results were compared. N counts real "
        "states. *Plain* is what a good first version does, frozen in "
        "[`benchmarks/plain.py`](../benchmarks/plain.py).\n\n"
        "| what | at | to reach | measured | |\n| --- | --- | --- | --- | --- |\n"
        f"{table}\n\n"
        "![Time and memory of the engines against sequence length]"
        "(../benchmarks/results/ssm_engines.png)\n\n"
        f"Records: {links}. Each is made by `python -m benchmarks.NAME`, this table by "
        "`python -m benchmarks.summary`.\n"
    )


def main(argv: Sequence[str]) -> None:
    """Fill the page on performance."""
    if argv[1:]:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    text = content(timing.RESULTS)
    atomic_write(PAGE, fill(PAGE.read_text(), "performance", text))
    print(text)


if __name__ == "__main__":
    app.run(main)
