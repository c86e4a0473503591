"""Compile, compare and time programs that compute the same; keep what was found.

A benchmark module has a function that measures, one that draws, and two lines at its end:

  def measure(quick):
      records = []
      for length in (64,) if quick else (1024, 16384):
          arguments = make_arguments(length)
          programs = [
              timing.compile_program(name, function, *arguments)
              for name, function in {"plain": plain_step, "model": step}.items()
          ]
          # Float32 sums over `length` terms in another order.
          differences = timing.check_agreement(programs, 1e-4)
          records += timing.measure(programs, differences=differences, setting={"L": length})
      return records

  if __name__ == "__main__":
      timing.main("NAME", measure, draw)

`python -m benchmarks.NAME --output=DIR` then prints a table and writes DIR/NAME.jsonl and
DIR/NAME.png, by default to benchmarks/results; `--quick` runs tiny shapes in seconds and prints the
table alone. The first line of the file describes the machine; each other line is a record of one
contender in one setting. Programs take turns in every round, forth and back, so that what else a
machine does, and what a program leaves behind, strikes all alike; `ratio` compares within rounds.
"""

import collections
import dataclasses
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

import pspike_jax
from experiments.record import hardware
from pspike_jax.analysis.canvas import number, save_figure
from pspike_jax.analysis.files import atomic_write
from pspike_jax.training.workdir import source_commit

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
OUTPUT = flags.DEFINE_string("output", None, "Folder of the record; benchmarks/results if not set.")
QUICK = flags.DEFINE_bool("quick", False, "Tiny shapes, to see that everything works.")

# What `measure` adds to a setting.
MEASURED = (
    "contender", "compile_s", "temp_bytes", "rounds_s", "q1_s", "median_s", "q3_s", "speedup",
    "difference",
)

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program and the arguments that it is timed with.

    Attributes:
      name: of the contender.
      compile_s: seconds that tracing and compiling took.
      temp_bytes: XLA's `temp_size_in_bytes`, memory besides arguments and results.
      executable: the compiled program.
      arguments: what it is called with.
    """

    name: str
    compile_s: float
    temp_bytes: int
    executable: Callable[..., Any]
    arguments: tuple[Any, ...]

    def run(self) -> Any:
        """Run once and wait for the result."""
        return jax.block_until_ready(self.executable(*self.arguments))

    def seconds(self, repeats: int) -> float:
        """Return the mean time of some runs, one after another."""
        start = time.perf_counter()
        for _ in range(repeats):
            self.run()
        return (time.perf_counter() - start) / repeats


def compile_program(name: str, function: Callable[..., Any], *arguments: Any) -> Program:
    """Compile a function of arrays for the given arguments, and time that."""
    start = time.perf_counter()
    executable = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - start
    memory = executable.memory_analysis().temp_size_in_bytes
    return Program(name, seconds, memory, executable, arguments)


def check_agreement(
    programs: Sequence[Program], tolerance: float | Mapping[str, float]
) -> dict[str, float]:
    """Run the programs and compare their results with those of the first.

    Args:
      programs: give results of one structure.
      tolerance: largest difference of an array, relative to the largest magnitude in the first
        program's; or one for each name but the first.

    Returns:
      The largest such difference of each program, by name.

    Raises:
      ValueError: programs differ by more, naming all that do.
    """
    reference = programs[0].run()
    differences, beyond = {}, []
    for program in programs[1:]:
        pairs = jax.tree.map(_relative_difference, program.run(), reference)
        differences[program.name] = worst = max(jax.tree.leaves(pairs))
        allowed = tolerance[program.name] if isinstance(tolerance, Mapping) else tolerance
        if not worst <= allowed:  # NaN, too
            beyond.append(f"{program.name} by {worst:.2g}, expected at most {allowed:.2g}")
    if beyond:
        raise ValueError(f"results differ from those of {programs[0].name}: " + "; ".join(beyond))
    return differences


def _relative_difference(got, expected):
    got, expected = (np.asarray(a).astype(np.complex128) for a in (got, expected))
    peak = np.max(np.abs(expected), initial=0.0)
    return float(np.max(np.abs(got - expected), initial=0.0) / (peak or 1.0))


def measure(
    programs: Sequence[Program],
    *,
    setting: Mapping[str, Any],
    differences: Mapping[str, float] | None = None,
    rounds: int = 15,
    budget_s: float = 10.0,
    min_rounds: int = 3,
    sample_s: float = 2e-3,
    warm_s: float = 0.1,
) -> list[Record]:
    """Time programs by turns.

    Args:
      programs: have run before, or their first run is left out of the times here.
      setting: what the records say of the shapes.
      differences: from `check_agreement`.
      rounds: most rounds, in each of which every program runs.
      budget_s: no further round starts after these seconds, but `min_rounds` are made.
      min_rounds: fewest rounds.
      sample_s: seconds of a sample; that of a faster program is the mean of several runs.
      warm_s: seconds that a program runs before it is timed, unless it takes more than one.

    Returns:
      A record for each program: the setting, "contender", "compile_s", "temp_bytes", "rounds_s"
      (seconds in each round), its quartiles "q1_s", "median_s", "q3_s", "speedup" (`ratio` to the
      first program) and, where given, "difference".
    """
    once = {p.name: p.seconds(1) for p in programs}
    repeats = {name: max(1, int(sample_s / seconds)) for name, seconds in once.items()}
    times = collections.defaultdict(list)
    start = time.perf_counter()
    for count in range(rounds):
        if count >= min_rounds and time.perf_counter() - start > budget_s:
            break
        for program in programs[:: -1 if count % 2 else 1]:
            # What ran before decides which pages the process holds, up to half of the time of a
            # short program that follows one of gigabytes: runs of its own come between, and
            # another neighbour in the next round.
            if once[program.name] < 1:
                program.seconds(1 + int(warm_s / once[program.name]))
            times[program.name].append(program.seconds(repeats[program.name]))
    records = []
    for p in programs:
        record = {"contender": p.name, "compile_s": p.compile_s, "temp_bytes": p.temp_bytes}
        record |= quartiles(times[p.name])
        record["speedup"] = ratio({"rounds_s": times[programs[0].name]}, record)
        if differences and p.name in differences:
            record["difference"] = differences[p.name]
        records.append(dict(setting) | record)
    return records


def quartiles(seconds: Sequence[float]) -> Record:
    """Return times and their quartiles as a part of a record."""
    seconds = np.round(seconds, 9)
    q1, median, q3 = np.round(np.percentile(seconds, (25, 50, 75)), 9).tolist()
    return {"q1_s": q1, "median_s": median, "q3_s": q3, "rounds_s": seconds.tolist()}


def select(records: Sequence[Record], **values: Any) -> list[Record]:
    """Return the records that have these values."""
    return [r for r in records if all(r.get(name) == value for name, value in values.items())]


def ratio(slow: Record, fast: Record) -> float:
    """Return how many times faster the second was: the median over rounds of both."""
    pairs = zip(slow["rounds_s"], fast["rounds_s"], strict=True)
    return statistics.median(a / b for a, b in pairs)


def bars(ax: Any, records: Sequence[Record], colours: Sequence[str]) -> None:
    """Draw the times of contenders in ms as horizontal bars with quartiles, the first on top."""
    ms = np.array([[r[f"{name}_s"] * 1e3 for name in ("q1", "median", "q3")] for r in records])
    spread = np.abs(ms[:, ::2] - ms[:, 1:2]).T
    names = [r["contender"] for r in records]
    ax.barh(names, ms[:, 1], color=colours, xerr=spread, error_kw={"linewidth": 1})
    ax.bar_label(ax.containers[-1], fmt=number, padding=3)
    ax.margins(x=0.22)
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)


def machine() -> Record:
    """Describe what programs are about to be measured on, and how busy it is."""
    device = jax.devices()[0]
    return {
        **hardware(),
        "device": f"{device.platform} {device.device_kind}",
        "jax": jax.__version__,
        "pspike_jax": pspike_jax.__version__,
        "commit": source_commit(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def table(records: Sequence[Record]) -> str:
    """Return records as lines of text: settings, contender, times with quartiles, memory."""
    known = {field: None for record in records for field in record}
    settings = [field for field in known if field not in MEASURED]
    head = [*settings, "contender", "compile s", "run ms", "q1 .. q3", "MiB", "faster", "differs"]
    rows = [head] + [
        [str(r.get(field, "")) for field in settings]
        + [
            r["contender"],
            f"{r['compile_s']:.2f}",
            f"{1e3 * r['median_s']:.4g}",
            f"{1e3 * r['q1_s']:.4g} .. {1e3 * r['q3_s']:.4g}",
            f"{r['temp_bytes'] / 2**20:.4g}",
            f"{r['speedup']:.2f}x",
            f"{r['difference']:.1g}" if "difference" in r else "",
        ]
        for r in records
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths)) + "\n" for row in rows
    )


def write(folder: pathlib.Path, name: str, header: Record, records: Sequence[Record]) -> None:
    """Write NAME.jsonl: a line that describes the machine, then a line for each record."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(line) + "\n" for line in ({"machine": header}, *records)]
    atomic_write(folder / f"{name}.jsonl", "".join(lines))


def read(path: pathlib.Path) -> tuple[Record, list[Record]]:
    """Return what `write` wrote: the machine, and the records."""
    header, *records = map(json.loads, path.read_text().splitlines())
    return header["machine"], records


def report(
    name: str,
    measure_all: Callable[[bool], list[Record]],
    draw: Callable[[list[Record]], Any] | None,
    *,
    quick: bool,
    folder: pathlib.Path | None,
    tabulate: Callable[[Sequence[Record]], str] = table,
) -> None:
    """Run a benchmark and print its table; write its record and picture where a folder is given.

    Args:
      name: of the files.
      measure_all: from "tiny shapes?" to records.
      draw: from records to a Matplotlib figure; None for no picture.
      quick: tiny shapes.
      folder: made where there is none; None writes nothing.
      tabulate: from records to lines of text.
    """
    header = machine()
    before = jax.config.read("jax_disable_most_optimizations")
    # Half of the compile time of tiny programs is that of LLVM's optimiser.
    jax.config.update("jax_disable_most_optimizations", quick or before)
    try:
        records = measure_all(quick)
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
    print(f"{header}\n{tabulate(records)}", end="", flush=True)
    if folder is None:
        return
    write(folder, name, header, records)
    if draw is not None:
        save_figure(draw(records), folder / f"{name}.png")


def run(
    name: str,
    measure_all: Callable[[bool], list[Record]],
    draw: Callable[[list[Record]], Any] | None,
    argv: Sequence[str],
    tabulate: Callable[[Sequence[Record]], str] = table,
) -> None:
    """Run `report` as the command line says."""
    if argv[1:]:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    # Records of tiny shapes must not take the place of the committed ones by chance.
    default = None if QUICK.value else RESULTS
    folder = pathlib.Path(OUTPUT.value) if OUTPUT.value else default
    report(name, measure_all, draw, quick=QUICK.value, folder=folder, tabulate=tabulate)


def main(
    name: str,
    measure_all: Callable[[bool], list[Record]],
    draw: Callable[[list[Record]], Any] | None = None,
    tabulate: Callable[[Sequence[Record]], str] = table,
) -> None:
    """Parse the command line and run a benchmark."""
    app.run(lambda argv: run(name, measure_all, draw, argv, tabulate))
