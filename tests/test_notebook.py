"""The tour runs from its first cell to its last, and the committed outputs are of this tour."""

import base64
import json
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import notebook  # noqa: E402

TOUR = json.loads((ROOT / "experiments/notebooks/tour.ipynb").read_text())


def words(cells):
    """Return what code cells print and which kinds of pictures they show, without the numbers."""
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    texts = ["".join(output.get("text", sorted(output.get("data", ())))) for output in outputs]
    return [re.sub(r"[-\s\d.,%einf]+", " ", text) for text in texts]


def test_tour_runs_and_says_what_is_committed():
    cells = notebook.run_notebook(TOUR)["cells"]
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


def cell(source):
    return {"cell_type": "code", "source": source.splitlines(keepends=True), "outputs": []}


def test_run_notebook_keeps_prints_values_and_pictures():
    picture = "class P:\n    _repr_png_ = lambda _: b'png'\n    __repr__ = lambda _: 'P'\nP()"
    cells = [cell("x = 3\nprint(x)\nprint('b')\nx + 1"), cell("x * 2\nNone"), cell(picture)]
    text = {"cell_type": "markdown", "source": ["# x"]}
    done = notebook.run_notebook({"nbformat": 4, "cells": [cells[0], text, *cells[1:]]})["cells"]
    result = {"metadata": {}, "output_type": "execute_result"}
    assert done[0]["outputs"] == [
        {"name": "stdout", "output_type": "stream", "text": ["3\n", "b\n"]},
        {"data": {"text/plain": ["4"]}, "execution_count": 1} | result,
    ]
    assert done[1] == text and done[2]["outputs"] == []
    data = {"image/png": base64.b64encode(b"png").decode(), "text/plain": ["P"]}
    assert done[3]["outputs"] == [{"data": data, "execution_count": 3} | result]
    assert cells[0]["outputs"] == []


def test_run_notebook_says_which_cell_failed():
    with pytest.raises(ZeroDivisionError) as caught:
        notebook.run_notebook({"nbformat": 4, "cells": [cell("a = 1"), cell("a / 0")]})
    assert caught.value.__notes__ == ["in cell 2 of the notebook"]
    with pytest.raises(ValueError, match="nbformat 3, expected 4"):
        notebook.run_notebook({"nbformat": 3, "cells": []})
