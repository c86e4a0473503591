"""Programs lower for TPUs and NVIDIA GPUs on any machine, in single precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax.data import from_arrays
from pspike_jax.functional import (
    Engine,
    expected_firing,
    linear_recurrence,
    linear_ssm,
    sample_spikes,
    uniforms,
)
from pspike_jax.training import TrainSettings, make_mesh, train_step
from pspike_jax.training.creation import state_shapes

PLATFORMS = ("tpu", "cuda")
B, L, H, N = 2, 200, 3, 4  # several chunks
KEY = jax.eval_shape(lambda: jax.random.key(0))


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def lowered(function, *arguments):
    """Return {platform: text of the program}."""
    traced = jax.jit(function).trace(*arguments)
    return {name: traced.lower(lowering_platforms=(name,)).as_text() for name in PLATFORMS}


def check_single_precision(programs):
    """Raise where a program has a number of 64 bits but integers."""
    for name, text in programs.items():
        assert "stablehlo" in text
        assert "f64" not in text, name  # complex<f64>, too


def gradient(function):
    """Return a function of the same arguments to the gradient of its results' sum."""

    def total(*arguments):
        leaves = jax.tree.leaves(function(*arguments))
        return sum(jnp.sum(leaf.real) for leaf in leaves)

    def run(*arguments):
        real = [i for i, a in enumerate(arguments) if jnp.issubdtype(a.dtype, jnp.inexact)]
        return jax.value_and_grad(total, argnums=tuple(real))(*arguments)

    return run


# Reversal, and so irfft, was a hundred times too slow on TPUs (openxla/xla, issue 23191).
FFT = "stablehlo.fft"
COMPLEX = functools.partial(array, dtype=jnp.complex64)
DIAGONAL = (array(B, L, H), COMPLEX(H, N), COMPLEX(H, N))


@pytest.mark.parametrize("engine", Engine)
def test_linear_ssm_and_its_gradient_lower(engine):
    run = lambda u, Lambda_bar, B_bar, C, D, state: linear_ssm(
        u, Lambda_bar, B_bar, C, D, initial_state=state, engine=engine
    )
    two_sided = COMPLEX(2, H, N)
    arguments = (*DIAGONAL, two_sided, array(H), COMPLEX(B, H, N))
    check_single_precision(lowered(gradient(run), *arguments))


@pytest.mark.parametrize("length", [1, 64, 1024, 16_384])
def test_auto_has_no_fft_on_tpus(length):
    run = functools.partial(linear_ssm, engine="auto")
    u = array(B, length, H)
    text = lowered(gradient(run), u, *DIAGONAL[1:], COMPLEX(2, H, N))["tpu"]
    assert FFT not in text


def test_fft_engine_would_be_seen():
    run = functools.partial(linear_ssm, engine="fft")
    assert FFT in lowered(run, *DIAGONAL, COMPLEX(H, N))["tpu"]


@pytest.mark.parametrize("engine", [Engine.SEQUENTIAL, Engine.ASSOCIATIVE, Engine.CHUNKED])
def test_linear_ssm_with_resets_lowers(engine):
    run = lambda u, Lambda_bar, B_bar, C, resets: linear_ssm(
        u, Lambda_bar, B_bar, C, resets=resets, engine=engine
    )
    resets = array(B, L, dtype=bool)
    check_single_precision(lowered(gradient(run), *DIAGONAL, COMPLEX(H, N), resets))


@pytest.mark.parametrize("blocks", [(), (2, 2)], ids=["diagonal", "2x2"])
@pytest.mark.parametrize("engine", [Engine.SEQUENTIAL, Engine.ASSOCIATIVE])
def test_linear_recurrence_and_its_gradient_lower(engine, blocks):
    run = lambda decay, drive: linear_recurrence(decay, drive, engine=engine)
    drive = array(B, L, N, *blocks[:1])
    check_single_precision(lowered(gradient(run), array(B, L, N, *blocks), drive))


def draw(key):
    return uniforms(
        key, layer=0, sampler=0, example_ids=jnp.arange(B), steps=jnp.arange(L), features=H
    )


SAMPLERS = {
    "keyed": lambda p, key: sample_spikes(p, noise=draw(key)),
    "one key": lambda p, key: sample_spikes(p, key),
    "mean field": lambda p, key: expected_firing(p),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_and_their_gradients_lower(name):
    check_single_precision(lowered(gradient(SAMPLERS[name]), array(B, L, H), KEY))


MODELS = {
    "paper": ("pspikessm", "paper", {}),
    "official": ("pspikessm", "official", {"vocab_size": None, "l_max": L}),
    "causal dplr": ("pspikessm", "paper", {"parametrization": "dplr", "l_max": L}),
    "s4d": ("s4d", None, {}),
    "silif": ("silif", None, {"widths": (4, 4)}),
}


def build(name):
    kind, preset, fields = MODELS[name]
    sizes = {} if "widths" in fields else {"d_model": 4, "d_state": 4, "n_layers": 2}
    return pspike_jax.create_model(kind, preset, num_outputs=3, **sizes | fields)


def waves():
    inputs = np.zeros((12, L, 2), np.float32)
    return from_arrays(inputs, np.arange(12) % 3, validation=0.25, test=0.25, seed=0)


@pytest.mark.parametrize("name", MODELS)
def test_train_step_lowers(name):
    mesh = make_mesh(devices=jax.devices()[:1])
    state = state_shapes(build(name), waves(), TrainSettings(steps=10), mesh)
    # Shapes alone: the shardings name devices of this machine.
    state = jax.tree.map(lambda leaf: array(*leaf.shape, dtype=leaf.dtype), state)
    batch = {
        "inputs": array(B, L, 2),
        "lengths": array(B, dtype=jnp.int32),
        "targets": array(B, dtype=jnp.int32),
    }
    programs = lowered(train_step, state, batch)
    check_single_precision(programs)
    assert FFT not in programs["tpu"]


@pytest.mark.parametrize(
    "name, method", [("paper", "step"), ("causal dplr", "prefill"), ("s4d", "prefill")]
)
def test_streams_lower(name, method):
    model = build(name)
    x = array(B, 2) if method == "step" else array(B, 5, 2)
    rngs = {"spikes": jax.random.key(0)} if model.stochastic else {}
    variables = jax.eval_shape(
        functools.partial(model.init, **({"noise": 0.5} if rngs else {})),
        jax.random.key(0), array(B, L, 2),
    )
    run = lambda variables, state, x: model.apply(variables, state, x, rngs=rngs, method=method)
    state = jax.eval_shape(lambda: model.initial_state(B))
    check_single_precision(lowered(run, variables, state, x))
