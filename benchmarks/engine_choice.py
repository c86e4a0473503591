"""`engine="auto"` against every engine that comes near it, often enough to tell equals apart.

  python -m benchmarks.engine_choice

The shapes are those of ssm_engines.py. All engines run a few times; those that need more than NEAR
times the time of the fastest are left out, the others take turns ROUNDS times. Scans of large
problems are not tried: they keep gigabytes, and `sequential` is tens of times slower there in the
record of ssm_engines.
"""

from collections.abc import Iterator

from benchmarks import timing
from benchmarks.ssm_engines import (
    ENGINES,
    LAYERS,
    LENGTHS,
    MOST_SCANNED,
    Shape,
    by_engine,
    compare,
)

NEAR = 2.0
ROUNDS = 41
FEW = {"rounds": 3, "warm_s": 0.0}
MANY = {"rounds": ROUNDS, "budget_s": 60.0, "sample_s": 0.05}


def grid(quick: bool) -> Iterator[tuple[Shape, str]]:
    """Yield the shapes and passes of ssm_engines."""
    if quick:
        yield Shape(1, 9, 4, 2), "forward"
        return
    for length in LENGTHS:
        yield Shape(1, length, 64, 32), "forward+backward"
    yield LAYERS[0], "forward"
    for shape in LAYERS:
        yield shape, "forward+backward"


def measure(quick: bool) -> list[timing.Record]:
    """Time `auto` and the engines near it."""
    records = []
    for shape, passes in grid(quick):
        scans = () if shape.work <= MOST_SCANNED else ("associative", "sequential")
        models = {name: by_engine(name) for name in ("auto", *ENGINES) if name not in scans}
        medians = {r["contender"]: r["median_s"] for r in compare(shape, passes, models, **FEW)}
        enough = NEAR * min(medians.values())
        near = {n: model for n, model in models.items() if n == "auto" or medians[n] <= enough}
        records += compare(shape, passes, near, **FEW if quick else MANY)
    return records


if __name__ == "__main__":
    timing.main("engine_choice", measure)
