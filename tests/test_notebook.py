"""Notebooks run from first cell to last, and their committed outputs are of these cells."""

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

PATHS = {path.stem: path for path in sorted((ROOT / "experiments/notebooks").glob("*.ipynb"))}
BOOKS = {name: json.loads(path.read_text()) for name, path in PATHS.items()}
# {notebook: (fewest outputs, fewest pictures)}.
SHOWN = {"tour": (8, 4), "own_data": (8, 2), "zoo_compared": (4, 1), "streaming_and_export": (8, 0)}


def words(cells):
    """Return what code cells print and which kinds of pictures they show, without the numbers."""
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    texts = ["".join(output.get("text", sorted(output.get("data", ())))) for output in outputs]
    return [re.sub(r"[-\s\d.,%einf]+", " ", text) for text in texts]


def test_there_is_a_notebook_for_each_kind_of_reader():
    assert PATHS.keys() == SHOWN.keys()


@pytest.mark.parametrize("name", PATHS)
def test_notebook_runs_and_says_what_is_committed(name):
    cells = notebook.run_notebook(PATHS[name])["cells"]
    assert words(cells) == words(BOOKS[name]["cells"]) and len(words(cells)) >= SHOWN[name][0]
    if name == "tour":
        accuracies = [
            re.findall(r"([\d.]+)% of 80", "".join(cell["outputs"][0].get("text", "")))
            for cell in cells if cell.get("outputs")
        ]
        (learnt,) = (found for found in accuracies if found)
        # Waves of three frequencies: chance is 33 %, and 60 % is six standard errors above.
        assert len(learnt) == 3 and min(map(float, learnt)) > 60


@pytest.mark.parametrize("name", PATHS)
def test_committed_notebook_was_run_in_order(name):
    book = BOOKS[name]
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    pictures = [
        base64.b64decode(output["data"]["image/png"])
        for cell in code for output in cell["outputs"] if "image/png" in output.get("data", ())
    ]
    assert len(pictures) >= SHOWN[name][1]
    assert all(png.startswith(b"\x89PNG") for png in pictures)
    assert sum(map(len, pictures)) < 150_000
    assert "/tmp" not in json.dumps(book)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])


@pytest.mark.parametrize("name", PATHS)
def test_notebook_begins_with_a_badge_and_a_cell_that_installs(name):
    first, second, *_ = BOOKS[name]["cells"]
    assert "colab.research.google.com" in "".join(first["source"])
    assert f"experiments/notebooks/{name}.ipynb" in "".join(first["source"])
    install = "".join(second["source"])
    assert 'find_spec("pspike_jax")' in install and "%pip install" in install
    assert second["outputs"] == []


def test_run_notebook_says_which_cell_failed(tmp_path):
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(source) for source in ("a = 1", "a / 0")]
    nbformat.write(book, tmp_path / "broken.ipynb")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        notebook.run_notebook(tmp_path / "broken.ipynb")
