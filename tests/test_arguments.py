"""What `fit`, `evaluate` and `predict` say of arguments that are something else: in one line."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from tiny import one_device, tiny_settings

import pspike_jax
from pspike_jax.data import from_arrays
from pspike_jax.training import FitResult, TrainSettings, evaluate, fit, predict

X = np.random.default_rng(0).normal(size=(40, 6, 2)).astype(np.float32)
TASK = from_arrays(X, np.arange(40) % 2, test=0.2)
MODEL = pspike_jax.create_model("s4d", "tiny", **TASK.model_fields)
KEY, MESH = jax.random.key(0), one_device()


@pytest.fixture(scope="module")
def variables():
    return nn.meta.unbox(jax.jit(MODEL.init)(KEY, X[:1]))


def said(call):
    with pytest.raises((TypeError, ValueError)) as told:
        call()
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "s4d"}, "model is 's4d', expected a model"),
        ({"task": (X, 1)}, "task is a tuple, expected a Task"),
        ({"settings": {"steps": 3}}, "settings is {'steps': 3}, expected TrainSettings"),
        ({"optimizer": "adam"}, "optimizer is 'adam', expected a transformation of optax"),
        ({"callbacks": print}, "callbacks is <built-in function print>, expected a list"),
        ({"callbacks": ["log.txt"]}, "callbacks is ['log.txt'], expected a list of functions"),
        ({"variables": [1]}, "variables is [1], expected a dict with 'params'"),
        ({"variables": {"head": 1}}, "variables is a dict of head, expected a dict with"),
    ],
)
def test_fit_says_what_it_expects(given, message):
    call = {"model": MODEL, "task": TASK, "settings": tiny_settings()} | given
    assert message in said(lambda: fit(**call, mesh=MESH, progress=False))


def test_settings_say_where_an_optimizer_of_optax_goes():
    wrong = said(lambda: TrainSettings(steps=2, optimizer=0.1))
    assert wrong.startswith("optimizer is 0.1, expected OptimizerSettings(learning_rate=...)")
    assert "fit(..., optimizer=)" in said(lambda: TrainSettings(steps=2, optimizer=optax.sgd(1.0)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"key": 0}, "key is 0, expected a key, such as jax.random.key(0)"),
        ({"variables": FitResult(None, {}, 0, [])}, "is a FitResult, expected its .variables"),
        ({"variables": {"encoder": 1, "head": 2}}, "a dict of encoder, head, expected a dict with"),
        ({"model": None}, "model is None, expected a model"),
    ],
)
def test_evaluate_and_predict_say_what_they_expect(variables, given, message):
    call = {"model": MODEL, "variables": variables, "key": KEY} | given
    assert message in said(lambda: evaluate(task=TASK, **call))
    assert message in said(lambda: predict(inputs=X, **call))


def test_what_does_not_fit_the_variables_is_named(variables):
    three = MODEL.replace(num_outputs=3)
    fits = "model, variables and inputs do not fit together: "
    assert fits + 'For parameter "kernel" in "/head' in said(
        lambda: evaluate(three, variables, TASK, key=KEY)
    )
    assert fits + 'For parameter "kernel" in "/encoder' in said(
        lambda: predict(MODEL, variables, X[..., :1])
    )
    assert fits in said(lambda: predict(MODEL, {"params": {}}, X))
    assert "expected an array, or a list of arrays" in said(
        lambda: predict(MODEL, variables, TASK)
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"test": "0.1"}, "test is '0.1', expected a share"),
        ({"seed": -1}, "seed is -1, expected a whole number"),
        ({"groups": 5}, "groups are 5, expected an array"),
        ({"inputs": None}, "inputs are None, expected an array"),
        ({"inputs": "x.npy"}, "inputs are 'x.npy', expected an array"),
        ({"targets": None, "objective": pspike_jax.objectives.NextToken},
         "inputs are float32 (40, 6, 2), expected integer tokens for NextToken"),
    ],
)
def test_from_arrays_says_what_it_expects(given, message):
    call = {"inputs": X, "targets": np.arange(40) % 2} | given
    assert message in said(lambda: from_arrays(**call))


def test_create_model_says_how_fields_are_given():
    assert "did you mean 'silif'" in said(lambda: pspike_jax.create_model("SiLIF"))
    assert "fields are given by name, **fields" in said(
        lambda: pspike_jax.create_model("silif", TASK.model_fields)
    )
    assert "a model is a S4D, expected a name" in said(lambda: pspike_jax.create_model(MODEL))


def test_exports_name_what_is_something_else(variables, tmp_path):
    out = tmp_path / "x.bin"
    pytest.importorskip("flatbuffers")
    nir = pytest.importorskip("nir")
    to_stablehlo, from_nir = pspike_jax.export.to_stablehlo, pspike_jax.export.from_nir
    shape = {"example_shape": (6, 2), "length": 6}
    assert "model is a str, expected" in said(lambda: to_stablehlo("s4d", variables, out, **shape))
    for wrong in ({"params": {}}, nn.meta.unbox(variables) | {"params": {"head": {}}}):
        message = said(lambda: to_stablehlo(MODEL, wrong, out, **shape))
        assert message.startswith("model, variables and example_shape do not fit together: ")
    np.save(tmp_path / "a.npy", X)
    assert "a.npy' is no file of NIR" in said(lambda: from_nir(tmp_path / "a.npy"))
    with pytest.raises(FileNotFoundError, match="b.nir' is no file"):
        from_nir(tmp_path / "b.nir")
    assert nir and not out.exists()
