"""Run a notebook, and write what its cells print and draw into it.

  python -m experiments.notebook experiments/notebooks/tour.ipynb

The code cells run one after another in one namespace, as a fresh kernel runs them; no Jupyter is
needed. Of a cell's last expression a picture is kept where it offers one (`_repr_png_`), else its
repr. Magics and display() are not known. A cell that fails ends the command; nothing is written.
"""

import argparse
import ast
import base64
import contextlib
import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from pspike_jax.training.files import atomic_write


def run_notebook(notebook: dict[str, Any]) -> dict[str, Any]:
    """Run all cells of a notebook.

    Args:
      notebook: of nbformat 4; it is not changed.

    Returns:
      The notebook with the outputs of this run.

    Raises:
      ValueError: it is of another format.
      Exception: what a cell raises, with a note that says which.
    """
    if notebook["nbformat"] != 4:
        raise ValueError(f"the notebook is of nbformat {notebook['nbformat']}, expected 4")
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            outputs = run_cell("".join(cell["source"]), names, count)
            cell = cell | {"execution_count": count, "outputs": outputs}
        cells.append(cell)
    return notebook | {"cells": cells}


def run_cell(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Run one cell.

    Args:
      source: its code.
      names: that it reads and defines.
      number: of the cell, from 1.

    Returns:
      Its outputs, as nbformat 4 keeps them.
    """
    tree, last, printed = ast.parse(source), None, io.StringIO()
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
    where = f"cell {number}"
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, where, "exec"), names)
            value = eval(compile(last, where, "eval"), names) if last else None
    except Exception as error:
        error.add_note(f"in cell {number} of the notebook")
        raise
    outputs = []
    if text := printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines(text)})
    if value is not None:
        data = {"text/plain": lines(repr(value))}
        if hasattr(value, "_repr_png_"):
            data = {"image/png": base64.b64encode(value._repr_png_()).decode()} | data
        outputs.append({
            "data": data, "execution_count": number, "metadata": {},
            "output_type": "execute_result",
        })
    return outputs


def lines(text: str) -> list[str]:
    """Return a text as nbformat 4 keeps it: lines with their ends."""
    return text.splitlines(keepends=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the notebook that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.notebook", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notebook", type=pathlib.Path, help=".ipynb")
    path = parser.parse_args(arguments).notebook
    done = run_notebook(json.loads(path.read_text()))
    atomic_write(path, json.dumps(done, indent=1, ensure_ascii=False) + "\n")
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
