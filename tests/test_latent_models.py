"""What models with an objective of their own keep: roles, types, and a training step by `fit`'s."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax import objectives
from pspike_jax.data import Split, Task
from pspike_jax.nn.roles import GROUPS, is_role
from pspike_jax.training import TrainSettings, create_state, make_mesh, train_step

ROWS = 4
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
RNGS = {"params": KEY, "spikes": KEY, "dropout": KEY}


def counts(*shape):
    return RNG.poisson(1.0, shape).astype(np.float32)


def real(*shape):
    return RNG.normal(size=shape).astype(np.float32)


# {model: (objective, inputs, targets, fields)}
TASKS = {
    "dlds": (objectives.Forecast(1, 2), real(ROWS, 6, 2), None, {}),
    "langevinflow": (
        objectives.SpikeRates(3, held_in=2, forward_steps=2),
        counts(ROWS, 5, 2), counts(ROWS, 7, 3).astype(np.int32), {"kl_ramp": 3},
    ),
    "mamba_fscil": (
        objectives.SimplexRegression(3), real(ROWS, 4, 5), np.arange(ROWS) % 3, {},
    ),
    "npsem": (objectives.ConditionalMoment(), real(ROWS, 1, 4), real(ROWS), {}),
}


def make(name):
    """Return the tiny model of a task, the task, and a batch with a filler row at its end."""
    objective, inputs, targets, fields = TASKS[name]
    lengths = np.full(ROWS, inputs.shape[1], np.int32)
    split = Split(inputs, lengths, targets)
    task = Task(name, split, split, None, objective)
    model = pspike_jax.create_model(name, "tiny", **task.model_fields | fields)
    batch = {"inputs": inputs, "lengths": np.append(lengths[:-1], np.int32(0))}
    if targets is not None:
        missing = np.array(targets)
        missing[-1] = -1 if missing.dtype.kind == "i" else np.nan
        batch["targets"] = missing
    return model, task, batch


def test_every_latent_model_has_a_task_here():
    elsewhere = {"stc"}  # frames, in tests/test_stc.py
    assert set(TASKS) | elsewhere == set(pspike_jax.list_models(kind="latent"))


@pytest.mark.parametrize("name", TASKS)
def test_roles_and_types_are_those_of_every_model(name):
    model, task, batch = make(name)

    def gradient(variables, inputs, lengths):
        def loss(params):
            (outputs, aux), _ = model.apply(
                variables | {"params": params}, inputs, lengths, train=True,
                rngs=RNGS, mutable=["batch_stats"],
            )
            return jnp.sum(outputs) + sum(aux["losses"].values(), jnp.float32(0))

        return jax.grad(loss)(variables["params"])

    boxed = jax.eval_shape(model.init, RNGS, batch["inputs"])
    for path, leaf in jax.tree.leaves_with_path(boxed["params"], is_leaf=is_role):
        where = jax.tree_util.keystr(path)
        assert is_role(leaf) and len(leaf.axes) == leaf.value.ndim, where
        assert leaf.group in GROUPS and leaf.value.dtype == jnp.float32, where
    variables = jax.tree.map(lambda b: b.unbox() if is_role(b) else b, boxed, is_leaf=is_role)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        again = jax.eval_shape(model.init, RNGS, batch["inputs"])
        wide = jax.eval_shape(gradient, variables, batch["inputs"], batch["lengths"])
    types = lambda tree: {leaf.dtype for leaf in jax.tree.leaves(tree)}
    assert types(again) == types(wide) == {jnp.dtype("float32")}
    description = pspike_jax.describe_model(name)
    assert description.kind == "latent" and all(field.meaning for field in description.fields)
    with pytest.raises(ValueError, match="does not stream"):
        model.initial_state(1)


@pytest.mark.parametrize("name", TASKS)
def test_a_training_step_is_finite_and_moves_every_parameter(name):
    model, task, batch = make(name)
    settings = TrainSettings(steps=4, batch_size=ROWS)
    state = create_state(model, task, settings, make_mesh(devices=jax.devices()[:1]))
    step = jax.jit(train_step)
    new, measured = step(step(state, batch)[0], batch)  # NPSEM's f moves once u is not 0
    assert {"loss", task.objective.merit[0]} <= set(measured)
    for (path, old), leaf in zip(
        jax.tree.leaves_with_path(state.params), jax.tree.leaves(new.params)
    ):
        where = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), where
        closed = "'new'" in where and "in_proj" not in where  # behind a gate that is still 0
        assert closed or np.any(leaf != old), where
