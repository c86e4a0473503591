"""The tour runs from its first cell to its last, and the committed outputs are of this tour."""

import base64
import json
import pathlib
import re
import sys

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import notebook  # noqa: E402

PATH = ROOT / "experiments/notebooks/tour.ipynb"
TOUR = json.loads(PATH.read_text())


def words(cells):
    """Return what code cells print and which kinds of pictures they show, without the numbers."""
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    texts = ["".join(output.get("text", sorted(output.get("data", ())))) for output in outputs]
    return [re.sub(r"[-\s\d.,%einf]+", " ", text) for text in texts]


def test_tour_runs_and_says_what_is_committed():
    cells = notebook.run_notebook(PATH)["cells"]
    assert words(cells) == words(TOUR["cells"]) and len(words(cells)) >= 8
    accuracies = [
        re.findall(r"([\d.]+)% of 80", "".join(cell["outputs"][0].get("text", "")))
        for cell in cells if cell.get("outputs")
    ]
    (learnt,) = (found for found in accuracies if found)
    # Waves of three frequencies: chance is 33 %, and 60 % is six standard errors above.
    assert len(learnt) == 3 and min(map(float, learnt)) > 60


def test_committed_tour_was_run_in_order():
    code = [cell for cell in TOUR["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    pictures = [
        base64.b64decode(output["data"]["image/png"])
        for cell in code for output in cell["outputs"] if "image/png" in output.get("data", ())
    ]
    assert len(pictures) >= 4 and all(png.startswith(b"\x89PNG") for png in pictures)
    assert sum(map(len, pictures)) < 150_000
    assert "/tmp" not in json.dumps(TOUR) and len({cell["id"] for cell in TOUR["cells"]}) == len(
        TOUR["cells"]
    )


def test_run_notebook_says_which_cell_failed(tmp_path):
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(source) for source in ("a = 1", "a / 0")]
    nbformat.write(book, tmp_path / "broken.ipynb")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        notebook.run_notebook(tmp_path / "broken.ipynb")
