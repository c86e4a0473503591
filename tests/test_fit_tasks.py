"""`fit`, `evaluate` and `predict` on every kind of task that the data room makes."""

import jax
import numpy as np
import pytest
from tiny import one_device

import pspike_jax
from pspike_jax import objectives
from pspike_jax.data import Split, Task, pack
from pspike_jax.training import TrainSettings, evaluate, fit, predict

ROWS, LENGTH, TOKENS = 16, 6, 5
RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(ROWS, LENGTH, 2)).astype(np.float32)
WORDS = RNG.integers(0, TOKENS, (ROWS, LENGTH))
CLASSES = np.arange(ROWS) % 3
RAGGED = RNG.integers(1, LENGTH + 1, ROWS)
STEPS = RNG.integers(-1, 3, (ROWS, LENGTH))  # -1: not known


def task_of(objective, inputs, targets, *, lengths=RAGGED, dt=None, length=None):
    """Return a task of one split, packed into rows where their length is given."""
    split = Split(inputs, lengths, targets, dt)
    if length is not None:
        split = pack(split, length, per_step=objective.per_step)
    tokens = TOKENS if inputs.dtype.kind == "i" else None
    return Task("small", split, split, split, objective, tokens)


FULL = np.full(ROWS, LENGTH)
PAIRS = RNG.integers(0, TOKENS, (ROWS, 2, LENGTH))
TASKS = {
    "classification": ("s4d", task_of(objectives.Classification(3), REAL, CLASSES)),
    "step classification": ("lif_ssm", task_of(objectives.StepClassification(3), REAL, STEPS)),
    "regression": ("pspikessm", task_of(objectives.Regression(2), REAL, REAL[:, 0])),
    "step regression": ("s4d", task_of(objectives.StepRegression(2), REAL, REAL)),
    "forecast": ("s4d", task_of(objectives.Forecast(2, 2), REAL, None, lengths=FULL)),
    "next token": ("s4d", task_of(objectives.NextToken(TOKENS), WORDS, None, lengths=FULL)),
    "counts": (
        "silif", task_of(objectives.Counts(4), REAL, RNG.poisson(1.0, (ROWS, LENGTH, 4)))
    ),
    "packed": (None, task_of(objectives.Classification(3), REAL, CLASSES, length=9)),
    "packed steps": (None, task_of(objectives.StepClassification(3), WORDS, STEPS, length=9)),
    "documents": (
        "pspikessm",
        task_of(objectives.Classification(3), PAIRS, CLASSES, lengths=np.full((ROWS, 2), LENGTH)),
    ),
    "irregular": (
        None,
        task_of(
            objectives.Regression(1), REAL, REAL[:, 0, :1],
            dt=RNG.uniform(0.5, 2, (ROWS, LENGTH)).astype(np.float32),
        ),
    ),
}
SUPPORTS = {"packed": "resets", "packed steps": "resets", "irregular": "dt"}


@pytest.mark.parametrize("kind", TASKS)
def test_fit_evaluate_and_predict_take_every_kind_of_task(kind):
    name, task = TASKS[kind]
    name = name or pspike_jax.list_models(supports=SUPPORTS[kind])[0]
    model = pspike_jax.create_model(name, "tiny", **task.model_fields)
    settings = TrainSettings(
        steps=2, batch_size=4, eval_batch_size=8, log_every=1, eval_every=2, checkpoint_every=2
    )
    result = fit(model, task, settings, mesh=one_device(), progress=False)
    merit = task.objective.merit[0]
    assert np.isfinite(result.history[-1][f"validation/{merit}"])
    scores = evaluate(
        model, result.variables, task, key=jax.random.key(0), draws=2, batch_size=8,
        mesh=one_device(),
    )["sampled"]
    assert np.isfinite(scores["mean"])
    if kind == "packed":  # examples are counted, not rows
        assert scores["examples"] == ROWS
    if not kind.startswith("packed"):
        split = task.test
        outputs = predict(
            model, result.variables, split.inputs, lengths=split.lengths, dt=split.dt, batch_size=8
        )
        assert len(outputs) == ROWS and outputs.shape[-1] == task.objective.num_outputs
