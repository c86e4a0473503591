"""What makes spikes and what carries them are chosen apart: every pair trains and streams."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax.nn.mixers import MIXERS
from pspike_jax.nn.sites import SITES

BATCH, LENGTH, CUT = 2, 8, 3
KEY = jax.random.key(4)


def build(site, mixer):
    return pspike_jax.create_model(
        "pspikessm",
        "tiny",
        neuron=site,
        parametrization=mixer,
        initializer="legs",
        surrogate="triangular",
        d_model=4,
        n_layers=1,
        l_max=LENGTH,
        remat="none",
        engine="auto",
    )


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("site", SITES)
def test_every_site_trains_and_streams_on_every_mixer(site, mixer, rng):
    model = build(site, mixer)
    x = jnp.asarray(rng.normal(size=(BATCH, LENGTH, 2)) + 0.5, jnp.float32)
    apply = functools.partial(model.apply, rngs={"spikes": KEY}, capture=True)
    spikes_of = lambda aux: {site: r["spike_array"] for site, r in aux["sites"].items()}
    streams = "streaming" in model.supports

    @jax.jit
    def everything(key, x):
        variables = nn.meta.unbox(model.init({"params": key, "spikes": key}, x))

        def loss(params):
            outputs, aux = apply(variables | {"params": params}, x)
            return jnp.sum(jnp.sin(outputs)), (outputs, spikes_of(aux))

        bar, (outputs, spikes) = jax.grad(loss, has_aux=True)(variables["params"])
        stepped = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], bar)
        chunks, last = [], outputs
        if streams:
            state = model.initial_state(BATCH)
            for piece in (x[:, :CUT], x[:, CUT:]):
                state, (last, aux) = apply(variables, state, piece, method="prefill")
                chunks.append(spikes_of(aux))
        return bar, stepped, (outputs, last), spikes, chunks

    bar, stepped, (outputs, last), spikes, chunks = everything(KEY, x)
    for (path, one), two in zip(jax.tree.leaves_with_path(bar), jax.tree.leaves(stepped)):
        where = jax.tree_util.keystr(path)
        assert np.isfinite(one).all() and np.isfinite(two).all(), where
    # Gradients go through both sites and the mixer: its poles learn.
    mixer_bars = jax.tree.leaves(bar["backbone"]["blocks"]["ssm"])
    assert any(np.any(leaf) for leaf in mixer_bars)
    for name, array in spikes.items():
        assert set(np.unique(array)) <= {-1.0, 0.0, 1.0}, name
        assert np.any(array) or name == "output", f"{name} is silent: the test would see nothing"
    if not streams:
        return
    np.testing.assert_allclose(last, outputs, rtol=2e-5, atol=5e-5)
    for name, array in spikes.items():
        streamed = np.concatenate([chunk[name] for chunk in chunks], axis=2)
        np.testing.assert_array_equal(streamed, array, err_msg=name)
