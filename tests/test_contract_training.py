"""What every model of the zoo keeps in training: a step for each objective, groups, shardings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax import objectives
from pspike_jax.data import Split, Task
from pspike_jax.training import TrainSettings, create_state, make_mesh, train_step
from pspike_jax.training.creation import state_shapes
from pspike_jax.training.state import apply_in_training

ROWS, LENGTH, FEATURES, TOKENS = 8, 6, 2, 5
every_model = pytest.mark.parametrize("name", pspike_jax.list_models(kind="classifier"))
RNG = np.random.default_rng(0)
REAL = (3 * RNG.normal(size=(ROWS, LENGTH, FEATURES)) + 1).astype(np.float32)
# {objective: (objective, targets, whether inputs are tokens)}
OBJECTIVES = {
    "classification": (objectives.Classification(3), np.arange(ROWS) % 3, False),
    "step classification": (
        objectives.StepClassification(3),
        RNG.integers(0, 3, (ROWS, LENGTH)),
        False,
    ),
    "regression": (objectives.Regression(2), RNG.normal(size=(ROWS, 2)).astype(np.float32), False),
    "step regression": (
        objectives.StepRegression(2),
        RNG.normal(size=(ROWS, LENGTH, 2)).astype(np.float32),
        False,
    ),
    "forecast": (objectives.Forecast(2, FEATURES), None, False),
    "next token": (objectives.NextToken(TOKENS), None, True),
    "counts": (objectives.Counts(4), RNG.poisson(1.0, (ROWS, LENGTH, 4)), False),
}


def make_task(objective):
    objective, targets, tokens = OBJECTIVES[objective]
    inputs = RNG.integers(0, TOKENS, (ROWS, LENGTH)).astype(np.int32) if tokens else REAL
    split = Split(inputs, np.full(ROWS, LENGTH, np.int32), targets)
    return Task("small", split, split, None, objective, TOKENS if tokens else None)


def make_batch(task):
    batch = {"inputs": task.train.inputs, "lengths": task.train.lengths}
    return batch if task.train.targets is None else batch | {"targets": task.train.targets}


@functools.cache
def start(name):
    """Return a model of classification, its task, and a state that the tests share."""
    task = make_task("classification")
    model = pspike_jax.create_model(name, "tiny", **task.model_fields)
    settings = TrainSettings(steps=60, batch_size=ROWS)
    return model, task, create_state(model, task, settings, make_mesh(devices=jax.devices()[:1]))


def trace(model, task):
    """Trace a training step of one output a step; else what the loss needs, the pass forward."""
    settings = TrainSettings(steps=4, batch_size=ROWS)
    state = state_shapes(model, task, settings, make_mesh(devices=jax.devices()[:1]))
    batch = make_batch(task)
    if task.objective.per_step and task.vocab_size is None:
        new, measured = jax.eval_shape(train_step, state, batch)
        types = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
        assert types(new.params) == types(state.params)
        assert task.objective.merit[0] in measured and "loss" in measured
        return
    run = functools.partial(apply_in_training, model)
    (outputs, _), _ = jax.eval_shape(run, state.variables, batch, jax.random.key(0))
    steps = (LENGTH,) if task.objective.per_step else ()
    assert outputs.shape == (ROWS, *steps, task.objective.num_outputs)


@every_model
def test_each_objective_that_fits_makes_a_training_step(name):
    """Objectives that ask for the same inputs and outputs are traced once, then asked alone.

    The step of a classification is run by the next test.
    """
    made, traced = 0, {(None, False)}
    for objective in OBJECTIVES:
        task = make_task(objective)
        try:
            model = pspike_jax.create_model(name, "tiny", **task.model_fields)
        except ValueError as error:  # a pool or an input that the family does not have
            assert any(field in str(error) for field in task.model_fields), error
            continue
        kind = task.vocab_size, task.objective.per_step
        if kind not in traced:
            trace(model, task)
            traced.add(kind)
        steps = (LENGTH,) if task.objective.per_step else ()
        outputs = jax.ShapeDtypeStruct((ROWS, *steps, task.objective.num_outputs), np.float32)
        losses, weights, _ = jax.eval_shape(task.objective, outputs, make_batch(task))
        assert losses.shape == weights.shape, objective
        made += 1
    assert made >= 2


@every_model
def test_a_training_step_lowers_the_loss_of_its_batch(name):
    _, task, state = start(name)
    step, losses = jax.jit(train_step), []
    for _ in range(60):
        state, measured = step(state, make_batch(task))
        losses.append(float(measured["loss"]["sum"] / measured["loss"]["count"]))
    assert np.isfinite(losses).all()
    # Eight examples, learnt by heart: noise of spikes and dropout included.
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


@every_model
def test_no_time_constant_threshold_or_step_size_decays(name):
    """With gradients of zero AdamW moves what decays, and nothing else."""
    model, _, state = start(name)
    shapes = jax.eval_shape(
        model.init, {"params": jax.random.key(0), "spikes": jax.random.key(0)}, REAL[:1]
    )

    @jax.jit
    def update(state):
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        return state.optimizer.update(zeros, state.opt_state, state.params, rates=state.rates)[0]

    groups = pspike_jax.nn.roles.groups(shapes["params"])
    for (path, change), group in zip(
        jax.tree.leaves_with_path(update(state)), jax.tree.leaves(groups), strict=True
    ):
        moved = bool(np.any(change))
        assert not moved or group in ("decay", "readout"), jax.tree_util.keystr(path)
