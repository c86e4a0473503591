"""The comparison of neurons: equal sizes, choices by validation alone, counts, the page."""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest

import pspike_jax
from pspike_jax.data import from_arrays
from pspike_jax.training import TrainSettings, make_mesh

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import compare  # noqa: E402
from experiments.comparison import draw, page  # noqa: E402
from pspike_jax.command.experiment import EvaluationSettings, Experiment  # noqa: E402

CHANNELS = {"japanese_vowels": (12, 9), "spoken_digits": (13, 10)}  # and classes


@pytest.mark.parametrize("name", compare.MODELS)
def test_models_have_parameters_within_five_percent(name):
    for channels, classes in CHANNELS.values():
        model = pspike_jax.create_model(name, num_outputs=classes, **compare.MODELS[name])
        inputs = jax.ShapeDtypeStruct((1, 3, channels), np.float32)
        rngs = {"params": jax.random.key(0), "spikes": jax.random.key(0)}
        params = jax.eval_shape(model.init, rngs, inputs)["params"]
        assert abs(sum(leaf.size for leaf in jax.tree.leaves(params)) - 20_000) <= 1000


def test_every_reset_based_neuron_is_compared():
    assert set(pspike_jax.models.silif.NEURONS) <= set(compare.MODELS)


def fake_run(calls):
    """Return a stand-in for `train_once` whose second rate has the lowest validation loss."""

    def run(config, folder, measure):
        tests = measure.keywords["tests"]
        rate, seed = config["optimizer"]["learning_rate"], config["training"]["seed"]
        calls.append((config["model"]["name"], rate, seed, tests))
        # The third rate would win if the test split were asked.
        validation = {"accuracy": 0.9, "loss": abs(rate - compare.RATES[1])}
        found = {
            "accuracy": 0.5 + seed / 10 + rate, "firing_rate": 0.25, "parameters": 20000,
            "synaptic_operations": 1500.0, "multiply_accumulates": 2500.0,
        }
        if config["model"]["name"] == "s4d":
            found |= {"firing_rate": None, "synaptic_operations": None}
        return {"config": config, "validation": validation} | ({"test": found} if tests else {})

    return run


@pytest.fixture
def compared(monkeypatch, tmp_path):
    """The runs that a comparison makes, and the rows that it returns."""
    calls = []
    monkeypatch.setattr(compare, "train_once", fake_run(calls))
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    return calls, compare.compare("japanese_vowels", "FILES", str(tmp_path), 3)


def test_rates_are_chosen_by_validation_and_tested_with_seeds_of_their_own(compared):
    calls, rows = compared
    for name in compare.MODELS:
        mine = [call[1:] for call in calls if call[0] == name]
        tuning = [(rate, compare.TUNING_SEED, False) for rate in compare.RATES]
        assert mine == tuning + [(compare.RATES[1], seed, True) for seed in compare.SEEDS]
        assert rows[name]["learning_rate"] == compare.RATES[1]
    assert compare.TUNING_SEED not in compare.SEEDS


def test_page_shows_the_mean_over_seeds_of_every_model(compared):
    record = compare.make_record("japanese_vowels", compared[1])
    for row in record["models"].values():
        row["seconds_per_epoch"] = {"q1": 0.1, "median": 0.125, "q3": 0.2}
    record = json.loads(json.dumps(record | {"hardware": {"cores": 2, "processor": "P"}}))
    text = page(record)
    # Of 0.51, 0.61 and 0.71: mean 61 %, standard error 0.1 / sqrt(3) = 5.8 %.
    cells = "| 61.0 ± 5.8 % | 25.0 % | 1,500 | 2,500 | 20,000 | 0.125 | 0.01 |"
    assert f"| `silif` {cells}\n" in text
    assert f"| `s4d` {cells.replace('25.0 %', 'none').replace('1,500', 'none')}\n" in text
    assert text.count("| `") == len(compare.MODELS)
    accuracy, operations = draw(record).axes
    assert [label.get_text() for label in accuracy.get_yticklabels()] == list(compare.MODELS)
    assert len(operations.patches) == 2 * len(compare.MODELS) - 1


def test_finished_run_is_not_run_again(tmp_path):
    config = compare.make_config("japanese_vowels", "FILES", "lif", 0.01, 0, 3)
    kept = json.loads(json.dumps({"config": config, "test": {"accuracy": 0.5}}))
    (tmp_path / "result.json").write_text(json.dumps(kept))
    assert compare.train_once(config, tmp_path, None) == kept
    other = compare.make_config("japanese_vowels", "FILES", "lif", 0.01, 1, 3)
    with pytest.raises(ValueError, match="holds a run of another config"):
        compare.train_once(other, tmp_path, None)


@pytest.fixture(scope="module")
def task():
    """Noise, loud enough for spikes: 40 test examples of 10 steps and 2 channels, 3 classes."""
    rng = np.random.default_rng(0)
    inputs = (20 * rng.normal(size=(80, 10, 2))).astype(np.float32)
    return from_arrays(inputs, np.arange(80) % 3, validation=0.25, test=0.5, seed=0)


def tiny_experiment(task, name, **fields):
    """Return an experiment with an untrained model, and its variables."""
    model = pspike_jax.create_model(name, num_outputs=3, **fields)
    rngs = {"params": jax.random.key(0), "spikes": jax.random.key(1)}
    variables = jax.jit(model.init)(rngs, task.test.inputs[:1])
    training = TrainSettings(steps=1, eval_batch_size=16)
    evaluation = EvaluationSettings(draws=2, seed=0)
    experiment = Experiment(
        task=task, model=model, training=training, mesh=make_mesh(), evaluation=evaluation
    )
    return experiment, variables


def test_operations_of_a_spiking_network_are_those_of_its_captured_spikes(task):
    experiment, variables = tiny_experiment(task, "rlif", widths=(6, 5), dropout=0.0)
    found = compare.test(experiment, variables)
    logits, aux = jax.jit(lambda v, x: experiment.model.apply(v, x, capture=True))(
        variables, task.test.inputs
    )
    spikes = [float(np.sum(aux["sites"][f"hidden_{i}"]["spike_array"])) for i in range(2)]
    assert sum(spikes) > 50
    examples = len(task.test.lengths)
    # A spike reaches the next layer's neurons and the others of its own.
    additions = (spikes[0] * (5 + 5) + spikes[1] * (3 + 4)) / examples
    np.testing.assert_allclose(found["synaptic_operations"], additions, rtol=1e-6)  # float32 sums
    np.testing.assert_allclose(found["firing_rate"], sum(spikes) / (examples * 10 * 11), rtol=1e-6)
    assert found["multiply_accumulates"] == 10 * 2 * 6
    accuracy = np.mean(np.argmax(logits, axis=-1) == task.test.targets)
    assert found["accuracy"] == pytest.approx(accuracy)


def test_operations_of_the_dense_twin_are_products_and_states(task):
    experiment, variables = tiny_experiment(task, "s4d", d_model=4, d_state=6, n_layers=2)
    found = compare.test(experiment, variables)
    assert found["firing_rate"] is None and found["synaptic_operations"] is None
    # Encoder 2 x 4, each layer 4 x 8 and, for 3 pairs of 4 features, 6; head 4 x 3 once.
    assert found["multiply_accumulates"] == 10 * (8 + 2 * (32 + 6 * 3 * 4)) + 12
