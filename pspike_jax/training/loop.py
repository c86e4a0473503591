"""`fit`: train a model on a task, keep the best by validation, and resume exactly.

Batches and noise are functions of (seed, step), and a checkpoint holds everything else, so a run
that was killed and started again ends with the same bits as one that was not. Order of a step that
is logged: metrics line, then checkpoint; a restart cuts the lines after its checkpoint.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import tqdm
from jax.sharding import Mesh

from pspike_jax.data.batches import Task
from pspike_jax.training.checkpoints import Checkpoints
from pspike_jax.training.evaluation import average_draws, run_draws, run_split
from pspike_jax.training.feed import Feed
from pspike_jax.training.files import MetricsLog, read_lines
from pspike_jax.training.optimizers import observe_validation
from pspike_jax.training.settings import TrainSettings
from pspike_jax.training.sharding import check_batch_size, make_mesh
from pspike_jax.training.state import (
    TrainState,
    abstract_state,
    compile_train_step,
    materialize,
    seed_keys,
)
from pspike_jax.training.window import MetricsWindow, check_finite, scalars
from pspike_jax.training.workdir import check_workdir, claim_workdir, describe

SHOWN = ("loss", "accuracy", "firing_rate")


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What a training run leaves.

    Attributes:
      state: the state after the last step.
      variables: what `model.apply` takes, of the best step by validation.
      best_step: that step.
      history: the lines of metrics, dicts in order of "step".
    """

    state: TrainState
    variables: dict[str, Any]
    best_step: int
    history: list[dict[str, Any]]


def fit(
    model: nn.Module,
    task: Task,
    settings: TrainSettings,
    *,
    workdir: str | os.PathLike | None = None,
    config: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    progress: bool = True,
) -> FitResult:
    """Train a model; go on where a killed run of the same settings stopped.

    Args:
      model: a model of the zoo, or one with the same call.
      task: its train split is learnt, its validation split selects; its test split is not read.
      settings: everything that decides the run.
      workdir: folder for checkpoints and metrics; None keeps them in a temporary one.
      config: what the settings were made from, written down beside them; or None.
      mesh: the devices; None takes all of them as data.
      progress: whether to show a progress bar.

    Returns:
      The last state, the best variables, and the metrics.

    Raises:
      ValueError: task, model, settings or workdir do not fit each other.
      FloatingPointError: loss, a gradient or a parameter is not finite.
      OSError: a file could not be written.
    """
    mesh = make_mesh() if mesh is None else mesh
    _check(task, settings, mesh)
    abstract = abstract_state(model, task, settings, mesh)
    with contextlib.ExitStack() as stack:
        if workdir is None:
            workdir = stack.enter_context(tempfile.TemporaryDirectory())
        folder = pathlib.Path(workdir).absolute()
        claim_workdir(folder, describe(model, task, settings, config))
        checkpoints = Checkpoints(folder / "checkpoints", settings.keep, settings.keep_best)
        state = checkpoints.restore_latest(abstract) or materialize(abstract, task)
        start = int(state.step)
        log = stack.enter_context(
            contextlib.closing(MetricsLog(folder / "metrics.jsonl", start))
        )
        bar = stack.enter_context(
            tqdm.tqdm(initial=start, total=settings.steps, unit="step", disable=not progress)
        )
        feed = stack.enter_context(Feed(task.train, settings, mesh, done=start))
        state = _train(state, task, mesh, feed, checkpoints, log, bar)
        best = checkpoints.restore_best(state)
        return FitResult(state, best.variables, int(best.step), log.lines)


def load(
    model: nn.Module,
    task: Task,
    settings: TrainSettings,
    *,
    workdir: str | os.PathLike,
    config: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
) -> FitResult:
    """Read what a run of `fit` has left so far; nothing is written.

    Args:
      model: as given to `fit`.
      task: as given to `fit`.
      settings: as given to `fit`.
      workdir: as given to `fit`.
      config: as given to `fit`.
      mesh: the devices; None takes all of them as data.

    Returns:
      The newest state, the best variables, and the metrics.

    Raises:
      FileNotFoundError: the folder holds no run, or no whole checkpoint.
      ValueError: the folder belongs to another run.
    """
    mesh = make_mesh() if mesh is None else mesh
    _check(task, settings, mesh)
    folder = pathlib.Path(workdir).absolute()
    check_workdir(folder, describe(model, task, settings, config))
    checkpoints = Checkpoints(folder / "checkpoints", settings.keep, settings.keep_best)
    like = abstract_state(model, task, settings, mesh)
    best, state = checkpoints.restore_best(like), checkpoints.restore_latest(like)
    lines = read_lines(folder / "metrics.jsonl")
    return FitResult(state, best.variables, int(best.step), lines)


def _check(task: Task, settings: TrainSettings, mesh: Mesh) -> None:
    if task.validation is None:
        raise ValueError(
            f"task {task.name!r} has no validation split, which model selection needs; for example "
            "from_arrays(..., validation=0.1)"
        )
    for name in ("batch_size", "eval_batch_size"):
        check_batch_size(getattr(settings, name), mesh, name)
    if settings.batch_size > len(task.train.labels):
        raise ValueError(
            f"batch_size is {settings.batch_size}, expected at most {len(task.train.labels)}, the "
            f"training examples of task {task.name!r}"
        )


def _train(
    state: TrainState,
    task: Task,
    mesh: Mesh,
    feed: Feed,
    checkpoints: Checkpoints,
    log: MetricsLog,
    bar: tqdm.tqdm,
) -> TrainState:
    settings = state.settings
    advance = compile_train_step(state, mesh)
    window = MetricsWindow(state.params, settings)
    for step in range(int(state.step) + 1, settings.steps + 1):
        state, measured = advance(state, feed.next())
        bar.update()
        line = window.push(step, measured)
        feed.end_step()
        if line:
            _report(line, feed, log, bar)
        validates = step % settings.eval_every == 0 or step == settings.steps
        if validates or step % settings.checkpoint_every == 0:
            line = window.settle()
            feed.end_step()
            check_finite(state, step)
            scores = None
            if validates:
                state, scores = _validate(state, task, mesh, step)
                line |= {f"validation/{name}": value for name, value in scores.items()}
            _report(line, feed, log, bar)
            checkpoints.save(state, scores)
    return state


def _report(line: dict[str, Any], feed: Feed, log: MetricsLog, bar: tqdm.tqdm) -> None:
    log.write(line | {"time/waiting_for_data": feed.take_waiting_share()})
    shown = {name: line[f"train/{name}"] for name in SHOWN if f"train/{name}" in line}
    if "validation/accuracy" in line and not bar.disable:
        bar.write(f"step {line['step']}: validation accuracy {line['validation/accuracy']:.4f}")
    bar.set_postfix(shown, refresh=False)


def _validate(
    state: TrainState, task: Task, mesh: Mesh, step: int
) -> tuple[TrainState, dict[str, float]]:
    """Return the validation metrics, and the state with its plateau schedule told of them."""
    settings = state.settings
    run = functools.partial(
        run_split,
        state.model,
        state.variables,
        task.validation,
        batch_size=settings.eval_batch_size,
        mesh=mesh,
    )
    key = jax.random.fold_in(seed_keys(settings.seed)[2], step)
    scores = scalars(average_draws(run_draws(run, key, settings.validation_draws)))
    if not np.isfinite(scores.get("loss", np.nan)):
        raise FloatingPointError(f"step {step}: the validation loss is not finite")
    if settings.optimizer.schedule == "plateau":
        observe = jax.jit(
            functools.partial(observe_validation, settings=settings.optimizer),
            out_shardings=jax.tree.map(lambda leaf: leaf.sharding, state.opt_state),
        )
        state = state.replace(opt_state=observe(state.opt_state, scores["accuracy"]))
    return state, scores
