"""Every config becomes typed settings and a model of the published size."""

import importlib
import pathlib
import re
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_writers import write_events

from pspike_jax.command import experiment
from pspike_jax.data import Split, Task
from pspike_jax.data.stand_in import SHAPES
from pspike_jax.objectives import Classification

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.configs import published  # noqa: E402
from pspike_jax.models.silif import NEURONS  # noqa: E402

# {config: (steps of an input, training examples)}, as published, a part held out where the
# publication has no validation split.
PUBLISHED = {
    "listops": (2000, 96_000),
    "text": (4096, 22_500),
    "retrieval": (4000, 147_086),
    "image": (1024, 45_000),
    "pathfinder": (1024, 160_000),
    "pathx": (16_384, 160_000),
    "smnist": (784, 54_000),
    "psmnist": (784, 54_000),
    "sc10": (16_000, 24_483),
    "sc35": (16_000, 84_843),
    "shd": (250, 7340),
    "ssc": (300, 75_466),
    "gsc": (98, 84_843),
}
PLATEAU = ("smnist", "psmnist", "shd", "ssc", "gsc")


def module(name):
    return importlib.import_module(f"experiments.configs.{name}")


def empty_task(name):
    """Return a task of the published shapes and training size that takes no memory."""
    length, count = PUBLISHED[name]
    features, num_classes, vocab_size = SHAPES[
        {"pathfinder": "pathfinder32", "pathx": "pathfinder128"}.get(name, name)
    ]
    documents = (2,) if name == "retrieval" else ()

    def split(count):
        tokens = vocab_size is not None
        inside = (*documents, length) if tokens else (length, features)
        zero = np.zeros((), np.uint8 if tokens else np.float32)
        return Split(
            np.broadcast_to(zero, (count, *inside)),
            np.broadcast_to(np.int32(length), (count, *documents)),
            np.zeros(count, np.int32),
        )

    # Two rows: checking a task reads all of it.
    return Task(name, split(2), split(2), split(2), Classification(num_classes), vocab_size)


def build_full(monkeypatch, name, variant=None):
    """Build a config with its data set replaced by an empty one; return it and its dict."""
    config = module(name).get_config(variant).to_dict()
    assert config["task"]["name"] == "prepared"

    def load(*, dataset, data_dir, validation, verify):
        return empty_task(name)

    monkeypatch.setitem(experiment.TASKS, "prepared", load)
    return experiment.build(config), config


def count_parameters(built):
    inputs, lengths = built.task.train[:2]
    rngs = {name: jax.random.key(0) for name in ("params", "spikes", "dropout")}
    tokens = built.task.vocab_size is not None
    one = jax.ShapeDtypeStruct((1, *inputs.shape[1:]), jnp.int32 if tokens else jnp.float32)
    full = jax.ShapeDtypeStruct((1, *lengths.shape[1:]), jnp.int32)
    params = jax.eval_shape(built.model.init, rngs, one, full)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_every_config_is_listed_here():
    files = {path.stem for path in ROOT.glob("experiments/configs/*.py")}
    assert files - {"__init__", "published", "quickstart"} >= set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_config_sets_known_keys_of_typed_settings(monkeypatch, name):
    built, config = build_full(monkeypatch, name)
    settings = {"training": built.training, "optimizer": built.training.optimizer}
    for section, typed in settings.items():
        assert set(config[section]) <= set(vars(typed)) - {"optimizer"}


# Parameters that the released programs use, to the three digits known; their dead layers left out.
@pytest.mark.parametrize("name, parameters", [
    ("listops", 174e3), ("text", 189e3), ("retrieval", 588e3), ("image", 3.98e6),
    ("pathfinder", 1.79e6), ("psmnist", 436e3), ("shd", 351e3),
])
def test_config_makes_a_model_of_the_published_size(monkeypatch, name, parameters):
    count = count_parameters(build_full(monkeypatch, name)[0])
    assert count == pytest.approx(parameters, rel=5e-3)


@pytest.mark.parametrize("name", ["pathx", "sc35", "ssc", "gsc"])  # smnist, sc10: as another
def test_config_without_a_published_size_makes_a_model(monkeypatch, name):
    assert count_parameters(build_full(monkeypatch, name)[0]) > 1e5


@pytest.mark.parametrize("name", PUBLISHED)
def test_config_counts_epochs_where_the_schedule_does(name):
    config = module(name).get_config()
    epoch = PUBLISHED[name][1] // config.training.batch_size
    if name in PLATEAU:
        assert config.optimizer.schedule == "plateau"
        assert config.training.eval_every == epoch and config.training.steps % epoch == 0
    else:
        assert config.optimizer.decay_steps in (None, config.training.steps)
        assert 0.5 * epoch < config.training.eval_every < 2 * epoch


@pytest.mark.parametrize("name", PUBLISHED)
def test_smoke_builds_offline_and_says_what_its_data_are(name):
    config = module(name).get_config("smoke").to_dict()
    built = experiment.build(config)
    assert re.search("stand-in|style|reduced", built.task.name)
    assert config["training"]["steps"] == 4


@pytest.mark.parametrize("name", PUBLISHED)
def test_config_refuses_an_unknown_variant(name):
    with pytest.raises(ValueError, match="variant is 'smok', expected 'smoke'(, none or one| or)"):
        module(name).get_config("smok")


@pytest.mark.parametrize("name", PUBLISHED)
def test_docstring_says_command_figure_and_hardware(name):
    text = module(name).__doc__
    assert f"--config=experiments/configs/{name}.py" in text
    assert f"--dataset={module(name).get_config().task.dataset} " in text
    assert "Expected test accuracy:" in text
    assert re.search(r"Hardware: .*(estimate|authors report).*not\s+(a\s+measure|measured)", text,
                     re.S)


@pytest.mark.parametrize("model", NEURONS)
@pytest.mark.parametrize("name", ["shd", "ssc", "gsc"])
def test_neuron_configs_take_every_reset_neuron(monkeypatch, name, model):
    built, config = build_full(monkeypatch, name, model)
    assert config["model"]["name"] == model
    assert built.model.config.neuron == NEURONS[model][0] or (name, model) == ("ssc", "csilif")


@pytest.mark.parametrize("name", ["shd", "ssc", "gsc"])
def test_neuron_configs_have_a_variant_with_delays(monkeypatch, name):
    built, _ = build_full(monkeypatch, name, "cadlif_delays")
    plain, _ = build_full(monkeypatch, name, "cadlif")
    assert built.model.config.delays == published.DELAYS and plain.model.config.delays is None
    assert count_parameters(built) == count_parameters(plain) + 2 * 512  # a lag for each neuron


def test_neuron_configs_use_the_published_settings_of_their_model():
    config = module("shd").get_config("csilif")
    assert (config.model.dropout, config.optimizer.learning_rate) == (0.1, 5e-3)
    assert (config.optimizer.plateau_factor, config.optimizer.plateau_patience) == (0.9, 11)
    fast = published.neuron_config("shd", "rlif", module("shd").PUBLISHED, training={})
    assert fast.optimizer.dynamics_rate == fast.optimizer.step_size_rate == 1e-3  # those of silif


def test_the_ssc_config_of_csilif_has_its_longer_steps(monkeypatch):
    assert build_full(monkeypatch, "ssc", "csilif")[0].model.config.neuron.dt_max == 5


@pytest.mark.parametrize("name", ["shd", "ssc", "gsc"])
def test_smoke_of_neurons_makes_spikes(name):
    config = importlib.import_module(f"experiments.configs.{name}").get_config("smoke")
    made = experiment.build(config.to_dict())
    model, inputs = made.model, made.task.test.inputs
    rngs = {"params": jax.random.key(0), "spikes": jax.random.key(1)}
    variables = jax.jit(model.init)(rngs, inputs)
    _, aux = jax.jit(lambda v, x: model.apply(v, x, rngs=rngs))(nn.meta.unbox(variables), inputs)
    for site, counts in aux["sites"].items():
        rate = np.sum(counts["spikes"]) / np.sum(counts["steps"] * counts["neurons"])
        assert 0.01 < rate < 0.6, (site, rate)


def test_event_ssm_reads_the_published_files_without_bins(tmp_path):
    config = module("event_ssm_shd").get_config().to_dict()
    for part, count in (("train", 40), ("test", 12)):
        events = [([0.5, 0.1, 0.101, *np.full(61, 0.6)], [699, 3, 4, *np.full(61, 9)])] * count
        write_events(tmp_path / f"shd_{part}.h5", events, np.arange(count) % 20)
    for key in ("path", "test_path"):
        config["task"][key] = str(tmp_path / pathlib.Path(config["task"][key]).name)
    built = experiment.build(config)
    task = built.task
    assert [len(part.lengths) for part in (task.train, task.validation, task.test)] == [36, 4, 12]
    np.testing.assert_array_equal(task.test.inputs[:, :4], [[3, 4, 699, 9]] * 12)
    # Milliseconds, from times of float32: half a unit in the last place of 0.5 s.
    np.testing.assert_allclose(task.test.dt[:, :5], [[0, 1, 399, 100, 0]] * 12, atol=1e-4)
    assert count_parameters(built) > 1e5
    smoke = experiment.build(module("event_ssm_shd").get_config("smoke").to_dict())
    assert smoke.task.train.dt.shape == smoke.task.train.inputs.shape and smoke.task.train.dt.any()
