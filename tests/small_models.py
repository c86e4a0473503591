"""Models so small that a program for one compiles in seconds, with parameters that show mistakes.

Starting values hide errors: a scale of 1, a shift of 0 or a bias of 0 could be left out of the
model unseen. So every array is drawn anew here.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import pspike_jax

SIZES = {"num_outputs": 3, "d_model": 4, "d_state": 4, "n_layers": 2}
BATCH, LENGTH, INPUTS, VOCABULARY = 3, 12, 2, 5

# Ranges of parameters that are drawn uniformly, by name; others are normal. Time constants are of
# some steps, and drives lie on both sides of 0 and 1.
RANGES = {
    "A_real": (-1.5, 0.0),
    "A_imag": (0.1, 4.0),
    "log_dt": (-3.0, -0.7),
    "inv_dt": (-3.0, -0.7),
    "alpha": (0.1, 0.9),
    "scale": (0.5, 1.0),
    "shift": (0.1, 0.5),
    "var": (0.5, 2.0),
}


def small_model(name="pspikessm", preset=None, **fields):
    """Return a model of two layers of four neurons."""
    return pspike_jax.create_model(name, preset, **SIZES | fields)


def draw_variables(model, inputs, seed=0):
    """Return variables of a model whose every array is drawn, shapes as `init` gives them."""
    rng = np.random.default_rng(seed)
    shapes = _variable_shapes(model, jax.ShapeDtypeStruct(inputs.shape, inputs.dtype))

    def draw(path, leaf):
        name = path[-1].key
        if name in RANGES:
            values = rng.uniform(*RANGES[name], leaf.shape)
        else:
            spread = {"kernel": leaf.shape[-2] ** -0.5 if leaf.ndim > 1 else 1, "bias": 0.3}
            values = spread.get(name, 1.0) * rng.normal(size=leaf.shape)
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def _variable_shapes(model, inputs):
    init = functools.partial(model.init, noise=0.5)
    return nn.meta.unbox(jax.eval_shape(init, jax.random.key(0), inputs))


def draw_inputs(model, seed=0, batch=BATCH, length=LENGTH):
    """Return inputs that a model takes: tokens, all of them used, or real values."""
    rng = np.random.default_rng(seed)
    shape = (batch, 2, length) if model.config.documents == 2 else (batch, length)
    if model.config.vocab_size is None:
        return jnp.asarray(rng.normal(size=(*shape, INPUTS)), jnp.float32)
    return jnp.asarray(
        rng.permutation(np.arange(np.prod(shape)) % model.config.vocab_size).reshape(shape)
    )


def draw_noise(samplers, seed=0, batch=BATCH, length=LENGTH):
    """Return uniforms for each sampler of each of the two layers."""
    rng = np.random.default_rng(seed)
    shape = (batch, length, SIZES["d_model"])
    draw = lambda: jnp.asarray(rng.random(shape), jnp.float32)
    return tuple(tuple(draw() for _ in range(samplers)) for _ in range(SIZES["n_layers"]))


def keyed_noise(model, key, samplers, example_ids, steps):
    """Return the uniforms that a model with this key in its stream is documented to draw.

    Models call make_rng("spikes") once, at their root, and fold in from there.
    """
    root = model.apply({}, rngs={"spikes": key}, method=lambda module: module.make_rng("spikes"))
    draw = jax.jit(
        lambda layer, sampler: pspike_jax.functional.uniforms(
            root,
            layer=layer,
            sampler=sampler,
            example_ids=jnp.asarray(example_ids),
            steps=jnp.asarray(steps),
            features=model.config.d_model,
        )
    )
    return tuple(
        tuple(draw(layer, sampler) for sampler in range(samplers))
        for layer in range(model.config.n_layers)
    )


def compiled(function, *arguments):
    """Compile a function for arguments like these."""
    return jax.jit(function).lower(*arguments).compile()


def check_noise(aux, noise, samplers):
    """Raise unless each spike is exactly a comparison with the given uniform of its site."""
    for site, record in aux["sites"].items():
        uniform = np.stack([arrays[samplers[site]] for arrays in noise])
        expected = np.asarray(record["probability_array"]) > uniform
        np.testing.assert_array_equal(record["spike_array"], expected, err_msg=site)
