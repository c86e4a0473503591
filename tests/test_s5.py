"""S5, Event-SSM and LinOSS: what recordings and the contract do not see."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax.interop import export_event_ssm, export_linoss, export_s5
from pspike_jax.interop import load_event_ssm, load_linoss, load_s5


@pytest.mark.parametrize("name, fields, load, export, given", [
    ("s5", {"causal": False, "gate": "full_glu"}, load_s5, export_s5, {"gate": "full_glu"}),
    (
        "event_ssm",
        {"vocab_size": 9, "n_stages": 2, "expansion": 2, "norm": "batch"},
        load_event_ssm,
        export_event_ssm,
        {"stride": 2, "norm": "batch"},
    ),
    ("linoss", {"norm": "running"}, load_linoss, export_linoss, {"scheme": "im"}),
])
def test_weights_come_back_as_they_left(name, fields, load, export, given):
    model = pspike_jax.create_model(name, "tiny", **fields)
    x = jnp.zeros((1, 8, 2)) if model.config.vocab_size is None else jnp.zeros((1, 8), int)
    variables = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), x))
    stats = variables.get("batch_stats")
    named = export(model, variables["params"], stats)
    other, again = load(named, **given)
    same = lambda a, b: np.testing.assert_array_equal(a, b)
    jax.tree.map(same, again["params"], variables["params"])
    jax.tree.map(same, again.get("batch_stats"), stats)
    assert other.config.sizes == model.config.sizes if name == "event_ssm" else True
    del named[next(key for key in named if key.endswith((".B")))]
    with pytest.raises(ValueError, match="does not fit:\n .*B is missing"):
        load(named | {"more": np.zeros(2)}, **given)


def test_published_sizes_of_event_networks_grow_as_in_the_program():
    config = pspike_jax.create_model("event_ssm", "ssc").config
    first, second = (96, 96, 128), (96, 192, 256)
    assert config.sizes == [
        (*first, 8), (*first, 1), (*first, 1), (*second, 8), (192, 192, 256, 1), (192, 192, 256, 1)
    ]


def test_a_row_too_short_for_a_window_has_the_outputs_of_nothing():
    model = pspike_jax.create_model("event_ssm", "tiny", stride=4, vocab_size=5)
    x = jnp.ones((2, 8), jnp.int32)
    variables = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), x))
    y, _ = jax.jit(model.apply)(variables, x, jnp.array([8, 3]))
    np.testing.assert_array_equal(y[1], variables["params"]["head"]["linear"]["bias"])
    with pytest.raises(ValueError, match="3 events are given, expected 4"):
        model.apply(variables, x[:, :3])


@pytest.mark.parametrize("mixer", ["oscillator", "s5"])
def test_spiking_blocks_take_a_state_that_features_share(mixer):
    model = pspike_jax.create_model("pspikessm", "tiny", parametrization=mixer, d_state=6)
    x = jax.random.normal(jax.random.key(1), (2, 9, 2)) + 0.5
    variables = nn.meta.unbox(jax.jit(model.init)({"params": jax.random.key(0)}, x))
    rngs = {"spikes": jax.random.key(3)}
    whole, aux = jax.jit(lambda v: model.apply(v, x, rngs=rngs))(variables)
    state = model.initial_state(2)
    for part in (x[:, :4], x[:, 4:]):
        state, (streamed, _) = model.apply(variables, state, part, rngs=rngs, method="prefill")
    np.testing.assert_allclose(streamed, whole, atol=1e-5)  # spikes alike; pooled in another order
    assert np.sum(aux["sites"]["output"]["spikes"]) > 0
    assert (np.asarray(aux["sites"]["input"]["fan_out"]) == (12 if mixer == "oscillator" else 6)).all()
