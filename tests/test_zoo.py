"""Models by name: the common contract, and what bad fields and bad inputs get."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import draw_inputs, small_model

import pspike_jax
from pspike_jax.models.sequence import SUPPORTS

COUNTS = {
    "spikes": (2,),
    "probability": (2,),
    "steps": (2,),
    "neurons": (2,),
    "fan_out": (2,),
    "neuron_spikes": (2, 4),
    "surrogate": (2,),
}
# {model: (preset, fields, sites of its spikes)}
FAMILIES = {
    "paper": ("pspikessm", "paper", {}, {"input", "output"}),
    "official": (
        "pspikessm",
        "official",
        {"vocab_size": 5},
        {"input", "output", "input_reverse", "output_reverse"},
    ),
    "lif_ssm": ("lif_ssm", None, {}, {"input", "output"}),
    "s4d": ("s4d", None, {}, set()),
}
KEY = jax.random.key(0)
RNGS = {"spikes": KEY}


def shapes_of(model, inputs, **call):
    """Return the shapes of (logits, aux); nothing is computed."""

    def apply(inputs):
        return model.init_with_output({"params": KEY, **RNGS}, inputs, **call)[0]

    return jax.eval_shape(apply, inputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_models_share_one_contract(family):
    name, preset, fields, sites = FAMILIES[family]
    model = small_model(name, preset, **fields)
    inputs = draw_inputs(model)
    logits, aux = shapes_of(model, inputs, capture=True)
    assert (logits.shape, logits.dtype) == ((3, 3), jnp.float32)
    assert set(aux) == {"sites", "losses", "macs", "block_output"}
    assert set(aux["sites"]) == sites
    for record in aux["sites"].values():
        assert {count: record[count].shape for count in COUNTS} == COUNTS
        for array in ("spike_array", "probability_array"):
            assert record[array].shape == (2, *inputs.shape[:2], 4)


@pytest.mark.parametrize("family", ["official", "s4d"])  # the backbones that there are
def test_layers_are_stacked_in_a_program_that_does_not_grow_with_them(family):
    name, preset, fields, _ = FAMILIES[family]
    lines = set()
    for n_layers in (2, 5):
        model = small_model(name, preset, **fields | {"n_layers": n_layers})
        inputs = draw_inputs(model)
        variables = jax.eval_shape(lambda: model.init({"params": KEY, **RNGS}, inputs))
        blocks = variables["params"]["backbone"]["blocks"]
        assert {leaf.shape[0] for leaf in jax.tree.leaves(blocks)} == {n_layers}
        program = jax.make_jaxpr(lambda variables: model.apply(variables, inputs, rngs=RNGS))
        lines.add(str(program(variables)).count("\n"))
    assert len(lines) == 1


def test_list_models_names_what_create_model_builds():
    names = pspike_jax.list_models()
    assert {"pspikessm", "lif_ssm", "s4d", "silif", "csilif"} <= set(names)
    for name in names:
        assert callable(pspike_jax.create_model(name).initial_state)


@pytest.mark.parametrize(
    "asked, message",
    [({"supports": "stream"}, "'stream'; did you mean 'streaming'"),
     ({"kind": "clasifier"}, "'clasifier'; did you mean 'classifier'")],
)
def test_list_models_refuses_what_no_model_could_be(asked, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        pspike_jax.list_models(**asked)


def test_every_model_supports_what_has_a_name():
    for name in pspike_jax.list_models():
        assert pspike_jax.create_model(name).supports <= set(SUPPORTS)


def test_fields_override_the_preset():
    model = pspike_jax.create_model("pspikessm", "official", d_model=32, prenorm=True)
    config = model.config
    assert (config.d_model, config.prenorm, config.l_max) == (32, True, 2048)


def test_field_initializer_chooses_the_starting_poles():
    model = small_model(initializer="lin", d_state=4)
    variables = jax.jit(lambda key: model.init(key, REAL, sampling="mean"))(KEY)
    frequencies = nn.meta.unbox(variables)["params"]["backbone"]["blocks"]["ssm"]["A_imag"]
    np.testing.assert_array_equal(frequencies[0, 0], np.float32([0, np.pi]))  # S4D-Lin: i pi n


def test_default_preset_is_that_of_the_paper():
    model = pspike_jax.create_model("pspikessm")
    assert model == pspike_jax.create_model("pspikessm", "paper")


@pytest.mark.parametrize(
    "name, preset, fields, message",
    [
        ("pspikesm", None, {}, "unknown model 'pspikesm'; did you mean 'pspikessm'?"),
        (
            "pspikessm",
            "offical",
            {},
            "unknown preset of pspikessm 'offical'; did you mean 'official'?",
        ),
        ("pspikessm", None, {"d_modle": 4}, "'d_modle'; did you mean 'd_model'?"),
        ("s4d", None, {"n_layer": 4}, "field of s4d 'n_layer'; did you mean 'n_layers'?"),
        ("pspikessm", None, {"initializers": 1}, "'initializers'; did you mean 'initializer'?"),
    ],
)
def test_create_model_names_the_nearest_known_name(name, preset, fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        pspike_jax.create_model(name, preset, **fields)


@pytest.mark.parametrize("name", ["pspikessm", "lif_ssm", "s4d"])
@pytest.mark.parametrize(
    "fields, error, message",
    [
        ({"num_outputs": 0}, ValueError, "num_outputs must be at least 1, not 0"),
        ({"num_outputs": 2.5}, TypeError, "num_outputs is 2.5; expected a whole number"),
        ({"vocab_size": 0}, ValueError, "vocab_size must be at least 1, not 0"),
        ({"d_model": 0}, ValueError, "d_model must be at least 1, not 0"),
        ({"d_model": "4"}, TypeError, "d_model is '4'; expected a whole number"),
        ({"n_layers": 0}, ValueError, "n_layers must be at least 1, not 0"),
        ({"d_state": 5}, ValueError, "d_state must be even (conjugate pairs), not 5"),
        ({"d_state": 0}, ValueError, "d_state must be at least 1, not 0"),
        ({"dt_min": 0.2}, ValueError, "need 0 < dt_min < dt_max, not 0.2 and 0.1"),
        ({"dt_min": 0.1}, ValueError, "need 0 < dt_min < dt_max, not 0.1 and 0.1"),
        ({"dt_min": 0.0}, ValueError, "dt_min is 0.0; expected in (0, inf]"),
        ({"dt_max": np.inf}, ValueError, "dt_max is inf; expected in (0, inf]"),
        ({"dt_min": "1e-3"}, TypeError, "dt_min is '1e-3'; expected a number"),
        ({"dropout": 1.0}, ValueError, "dropout is 1.0; expected in [0, 1)"),
        ({"dropout": None}, TypeError, "dropout is None; expected a number"),
        ({"causal": "false"}, TypeError, "causal is 'false'; expected True or False"),
        ({"norm": "rms"}, ValueError, "norm is 'rms'; expected one of 'batch', 'layer'"),
        ({"pool": "max"}, ValueError, "pool is 'max'; expected one of 'mean', 'last', 'none'"),
        ({"engine": "fast"}, ValueError, "engine is 'fast'; expected one of 'auto', 'sequential'"),
        (
            {"initializer": "hippo"},
            ValueError,
            "initializer is 'hippo'; expected one of 'legs', 'lin', 'inv'",
        ),
        ({"documents": 3}, ValueError, "documents must be 1 or 2, not 3"),
        ({"documents": 2, "pool": "none"}, ValueError, "documents=2 compares pooled features"),
    ],
)
def test_create_model_names_the_wrong_value(name, fields, error, message):
    with pytest.raises(error, match=re.escape(message)):
        pspike_jax.create_model(name, **fields)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"bidirectional": True}, "reads the future; it needs causal=False"),
        ({"l_max": 0}, "l_max must be at least 1, not 0"),
        ({"parametrization": "dplr", "l_max": 9, "initializer": "lin"}, "expected one of 'legs'"),
        ({"neuron": "lif", "block": "official"}, "neuron='lif' belongs to block='paper'"),
        ({"surrogate": "step"}, "surrogate is 'step'; expected one of 'clamp_straight_through'"),
        ({"remat": "all"}, "remat is 'all'; expected one of 'auto', 'none', 'block'"),
    ],
)
def test_pspikessm_refuses_fields_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        pspike_jax.create_model("pspikessm", **fields)


REAL = np.zeros((2, 12, 2), np.float32)
TOKENS = np.zeros((2, 12), np.int32)


def with_value(array, value):
    array = array.copy()
    array[1, 3] = value
    return array


@pytest.mark.parametrize("name", ["pspikessm", "s4d"])
@pytest.mark.parametrize(
    "fields, inputs, lengths, error, message",
    [
        ({}, REAL[0], None, ValueError, "shape (12, 2); expected (B, L, F)"),
        ({}, REAL[:, :0], None, ValueError, "shape (2, 0, 2): nothing to compute"),
        ({}, TOKENS, None, TypeError, "int32; the model expects floating values"),
        ({}, REAL.tolist(), None, TypeError, "inputs are a list; expected an array"),
        ({}, with_value(REAL, np.nan), None, ValueError, "nan, first at [1, 3, 0]"),
        ({}, with_value(REAL, -np.inf), None, ValueError, "-inf, first at [1, 3, 0]"),
        ({}, REAL.astype(">f4"), None, TypeError, "inputs are >f4, of the other byte order"),
        ({}, np.ma.masked_array(REAL), None, TypeError, "inputs are a masked array"),
        ({}, REAL, [0, 5], ValueError, "a length is 0; expected 1 to 12"),
        ({}, REAL, [3, 13], ValueError, "a length is 13; expected 1 to 12"),
        ({}, REAL, [3, 5, 7], ValueError, "lengths are int32 (3,); expected integer (2,)"),
        ({}, REAL, [3.0, 5.0], ValueError, "lengths are float32 (2,); expected integer (2,)"),
        ({"vocab_size": 5}, REAL, None, TypeError, "float32; the model expects integer tokens"),
        ({"vocab_size": 5}, TOKENS[0], None, ValueError, "shape (12,); expected (B, L)"),
        (
            {"vocab_size": 5},
            with_value(TOKENS, 5),
            None,
            ValueError,
            "a token is 5; the vocabulary has ids 0 to 4",
        ),
        ({"vocab_size": 5}, with_value(TOKENS, -1), None, ValueError, "a token is -1;"),
        (
            {"vocab_size": 5, "documents": 2},
            TOKENS,
            None,
            ValueError,
            "shape (2, 12); expected (B, 2, L)",
        ),
    ],
)
def test_models_refuse_inputs_before_they_compute(name, fields, inputs, lengths, error, message):
    model = small_model(name, **fields)
    lengths = None if lengths is None else jnp.array(lengths)
    with pytest.raises(error, match=re.escape(message)):
        # Without parameters, so that anything computed before would fail in another way.
        model.apply({}, inputs, lengths, rngs=RNGS)


@pytest.mark.parametrize(
    "call, message",
    [
        ({}, "spikes need randomness: pass rngs={'spikes': key}, or noise=..."),
        ({"rngs": RNGS, "sampling": "most"}, "'most'; expected one of 'spikes', 'mean'"),
        ({"rngs": RNGS, "example_ids": np.arange(3)}, "(3,); expected integer (2,)"),
    ],
)
def test_pspikessm_refuses_a_call_before_it_computes(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        small_model().apply({}, REAL, **call)


def uniform(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    "noise, message",
    [
        (((uniform(2, 12, 4),) * 2,), "noise has [2] arrays in its blocks; expected 2 in each"),
        (((uniform(2, 12, 4),),) * 2, "noise has [1, 1] arrays in its blocks; expected 2"),
        (((uniform(2, 12, 3),) * 2,) * 2, "noise has shape (2, 12, 3); expected (2, 12, 4)"),
        (((uniform(2, 9, 4),) * 2,) * 2, "noise has shape (2, 9, 4); expected (2, 12, 4)"),
        (1.5, "noise is 1.5; a uniform lies between 0 and 1"),
        (np.float32(-0.5), "noise is -0.5; a uniform lies between 0 and 1"),
        (uniform(2, 12, 4), "noise must be a number or a tuple per block, not (2, 12, 4)"),
    ],
)
def test_pspikessm_names_the_noise_that_it_expects(noise, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        shapes_of(small_model(), REAL, noise=noise)


@pytest.mark.parametrize("fields", [{"causal": False}, {"documents": 2, "vocab_size": 5}])
def test_streams_need_a_causal_model_of_one_document(fields):
    with pytest.raises(ValueError, match="does not stream"):
        small_model(**fields).initial_state(2)


def test_stream_refuses_a_call_before_it_computes():
    model = small_model()
    state = model.initial_state(2)
    for call in ({}, {"rngs": RNGS, "example_ids": np.arange(3)}):
        with pytest.raises(ValueError, match="randomness|expected integer"):
            model.apply({}, state, REAL, method="prefill", **call)
