"""Exported models: programs in another process, weights with a card."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from small_models import draw_variables

import pspike_jax
from pspike_jax import export

pytest.importorskip("safetensors")
pytest.importorskip("flatbuffers")

BATCH, LENGTH, INPUTS = 3, 7, 2

RUN = """
import sys
sys.modules["pspike_jax"] = None  # it cannot be imported here
import json, jax, jax.export, numpy as np
program = jax.export.deserialize(open(sys.argv[1], "rb").read())
card, given = json.load(open(sys.argv[1] + ".json")), np.load(sys.argv[2])
x = given["x"]
key = [given["key"]] if card["arguments"][-1]["name"] == "key" else []
if card["method"] == "call":
    outputs = program.call(x, *key)
else:
    state = [
        np.full([len(x) if isinstance(n, str) else n for n in one["shape"]],
                np.dtype(one["dtype"]).type(one["start"]), one["dtype"])
        for one in card["arguments"] if one["name"].startswith("state")
    ]
    for t in range(x.shape[1]):
        outputs, *state = program.call(x[:, t], *state, *key)
assert tuple(program.platforms) == ("cpu", "cuda", "tpu")
np.save(sys.argv[3], outputs)
"""


def tiny(name, **fields):
    model = pspike_jax.create_model(name, "tiny", **fields)
    x = np.random.default_rng(1).normal(size=(BATCH, LENGTH, INPUTS)).astype(np.float32)
    return model, draw_variables(model, x), x


@pytest.mark.parametrize("name", ["silif", "pspikessm"])
@pytest.mark.parametrize("method", ["call", "step"])
def test_program_runs_where_this_package_is_not(tmp_path, name, method):
    model, variables, x = tiny(name, **{"engine": "sequential"} if name == "pspikessm" else {})
    path = tmp_path / "program.bin"
    export.to_stablehlo(
        model, variables, path, example_shape=(LENGTH, INPUTS), method=method, length=LENGTH
    )
    key = jax.random.key(3)
    np.savez(tmp_path / "given.npz", x=x, key=jax.random.key_data(key))
    words = [sys.executable, "-c", RUN, str(path), str(tmp_path / "given.npz"),
             str(tmp_path / "found.npy")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected, _ = model.apply(variables, x, rngs={"spikes": key})
    # Another order of sums, in float32; no spike of these inputs is at a tie.
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)


@pytest.mark.parametrize(("how", "message"), [
    ({"method": "jump"}, "method is 'jump'"),
    ({"example_shape": (7,)}, r"example_shape is \(7,\), expected \(L, F\)"),
])
def test_program_refuses_what_it_cannot_be(tmp_path, how, message):
    model, variables, _ = tiny("silif")
    how = {"example_shape": (LENGTH, INPUTS)} | how
    with pytest.raises(ValueError, match=message):
        export.to_stablehlo(model, variables, tmp_path / "p", **how)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "fields"), [
    ("pspikessm", {"d_model": 4}), ("csilif", {"widths": (4, 5)}), ("rlif", {}), ("s4d", {}),
])
def test_saved_weights_are_loaded_bit_for_bit(tmp_path, name, fields):
    model, variables, _ = tiny(name, **fields)
    export.save(tmp_path, model, variables, input_shape=(LENGTH, INPUTS), licence="mit")
    again, loaded = export.load(tmp_path)
    assert again == model and jax.tree.structure(loaded) == jax.tree.structure(variables)
    for before, after in zip(jax.tree.leaves(variables), jax.tree.leaves(loaded)):
        np.testing.assert_array_equal(before, after)
    assert "license: mit" in (tmp_path / "README.md").read_text()


def test_load_names_every_array_that_does_not_fit(tmp_path):
    model, variables, _ = tiny("silif")
    export.save(tmp_path, model, variables, input_shape=(LENGTH, INPUTS))
    card = json.loads((tmp_path / "config.json").read_text())
    card["model"]["fields"]["num_outputs"] = 5
    (tmp_path / "config.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"params/head/alpha is float32 \(3,\), expected .*\(5,\)"):
        export.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(ValueError, match="does not hold a model"):
        export.load(tmp_path)
