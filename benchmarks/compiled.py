"""Programs compiled for accelerators that this machine does not have: what they move and compute.

  python -m benchmarks.compiled --target=v5e      # also v6e, h200
  python -m benchmarks.compiled --target=h200 --only="step .* official"
  python -m benchmarks.compiled_table      # what `auto` decides by, and docs/performance.md

Every engine, forward and backward, and a training step of each family, for one chip and, batch
divided, for a mesh of four. Nothing is run: a record says whether a program compiles, what memory
XLA gives it, and what it moves, computes and sends, counted from its text with loops as often as
they turn (`benchmarks.traffic`). XLA's own counts, which take the body of a loop once, stand beside
it. `least_s` is what memory, products or links alone take at the rates of the chip's data sheet; no
program is faster, and one of many small operations is much slower.

The records are in benchmarks/results/compiled_TARGET.jsonl, each with the commit that it was made
at; those that a command does not make again are kept.
"""

import json
import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
from absl import app, flags, logging

import pspike_jax
from benchmarks import chips, compiled_programs, timing, traffic
from pspike_jax.training.files import atomic_write
from pspike_jax.training.workdir import source_commit

NOTE = "compiled, not measured"

TARGET = flags.DEFINE_enum("target", None, list(chips.CHIPS), "The chip to compile for.")
ONLY = flags.DEFINE_string(
    "only", "", "Only programs whose name and sizes, 'linear_ssm fft B 8 L 64 H 4 N 2', have this."
)
DEVICES = flags.DEFINE_integer("devices", 0, "Only for this number of devices; 0 for all.")
MISSING = flags.DEFINE_bool("missing", False, "Only what the record lacks: goes on with a run.")

Record = dict[str, Any]


def compile_case(
    case: compiled_programs.Case, chip: chips.Chip, devices: int, commit: str | None = None
) -> Record:
    """Compile a program for a chip; say what it moves, or why it does not compile."""
    record = {"program": case.name, "devices": devices, **case.setting}
    record |= {"commit": commit, "note": NOTE}
    start = time.perf_counter()
    try:
        compiled = case.trace(chips.mesh_of(chip, devices)).lower().compile()
    except Exception as error:  # a record of what does not compile is what this is for
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return record | {"compiles": False, "error": reason}
    found = traffic.count(compiled.as_text())
    cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    kinds = {kind: int(number) for kind, number in sorted(found.flops.items())}
    return record | {
        "compiles": True,
        "compile_s": round(time.perf_counter() - start, 1),
        "temp_bytes": memory.temp_size_in_bytes,
        "flops": sum(kinds.values()),
        "flops_by_kind": kinds,
        "bytes": int(found.bytes),
        "collective_bytes": int(found.collective_bytes),
        "operations": found.operations,
        "unknown_loops": found.unknown_loops,
        "least_s": chip.least_seconds(found.bytes, found.flops, found.collective_bytes),
        # None where this compiler does not count.
        "xla_flops": _positive(cost.get("flops")),
        "xla_bytes": _positive(cost.get("bytes accessed")),
    }


def _positive(number):
    return int(number) if number and number > 0 else None


def identity(record: Record) -> tuple:
    """Return what a record is of: its program, sizes and devices."""
    names = ("program", "devices", "batch", "length", "features", "state", "fields")
    return tuple(json.dumps(record.get(name)) for name in names)


def compile_all(
    target: str, folder: pathlib.Path, only: str = "", devices: int = 0, missing: bool = False
) -> None:
    """Compile programs and put them into the record of a target, one after the other.

    Args:
      target: in `chips.CHIPS`.
      folder: of the record.
      only: a pattern that is found in a program's `label`.
      devices: number of devices, or 0 for all that a program is compiled for.
      missing: leave out what the record has.
    """
    chip, path = chips.CHIPS[target], folder / f"compiled_{target}.jsonl"
    lacking = chips.missing(chip)
    if lacking is not None:
        raise app.UsageError(lacking)
    records, commit = read(path)[1] if path.exists() else [], source_commit()
    for case in (*compiled_programs.engines(), *compiled_programs.steps()):
        for count in case.devices:
            if devices not in (0, count) or not re.search(only, label(case.name, case.setting)):
                continue
            wanted = identity({"program": case.name, "devices": count, **case.setting})
            if missing and wanted in map(identity, records):
                continue
            record = compile_case(case, chip, count, commit)
            records = [r for r in records if identity(r) != identity(record)] + [record]
            write(path, target, records)
            print(line(record), flush=True)


def label(program: str, setting: Record) -> str:
    """Return the name of a program with its sizes, such as "linear_ssm fft B 8 L 64 H 4 N 2"."""
    letters = {"batch": "B", "length": "L", "features": "H", "state": "N"}
    sizes = (f"{letter} {setting[key]}" for key, letter in letters.items() if key in setting)
    return " ".join((program, *sizes))


def line(record: Record) -> str:
    """Return what a record says as a line of text."""
    name = f"{label(record['program'], record):56s} x{record['devices']}"
    if not record["compiles"]:
        return f"{name} does not compile: {record['error']}"
    return (
        f"{name} temporary {record['temp_bytes'] / 2**20:.1f} MiB, "
        f"{record['flops'] / 1e9:.2f} GFLOP, "
        f"{record['bytes'] / 1e9:.3f} GB, sent {record['collective_bytes'] / 1e6:.2f} MB, "
        f"at least {1e3 * record['least_s']:.3g} ms, {record['operations']} operations "
        f"({record['compile_s']} s)"
    )


def write(path: pathlib.Path, target: str, records: Sequence[Record]) -> None:
    """Write a line about the target, then a line for each program."""
    chip = chips.CHIPS[target]
    header = {
        "target": target,
        "device": chip.name,
        "note": NOTE,
        "bandwidth": chip.bandwidth,
        "link": chip.link,
        "peak": dict(chip.peak),
        "versions": chips.versions() | {"pspike_jax": pspike_jax.__version__},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = sorted(records, key=identity)
    atomic_write(path, "".join(json.dumps(one) + "\n" for one in (header, *ordered)))


def read(path: pathlib.Path) -> tuple[Record, list[Record]]:
    """Return what `write` wrote: the target, and the programs."""
    header, *records = map(json.loads, path.read_text().splitlines())
    return header, records


def main(argv: Sequence[str]) -> None:
    """Compile."""
    if argv[1:] or TARGET.value is None:
        raise app.UsageError(f"give --target, one of {', '.join(chips.CHIPS)}, and nothing else")
    logging.set_verbosity(logging.WARNING)
    jax.config.update("jax_platforms", "cpu")  # no device is looked for
    folder = pathlib.Path(timing.OUTPUT.value) if timing.OUTPUT.value else timing.RESULTS
    compile_all(TARGET.value, folder, ONLY.value, DEVICES.value, MISSING.value)


if __name__ == "__main__":
    app.run(main)
