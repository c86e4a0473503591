"""Run, record and draw what pages of docs/models/ say of their families.

  python -m experiments.families npsem dlds fsnn pendulum
  python -m experiments.families seqboat langevinflow --workdir=runs/families
  python -m experiments.families mamba_fscil --source_dir=FOLDER_OF_DIGITS_NPZ
  python -m experiments.families --page

Each record, experiments/results/families/NAME.json, is written after every row: what is in it is
not run again, and a killed command goes on. Then the page's part "Measured here" and its picture,
docs/pictures/NAME.png, are made from the record, with --page alone of all that are there. With
--smoke everything is small, and --records says where that goes.
"""

import argparse
import importlib
import importlib.metadata
import json
import logging
import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any

from experiments.record import hardware, shrink
from experiments.results_page import RESULTS, ROOT, fill, read_records
from experiments.sweep import complete
from pspike_jax.analysis import plots
from pspike_jax.analysis.files import atomic_write
from pspike_jax.training.workdir import source_commit

FAMILIES = ("dlds", "fsnn", "langevinflow", "mamba_fscil", "npsem", "pendulum", "seqboat", "stc")
RECORDS = RESULTS / "families"
NEEDED = {  # of the command line
    "langevinflow": " --workdir=runs/families", "seqboat": " --workdir=runs/families",
    "mamba_fscil": " --source_dir=FILES",
}


def module(name: str) -> Any:
    """Return the module of a family."""
    return importlib.import_module(f"experiments.families.{name}")


def command(name: str) -> str:
    """Return what makes a record."""
    return f"python -m experiments.families {name}{NEEDED.get(name, '')}"


def measured(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Add the rows that a family's record lacks, and write it after each; return it."""
    path = asked.records / f"{name}.json"
    record: dict[str, Any] = {
        "command": command(name), "hardware": hardware(),
        "versions": {one: importlib.metadata.version(one) for one in ("jax", "flax", "numpy")},
        "rows": {},
    }
    if path.exists():
        record = json.loads(path.read_text())
    commit = source_commit()  # what is changed while it runs is not what runs

    def stamped(run):
        def row():
            started = time.monotonic()
            found = run()
            return found | {"commit": commit, "seconds": round(time.monotonic() - started, 1)}

        return row

    runs = {key: stamped(run) for key, run in module(name).runs(asked).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    complete(record["rows"], runs, lambda: atomic_write(path, written(record)))
    return json.loads(written(record))


def written(record: dict[str, Any]) -> str:
    """Write a record as JSON, numbers of a list on one line."""
    text = json.dumps(record, indent=1, default=float)
    return re.sub(r"\[[^\[\]{}\"]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def section(name: str, record: dict[str, Any] | None) -> str:
    """Return the part "Measured here" of a family's page; of one without a record, that."""
    if record is None:
        return f"No run is recorded yet.\n\n    {command(name)}\n"
    rows = record["rows"]
    commits = ", ".join(sorted({row["commit"] or "no clone" for row in rows.values()}))
    machine, minutes = record["hardware"], sum(row["seconds"] for row in rows.values()) / 60
    versions = ", ".join(f"{one} {number}" for one, number in record["versions"].items())
    return (
        f"![{module(name).CAPTION}](../pictures/{name}.png)\n\n{module(name).page(rows)}\n\n"
        f"    {record['command']}\n\n"
        f"[Record](../../experiments/results/families/{name}.json): {minutes:.1f} minutes on "
        f"{machine['processor']}, {machine['cores']} cores; {versions}; commit {commits}.\n"
    )


def show(name: str, record: dict[str, Any] | None, docs: pathlib.Path = ROOT / "docs") -> None:
    """Put a record on its family's page, and draw its picture."""
    page = docs / "models" / f"{name}.md"
    atomic_write(page, fill(page.read_text(), "measured", section(name, record)))
    if record is None:
        return
    picture = docs / "pictures" / f"{name}.png"
    plots.save_figure(module(name).draw(record["rows"]), picture)
    shrink(picture, picture)


def main(arguments: Sequence[str] | None = None) -> None:
    """Complete the records that the command line names, and show them."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.families", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/families"))
    parser.add_argument("--source_dir", help="mamba_fscil: folder of the spoken digits' file")
    parser.add_argument("--records", type=pathlib.Path, default=RECORDS)
    parser.add_argument("--smoke", action="store_true", help="everything small")
    parser.add_argument("--page", action="store_true", help="pages and pictures of all records")
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.names if name not in FAMILIES]:
        parser.error(f"no family is called {', '.join(unknown)}; expected some of {FAMILIES}")
    if not asked.page and not asked.names:
        parser.error("expected names, or --page")
    if asked.smoke and asked.records == RECORDS:
        parser.error("--smoke needs another --records: the committed ones are not of small runs")
    logging.getLogger("absl").setLevel(logging.WARNING)  # below that, Orbax tells of every file
    found: dict[str, Any] = {}
    if asked.page:
        found = dict.fromkeys(FAMILIES) | read_records(asked.records)
    found |= {name: measured(name, asked) for name in asked.names}
    for name, record in found.items():
        if asked.records == RECORDS:
            show(name, record)
        else:
            print(section(name, record))


if __name__ == "__main__":
    main()
