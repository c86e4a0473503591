"""The pages of docs/: their Python runs, and what they say of the zoo is what the code says."""

import json
import pathlib
import re
import sys

import pytest

import pspike_jax
from pspike_jax.models.pspikessm import PRESETS

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import block_picture  # noqa: E402
import pages  # noqa: E402
from decisions import with_figures  # noqa: E402

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
# Quotes files of the package, which tests of their own run; a model of full size takes minutes.
EXCERPTS = {"add_a_family.md", "stc.md"}
WITH_PYTHON = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.glob("docs/**/*.md")
    if path.name not in EXCERPTS and BLOCK.search(path.read_text())
)


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_of_a_page_runs_from_top_to_bottom(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if page == "docs/export.md":
        for module in ("flatbuffers", "nir", "safetensors"):
            pytest.importorskip(module)
    code = "\n".join(BLOCK.findall((ROOT / page).read_text()))
    exec(compile(code, page, "exec"), {})


def test_every_model_is_on_a_page_with_its_fields():
    for page, names in pages.families().items():
        text = "".join(pages.field_tables(names))
        for name in names:
            found = pspike_jax.describe_model(name)
            assert f"## Fields of `{name}`" in text
            assert all(f"- preset `{preset}`" in text for preset in found.presets)
        assert all(f"| `{field.name}` |" in text for field in found.fields)


def test_table_of_the_two_presets_has_every_field_in_which_they_differ():
    text = (ROOT / "docs" / "models" / "pspikessm.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| `(.+?)` \|", text, re.M)
    official = pspike_jax.describe_model("pspikessm").presets["official"]
    assert rows == [
        (field, repr(getattr(PRESETS["paper"], field)), repr(value))
        for field, value in official.items()
    ]


def test_picture_of_a_block_shows_what_the_block_calls():
    from block_diagram import calls_of, diagram

    assert calls_of("lif") == [("input", "InputCurrent"), ("neurons", "NeuronSite")]
    picture = diagram("lif")
    assert "\n" not in picture and picture.count("<rect") == 2 and ">neurons</text>" in picture


def test_tables_in_docstrings_stay_tables_on_the_site():
    pytest.importorskip("griffe")
    from literal_blocks import literal

    text = "One line.\n\nMore:\n\n  a   1\n  b   2\n\nText.\n\nArgs:\n  x: one,\n    two."
    assert literal(text) == text.replace("  a   1\n  b", "      a   1\n      b")


def test_committed_picture_is_what_its_script_draws():
    assert (ROOT / "docs" / "pictures" / "block.svg").read_text() == block_picture.picture()


def test_the_table_of_jobs_has_the_means_of_the_record():
    record = json.loads((ROOT / "experiments/results/comparison.json").read_text())
    lines = with_figures((ROOT / "docs/models/index.md").read_text()).split("\n")
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    seen = 0
    for line in table[2:]:
        name = re.search(r"`(\w+)`", line)[1]
        seeds = record["models"].get(name, {"tasks": {}})["tasks"].get("spoken_digits")
        cells = line.split("|")
        if seeds is None:
            assert not cells[6].strip()
        else:
            accuracies = [run["accuracy"] for run in seeds["seeds"].values()]
            assert float(cells[6]) == round(100 * sum(accuracies) / len(accuracies), 1)
            seen += 1
    assert seen >= 8


def test_equations_of_the_site_are_mathml_with_words_as_they_are():
    pytest.importorskip("latex2mathml")
    from mathml import on_page_content

    page = r'<p>a <span class="arithmatex">\(e^{\texttt{log\_dt}} &lt; 1\)</span></p>'
    found = on_page_content(page)
    assert 'display="inline"' in found and ">log_dt</mtext>" in found and "&#x0003C;" in found
    assert "arithmatex" not in found and found.endswith("</math></p>")
