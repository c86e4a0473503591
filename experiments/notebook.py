"""Run a notebook in a fresh kernel, and write what its cells print and draw into it.

  python -m experiments.notebook experiments/notebooks/tour.ipynb

A cell that fails ends the command; nothing is written. Needs nbclient and ipykernel, of [test].
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.results_page import ROOT
from pspike_jax.analysis.files import atomic_write

SECONDS = 600  # of a cell


def run_notebook(path: pathlib.Path) -> Any:
    """Run all cells of a notebook, from the root of the repository.

    Args:
      path: .ipynb; it is not changed.

    Returns:
      The notebook, a node of nbformat 4, with the outputs of this run: what a cell prints is one
      output, however the kernel cut it into messages; warnings and progress bars are left out.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell failed; the message says which.
    """
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources=place,
        record_timing=False, coalesce_streams=True,
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the notebook that the command line names."""
    import nbformat

    parser = argparse.ArgumentParser(
        prog="python -m experiments.notebook", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notebook", type=pathlib.Path, help=".ipynb")
    path = parser.parse_args(arguments).notebook
    atomic_write(path, nbformat.writes(run_notebook(path)) + "\n")
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
