"""Publishing a run and evaluating it again, of a run made up here."""

import hashlib
import pathlib
import sys

import chex
import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import publish, reevaluate  # noqa: E402
from experiments.configs import quickstart  # noqa: E402
from pspike_jax.command.experiment import build  # noqa: E402
from made_runs import CONFIG as NAME_OF_CONFIG, EVALUATION, write_run  # noqa: E402
from pspike_jax.data import Split  # noqa: E402
from pspike_jax.data.mnist import bit_reversal_order, row_order  # noqa: E402
from pspike_jax.pretrained import load_pretrained  # noqa: E402
from small_models import draw_variables  # noqa: E402

CONFIG = str(ROOT / NAME_OF_CONFIG)


@pytest.fixture(scope="module")
def experiment():
    return build(quickstart.get_config("smoke").to_dict())


@pytest.fixture
def published(experiment, tmp_path, monkeypatch):
    """A function that publishes a made-up run with drawn variables; and those variables."""
    variables = draw_variables(experiment.model, experiment.task.test.inputs[:1])
    result = type("Result", (), {"variables": variables, "best_step": 4})
    monkeypatch.setattr(publish, "load_best", lambda folder: (experiment, result))
    (tmp_path / "weights").mkdir()

    def make(**fields):
        folder = write_run(
            tmp_path / "run", experiment, quickstart.get_config("smoke").to_dict(), **fields
        )
        return publish.publish(
            "a", CONFIG, folder, weights=tmp_path / "weights", samples=tmp_path / "samples"
        )

    return make, variables


def test_published_model_comes_back_with_card_and_sample(published, experiment, tmp_path):
    make, variables = published
    card = make()
    module, found, read = load_pretrained("a", tmp_path / "weights")
    assert module == experiment.model and read == card
    chex.assert_trees_all_equal(found, variables)
    assert card["figures"]["test_accuracy"] == EVALUATION and card["best_step"] == 4
    assert card["command"].endswith(f"--config={NAME_OF_CONFIG} --workdir=runs/a")
    assert card["data"]["licence"] == "CC BY 4.0"
    with np.load(tmp_path / "samples" / "a.npz", allow_pickle=False) as sample:
        np.testing.assert_array_equal(sample["inputs"], experiment.task.test.inputs[:64])
        np.testing.assert_array_equal(sample["labels"], experiment.task.test.targets[:64])
        assert sample["logits"].shape == (64, 10)


@pytest.mark.parametrize("fields, limit, message", [
    ({"task_name": "unheard of"}, 10**6, "no words about the data of 'unheard of'"),
    ({}, 1000, "the weights take .* bytes, expected at most 1,000"),
])
def test_publish_leaves_nothing_where_it_fails(
    published, tmp_path, monkeypatch, fields, limit, message
):
    monkeypatch.setattr(publish, "LARGEST", limit)
    with pytest.raises(ValueError, match=message):
        published[0](**fields)
    assert not [*(tmp_path / "weights").iterdir()] and not (tmp_path / "samples").exists()


def test_check_same_refuses_another_array_or_module(published, experiment):
    variables = published[1]
    other = jax.tree.map(lambda leaf: leaf + 1, variables)
    publish.check_same((experiment.model, variables, {}), experiment, variables)
    with pytest.raises(ValueError, match="not all arrays come back"):
        publish.check_same((experiment.model, other, {}), experiment, variables)
    with pytest.raises(ValueError, match="the card gives"):
        publish.check_same((experiment.model.replace(dropout=0.9), variables, {}), experiment, {})


def test_drawn_pictures_are_bars_and_rings_in_bit_reversal_order():
    inputs, lengths, labels = publish.draw_pictures(bit_reversal_order)[:3]
    assert inputs.shape == (16, 784, 1) and (lengths == 784).all() and (labels == -1).all()
    order = [int(f"{number:010b}"[::-1], 2) for number in range(1024)]
    order = [number for number in order if number < 784]
    pictures = np.empty((16, 784))
    pictures[:, order] = inputs[:, :, 0]
    pictures = pictures.reshape(16, 28, 28)
    # Rings look the same after a quarter turn; the first bar lies, the fifth stands.
    np.testing.assert_allclose(pictures[8:], np.rot90(pictures[8:], axes=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(pictures[4], pictures[0].T, atol=1e-6)
    assert (pictures[0].argmax(axis=0)[8:20] == 13).all()
    assert len(np.unique(pictures.round(3), axis=0)) == 16
    rows = publish.draw_pictures(row_order).inputs[:, :, 0].reshape(16, 28, 28)
    np.testing.assert_array_equal(rows, np.float32(pictures))


def test_fingerprint_is_that_of_the_numbers_and_no_other():
    rng = np.random.default_rng(0)
    inputs = rng.random((1500, 3, 1)).astype(np.float32)
    split = Split(inputs, np.full(1500, 3), rng.integers(0, 4, 1500))
    digest = hashlib.sha256()
    for rows in (slice(0, 1024), slice(1024, 1500)):
        for array, dtype in zip(split[:3], (np.float32, np.int32, np.int32)):
            digest.update(array[rows].astype(dtype).tobytes())
    assert reevaluate.fingerprint(split) == digest.hexdigest()
    inputs[1400, 2, 0] += 1
    assert reevaluate.fingerprint(split) != digest.hexdigest()


def test_compare_allows_noise_and_two_examples():
    def results(mean, sem):
        return {"sampled": {"mean": mean, "sem": sem, "examples": 100}}

    # Four times hypot(0.003, 0.004) is 0.02, and two examples of 100 as much.
    for mean, expected in ((0.939, True), (0.941, False), (0.861, True), (0.859, False)):
        table, agree = reevaluate.compare(results(0.9, 0.003), results(mean, 0.004))
        assert agree is expected and f"{mean:.2%}" in table


def test_reevaluate_takes_the_card_at_its_word(monkeypatch):
    seen = []
    monkeypatch.setattr(reevaluate, "test", lambda *found: seen.append(found) or EVALUATION)
    card, now = reevaluate.reevaluate("pspikessm_digits", draws=3)
    module, variables, expected = load_pretrained("pspikessm_digits")
    assert card == expected["figures"]["test_accuracy"] and now == EVALUATION
    experiment, used = seen[0]
    assert experiment.model == module and experiment.evaluation.draws == 3
    assert experiment.evaluation.seed == expected["config"]["evaluation"]["seed"]
    chex.assert_trees_all_equal(used, variables)
    monkeypatch.setattr(reevaluate, "fingerprint", lambda split: "other")
    with pytest.raises(ValueError, match="the test set has sha256 other, that of the card "):
        reevaluate.reevaluate("pspikessm_digits")
    with pytest.raises(ValueError, match="are in no folder: leave --data_dir out"):
        reevaluate.reevaluate("pspikessm_digits", data_dir="data")


def test_reevaluate_ends_with_an_error_where_figures_differ(monkeypatch):
    off = {way: result | {"mean": 0.1} for way, result in EVALUATION.items()}
    monkeypatch.setattr(reevaluate, "reevaluate", lambda name, **asked: (EVALUATION, off))
    with pytest.raises(SystemExit, match="these are not the figures of the card"):
        publish.main(["--name=pspikessm_digits", "--check"])


def test_all_models_are_evaluated_again_but_those_whose_data_are_missing(monkeypatch, capsys):
    def found(name, *, data_dir, seed, draws):
        # Digits are in no folder, prepared sets in the one that was named.
        assert data_dir == (None if name.endswith("_digits") else "nowhere")
        if name.endswith("mnist"):
            raise FileNotFoundError("nowhere/psmnist is not there\nprepare it")
        return EVALUATION, EVALUATION

    names = ("pspikessm_digits", "pspikessm_psmnist")
    monkeypatch.setattr(reevaluate, "reevaluate", found)
    monkeypatch.setattr(reevaluate, "list_pretrained", lambda: names)
    publish.main(["--all", "--check", "--data_dir=nowhere"])
    said = capsys.readouterr().out
    assert "pspikessm_digits\n" in said
    assert "pspikessm_psmnist: left out, nowhere/psmnist is not there\n" in said
    with pytest.raises(SystemExit):
        publish.main(["--all", "--name=pspikessm_digits", "--check"])
