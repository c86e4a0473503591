"""bfloat16 stays where it does no harm: the programs themselves are read."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import one_device, tiny_settings

import pspike_jax
from pspike_jax.data import from_arrays
from pspike_jax.training.creation import state_shapes
from pspike_jax.training.state import train_step

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Modules in whose scopes nothing is computed below float32: SSMs, normalisations, samplers, class
# scores.
SCOPES = {"ssm", "ssm_reverse", "norm", "head"} | {
    "input", "input_reverse", "output", "output_reverse"
}
MOVES = {
    "convert_element_type", "broadcast_in_dim", "reshape", "transpose", "squeeze", "slice", "pad",
    "concatenate", "rev", "select_n", "copy", "dynamic_slice", "gather",
    # Calls: what is inside them is looked at by itself.
    "jit", "pjit", "scan", "cond", "remat", "checkpoint", "custom_jvp_call", "custom_vjp_call",
    "while", "custom_lin", "remat2", "platform_index",
    "add_any",  # two cotangents of one activation, which are as small as it is
}
COMPARISONS = {"gt", "lt", "ge", "le", "eq", "ne"}
SMALL = (jnp.bfloat16, jnp.float16)


def equations(jaxpr):
    """Yield the equations of a program and of all programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def is_small(variable):
    return getattr(variable.aval, "dtype", None) in SMALL


def violations(program):
    """Return what is computed in fewer bits than it may be, as texts."""
    found = []
    for equation in equations(program):
        name, scope = equation.primitive.name, str(equation.source_info.name_stack)
        computes = name not in MOVES and any(map(is_small, equation.outvars))
        if computes and SCOPES & set(scope.replace("(", "/").replace(")", "/").split("/")):
            found.append(f"{name} in {scope}")
        if name in COMPARISONS and any(map(is_small, equation.invars)):
            found.append(f"comparison {name} in {scope}")
        from_integers = any(
            v.aval.ndim and jnp.issubdtype(v.aval.dtype, jnp.integer) for v in equation.invars
        )
        if name == "convert_element_type" and from_integers and is_small(equation.outvars[0]):
            found.append(f"uniforms in {scope}")
    return found


def programs(precision, **fields):
    """Return the abstract state of a small model, and its training step as equations."""
    inputs = np.ones((20, 16, 2), np.float32)
    task = from_arrays(inputs, np.arange(20) % 2, validation=0.2, test=0.0, seed=0)
    model = pspike_jax.create_model(
        num_outputs=2, d_model=4, d_state=4, n_layers=2, precision=precision,
        **fields | {"vocab_size": None},
    )
    state = state_shapes(model, task, tiny_settings(), one_device())
    batch = {
        "inputs": jax.ShapeDtypeStruct((4, 16, 2), jnp.float32),
        "lengths": jax.ShapeDtypeStruct((4,), jnp.int32),
        "targets": jax.ShapeDtypeStruct((4,), jnp.int32),
    }
    return state, jax.make_jaxpr(train_step)(state, batch).jaxpr


MODELS = [
    {"name": "pspikessm", "norm": "batch", "bidirectional": True, "causal": False},
    {"name": "pspikessm", "norm": "layer", "engine": "fft"},
    {"name": "pspikessm", "norm": "layer", "engine": "associative"},
    {"name": "pspikessm", "preset": "official", "l_max": 16, "prenorm": True},
    {"name": "lif_ssm"},
    {"name": "s4d"},
]


@pytest.mark.parametrize("fields", MODELS)
def test_bfloat16_keeps_dynamics_sampling_and_normalization_in_float32(fields):
    state, program = programs("bfloat16", **fields)
    assert violations(program) == []
    products = [e for e in equations(program) if e.primitive.name == "dot_general"]
    assert any(is_small(e.outvars[0]) for e in products), "nothing is computed in bfloat16"
    kept = jax.tree.leaves((state.params, state.batch_stats, state.opt_state))
    assert not any(leaf.dtype in SMALL for leaf in kept)


@pytest.mark.parametrize("name", ["pspikessm", "lif_ssm"])
def test_bfloat16_streams_have_a_float32_state(name):
    model = pspike_jax.create_model(
        name, num_outputs=2, vocab_size=None, d_model=4, d_state=4, n_layers=2,
        precision="bfloat16",
    )

    def run(inputs):
        keys = {"params": jax.random.key(0), "spikes": jax.random.key(1)}
        variables = model.init(keys, inputs)
        return model.apply(
            variables, model.initial_state(3), inputs[:, 0], rngs={"spikes": keys["spikes"]},
            method="step",
        )

    state, _ = jax.eval_shape(run, jax.ShapeDtypeStruct((3, 8, 2), jnp.float32))
    kinds = {leaf.dtype for leaf in jax.tree.leaves(state)}
    assert jnp.dtype(jnp.complex64) in kinds and not kinds & set(map(jnp.dtype, SMALL))
    program = jax.make_jaxpr(run)(jnp.zeros((3, 8, 2)))
    assert violations(program.jaxpr) == []


def test_float32_has_no_smaller_number_anywhere():
    _, program = programs("float32", **MODELS[0])
    assert not any(is_small(v) for e in equations(program) for v in e.outvars)


def test_violations_finds_a_decay_below_float32():
    def bad(x):
        with jax.named_scope("ssm"):
            return jnp.exp(x.astype(jnp.bfloat16))

    assert violations(jax.make_jaxpr(bad)(1.0).jaxpr) == ["exp in ssm"]


def test_bfloat16_is_near_float32_in_the_mean_field():
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(8, 16, 2)), jnp.float32)
    models = [
        pspike_jax.create_model(
            "pspikessm", num_outputs=3, vocab_size=None, d_model=16, d_state=4, n_layers=2,
            precision=precision,
        )
        for precision in ("float32", "bfloat16")
    ]
    keys = {"params": jax.random.key(0), "spikes": jax.random.key(1)}
    variables = jax.jit(models[0].init)(keys, inputs)
    exact, small = (
        jax.jit(lambda v, x, model=model: model.apply(v, x, sampling="mean")[0])(variables, inputs)
        for model in models
    )
    assert small.dtype == jnp.float32
    # bfloat16 has 8 bits: a few roundings of 2^-9 each on activations near 1, averaged over steps.
    np.testing.assert_allclose(small, exact, atol=0.02)
    assert np.abs(small - exact).max() > 1e-6, "the precision changed nothing"


def test_the_quickstart_is_as_accurate_in_bfloat16_by_its_records():
    found = {}
    for name in ("quickstart", "quickstart_bfloat16"):
        record = json.loads((ROOT / "experiments" / "results" / f"{name}.json").read_text())
        found[name] = record["over_seeds"]["sampled"]
        text = f"{100 * found[name]['mean']:.1f} ± {100 * found[name]['sem']:.1f} %"
        assert text in (ROOT / "docs" / "reproduced.md").read_text()
    assert all(run["description"]["model"]["precision"] == "bfloat16" for run in record["runs"])
    float32, bfloat16 = found.values()
    # Two times three seeds: Student's t at 95 % with four degrees of freedom.
    error = np.hypot(float32["sem"], bfloat16["sem"])
    assert abs(float32["mean"] - bfloat16["mean"]) < 2.78 * error
