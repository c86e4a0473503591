"""Pretrained models: arrays come back bit for bit, what does not fit is named, answers stay."""

import configparser
import dataclasses
import fnmatch
import hashlib
import json
import pathlib
import shutil
import sys
import types
import zipfile

import jax
import numpy as np
import pytest

import pspike_jax
from pspike_jax import export
from pspike_jax.pretrained.hub import hub_card
from pspike_jax.pretrained.models import FOLDER, make_module
from pspike_jax.pretrained.weights import read_weights, write_weights
from small_models import compiled

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = pspike_jax.list_pretrained()
NAME = "pspikessm_digits"


def variables(rng):
    kernel = rng.normal(size=(3, 2)).astype(np.float32)
    return {"params": {"head": {"kernel": kernel, "bias": np.zeros(2, np.float32)}},
            "constants": {"count": np.array([7], np.int32)}}


@pytest.fixture
def written(rng, tmp_path):
    """A file of weights and what it holds."""
    path, tree = tmp_path / "weights.npz", variables(rng)
    write_weights(path, tree)
    return path, tree


def test_read_weights_gives_back_every_bit(written):
    path, tree = written
    found = read_weights(path, tree)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(tree)):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_write_weights_gives_equal_bytes_for_equal_arrays(written, tmp_path):
    path, tree = written
    write_weights(tmp_path / "again", tree)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_write_weights_refuses_other_dtypes_by_name(tmp_path):
    with pytest.raises(TypeError, match="params/a is float64, expected one of"):
        write_weights(tmp_path / "a.npz", {"params": {"a": np.zeros(2)}})
    assert not (tmp_path / "a.npz").exists()


def test_read_weights_lists_everything_that_does_not_fit(written):
    path, tree = written
    head = tree["params"]["head"]
    wanted = {"params": {"head": {"kernel": head["kernel"].T, "scale": head["bias"]}},
              "constants": {"count": np.array([7.0], np.float32)}}
    with pytest.raises(ValueError) as caught:
        read_weights(path, wanted)
    assert sorted(str(caught.value).splitlines()[1:]) == [
        "  constants/count is int32 (1,), expected float32 (1,)",
        "  params/head/bias is unknown",
        "  params/head/kernel is float32 (3, 2), expected float32 (2, 3)",
        "  params/head/scale is missing, expected float32 (2,)",
    ]


def test_read_weights_compares_shapes_before_it_takes_memory(tmp_path):
    # 4 TB are announced, none are there: reading any of it would fail in another way.
    path = tmp_path / "large.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("params/a.npy", "w") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match=r"params/a is float32 \(10{12},\), expected .* \(2,\)"):
        read_weights(path, {"params": {"a": np.zeros(2, np.float32)}})


def test_read_weights_refuses_objects(tmp_path):
    path = tmp_path / "objects.npz"
    np.savez(path, **{"params/a": np.array([print, None])})
    with pytest.raises(ValueError, match="params/a is object"):
        read_weights(path, {"params": {"a": np.zeros(2, np.float32)}})


@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: data[:-30], lambda data: data[60:], lambda data: data[::-1],
])
def test_read_weights_names_a_file_that_is_no_archive_of_arrays(written, damage):
    path, tree = written
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="weights.npz: not a readable archive of arrays"):
        read_weights(path, tree)


def test_read_weights_notices_a_changed_number(rng, tmp_path):
    path, numbers = tmp_path / "plain.npz", rng.normal(size=5000).astype(np.float32)
    np.savez(path, **{"params/a": numbers})  # not compressed, so that numbers can be found
    data = bytearray(path.read_bytes())
    data[data.index(numbers[4990:].tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="plain.npz: not a readable archive .*Bad CRC-32"):
        read_weights(path, {"params": {"a": numbers}})


@pytest.mark.parametrize("name", ["pspikessm_digit", "../pretrained/pspikessm_digits", ""])
def test_load_pretrained_names_the_known_models(name):
    with pytest.raises(ValueError, match=r"unknown pretrained model .* one of \['adlif_digits', "):
        pspike_jax.load_pretrained(name)


def copy(tmp_path):
    for ending in ("npz", "json"):
        shutil.copyfile(FOLDER / f"{NAME}.{ending}", tmp_path / f"{NAME}.{ending}")
    return tmp_path / f"{NAME}.npz", tmp_path / f"{NAME}.json"


@pytest.mark.parametrize("change, message", [
    (lambda npz, card: npz.write_bytes(npz.read_bytes()[:-1]), "sha256 .* the card says"),
    (lambda npz, card: npz.unlink(), "sha256 missing, the card says"),
    (lambda npz, card: card.write_text(card.read_text()[:-9]), "is not the card of a model"),
    (lambda npz, card: card.write_text("{}"), "is not the card of a model: KeyError"),
    (lambda npz, card: card.write_text(card.read_text().replace('"d_model": 64', '"d_model": 63')),
     r"params/encoder/\S+ is float32 .* expected float32"),
])
def test_load_pretrained_says_what_is_wrong_with_its_files(tmp_path, change, message):
    change(*copy(tmp_path))
    with pytest.raises(ValueError, match=message):
        pspike_jax.load_pretrained(NAME, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_card_says_what_a_reader_must_know(name):
    card = json.loads((FOLDER / f"{name}.json").read_text())
    weights = (FOLDER / f"{name}.npz").read_bytes()
    assert card["weights"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert card["name"] == name and card["weights"]["bytes"] == len(weights)
    assert card["task"]["question"] and card["data"]["source"] and card["data"]["licence"]
    assert len(card["limits"]) >= 2 and card["versions"]["jax"] and card["hardware"]["processor"]
    assert card["command"].startswith("python -m experiments.main --config=experiments/configs/")
    sampled = card["figures"]["test_accuracy"]["sampled"]
    if pspike_jax.load_pretrained(name)[0].stochastic:
        # Cards of before other objectives came call the values of the draws accuracies.
        values = sampled.get("values", sampled.get("accuracies"))
        assert sampled["draws"] >= 8 and len(values) == sampled["draws"]
        assert 0 < sampled["sem"] < 0.05
    else:
        assert sampled["sem"] == 0 and "draws" not in sampled
    assert 0 < sampled["sem_examples"] < 0.05
    assert card["config"]["task"].get("data_dir", "data") == "data"
    # The config still builds: evaluating the model again needs it, long after fields were renamed.
    fields = {field.name for field in pspike_jax.describe_model(card["model"]["name"]).fields}
    assert set(card["config"]["model"]) - {"name", "preset"} <= fields


def test_every_classifier_has_a_model_of_digits():
    names = set(pspike_jax.list_models(kind="classifier"))
    assert {f"{name}_digits" for name in names} <= set(NAMES)


def test_hub_card_lists_the_figures_of_the_card(tmp_path):
    yaml = pytest.importorskip("yaml")
    pytest.importorskip("safetensors")
    module, tree, card = pspike_jax.load_pretrained(NAME)
    shape = card["input"]["shape"]
    export.save(tmp_path, module, tree, input_shape=shape, **hub_card(card))
    _, head, body = (tmp_path / "README.md").read_text().split("---\n", 2)
    head = yaml.safe_load(head)
    # The fields that huggingface.co/docs/hub/model-cards asks of a model index.
    result = head["model-index"][0]["results"][0]
    assert head["license"] == "mit" and head["library_name"] == "pspike_jax"
    assert result["task"]["type"] and result["dataset"] == {"name": "digits", "type": "digits"}
    accuracy = card["figures"]["test_accuracy"]["sampled"]["mean"]
    assert result["metrics"] == [{"type": "accuracy", "value": round(accuracy, 4)}]
    for said in (card["data"]["licence"], card["command"], card["commit"], *card["limits"]):
        assert said in body
    assert hub_card(json.loads((tmp_path / "config.json").read_text())) == {}


def test_pretrained_files_are_few_and_small():
    files = [path for path in FOLDER.iterdir() if path.suffix in (".npz", ".json")]
    assert {path.stem for path in files if path.suffix == ".npz"} == set(NAMES)
    # 20,000 parameters of a digits model are 80 kB; a wheel stays small enough to fetch in seconds.
    assert sum(path.stat().st_size for path in files) < 4_000_000


def test_files_beside_modules_are_part_of_a_wheel():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for path in (ROOT / "pspike_jax").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            # The nearest folder above that is a package names what lies below it.
            above = (part for part in path.parents if (part / "__init__.py").exists())
            folder = next(above)
            package = ".".join(folder.relative_to(ROOT).parts)
            patterns = setup["options.package_data"][package].split(", ")
            name = str(path.relative_to(folder))
            assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), path


def test_make_module_does_not_depend_on_presets_that_change(monkeypatch):
    card = json.loads((FOLDER / f"{NAME}.json").read_text())
    before = make_module(card["model"])
    presets = pspike_jax.models.pspikessm.PRESETS
    changed = {"norm": "layer", "d_model": 3, "dropout": 0.9, "causal": False, "dt_max": 7.0}
    monkeypatch.setitem(presets, "paper", dataclasses.replace(presets["paper"], **changed))
    assert make_module(card["model"]) == before


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_model_answers_the_committed_sample_as_it_did(name):
    module, variables, card = pspike_jax.load_pretrained(name)
    with np.load(ROOT / "tests" / "data" / f"{name}.npz", allow_pickle=False) as file:
        inputs, lengths, labels, logits = (
            file[part] for part in ("inputs", "lengths", "labels", "logits")
        )
    key = jax.random.key(20240603)

    def run(variables, inputs, lengths):
        mean, aux = module.apply(variables, inputs, lengths, sampling="mean")
        if not module.stochastic:
            return mean, mean, len(aux["sites"])
        drawn, _ = module.apply(variables, inputs, lengths, rngs={"spikes": key})
        return mean, drawn, 0

    mean, drawn, thresholds = compiled(run, variables, inputs, lengths)(variables, inputs, lengths)
    if thresholds:
        # What is rounded otherwise may carry a membrane over its threshold, and one spike changes
        # the scores: 64 examples of some thousand neurons and 64 steps have few that near.
        same = np.argmax(mean, axis=1) == np.argmax(logits, axis=1)
        assert same.mean() >= 0.95
    else:
        # Continuous, so what machines and compilers round stays small: float32 over some hundred
        # steps.
        np.testing.assert_allclose(mean, logits, rtol=0, atol=1e-4 * np.abs(logits).max())
    known = labels >= 0  # drawn pictures have no truth
    if known.any():
        share = card["figures"]["test_accuracy"]["sampled"]["mean"]
        right = np.mean(np.argmax(drawn, axis=1)[known] == labels[known])
        # 99.9 % of samples of this size are as close to the card's figure; chance is far away.
        assert abs(right - share) < 3.3 * np.sqrt(share * (1 - share) / known.sum())


@pytest.fixture
def saved(tmp_path):
    """A folder of `export.save`, its model and its variables."""
    pytest.importorskip("safetensors")
    module, tree, card = pspike_jax.load_pretrained(NAME)
    export.save(tmp_path / "saved", module, tree, input_shape=card["input"]["shape"])
    return tmp_path / "saved", module, tree


def check_loaded(found, module, tree):
    again, loaded, card = found
    assert again == module and card["model"]["name"] == "pspikessm"
    assert jax.tree.structure(loaded) == jax.tree.structure(tree)
    for one, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(tree)):
        np.testing.assert_array_equal(one, other)


def test_load_pretrained_reads_folders_of_safetensors(saved):
    folder, module, tree = saved
    check_loaded(pspike_jax.load_pretrained(folder), module, tree)
    assert pspike_jax.list_pretrained(folder.parent) == ("saved",)
    check_loaded(pspike_jax.load_pretrained("saved", folder.parent), module, tree)
    card = json.loads((folder / "config.json").read_text())
    card["model"]["fields"]["n_layers"] = 10**6
    (folder / "config.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="n_layers is 1000000, expected at most"):
        pspike_jax.load_pretrained(folder)


def test_load_pretrained_asks_a_hub_for_nothing_but_what_is_named(saved, monkeypatch):
    folder, module, tree = saved
    asked = []

    def snapshot_download(place, **options):
        asked.append((place, options["revision"]))
        assert {"*.json", "*.safetensors"} <= set(options["allow_patterns"])
        return str(folder)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    check_loaded(pspike_jax.load_pretrained("hf://someone/digits@v1"), module, tree)
    assert asked == [("someone/digits", "v1")]
    with pytest.raises(ValueError, match="is no hf://OWNER/NAME"):
        pspike_jax.load_pretrained("hf://digits")
    assert len(asked) == 1
