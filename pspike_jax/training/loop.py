"""`fit`: train a model on a task, keep the best by validation, and resume exactly.

Batches and noise are functions of (seed, step), and a checkpoint holds everything else, so a run
that was killed and started again ends with the same bits as one that was not. Order of a step that
is logged: metrics line, then checkpoint, which keeps a copy of the lines that a restart goes back
to. A run that is told to stop saves before any of that, with the sums of the line to come.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import tqdm
from etils import epath
from jax.sharding import Mesh

from pspike_jax.data.batches import Task
from pspike_jax.training.checkpoints import LOG, Checkpoints
from pspike_jax.training.clock import Profile
from pspike_jax.training.distributed import explain_lost_process, is_primary, meet
from pspike_jax.training.feed import Feed
from pspike_jax.training.files import MetricsLog, read_lines, run_folder
from pspike_jax.training.preemption import StopSignal
from pspike_jax.training.run import Run
from pspike_jax.training.settings import TrainSettings
from pspike_jax.training.sharding import check_batch_size, check_length, make_mesh
from pspike_jax.training.state import TrainState, abstract_state, materialize
from pspike_jax.training.workdir import check_workdir, claim_workdir, describe


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
    profile_steps: tuple[int, int] | None = None,
) -> FitResult:
    """Train a model; go on where a killed run of the same settings stopped.

    Args:
      model: a model of the zoo, or one with the same call.
      task: its train split is learnt, its validation split selects; its test split is not read.
      settings: everything that decides the run.
      workdir: folder for checkpoints and metrics, the same for all processes; may be in an object
        storage; None keeps them in a temporary one.
      config: what the settings were made from, written down beside them; or None.
      mesh: the devices; None takes all of them as data.
      progress: whether to show a progress bar.
      profile_steps: first and last step that JAX's profiler writes down in the workdir; or None.

    Returns:
      The last state, the best variables, and the metrics.

    Raises:
      Preempted: told to stop by SIGTERM, the state is saved; it ends the program with status 143.
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
        folder = _claim(workdir, describe(model, task, settings, config))
        profile = stack.enter_context(
            contextlib.closing(Profile(folder / "profile", profile_steps))
        )
        checkpoints = stack.enter_context(contextlib.closing(_checkpoints(folder, settings)))
        stack.enter_context(explain_lost_process())
        stop = stack.enter_context(StopSignal())
        restored = checkpoints.restore_latest(abstract)
        state, lines, total = restored or (materialize(abstract, task), None, None)
        start = int(state.step)
        log = stack.enter_context(
            contextlib.closing(MetricsLog(folder / LOG, lines, writes=is_primary()))
        )
        bar = stack.enter_context(
            tqdm.tqdm(
                initial=start, total=settings.steps, unit="step",
                disable=not (progress and is_primary()),
            )
        )
        feed = stack.enter_context(Feed(task.train, settings, mesh, done=start))
        run = Run(task, mesh, feed, checkpoints, log, bar, profile, stop)
        state = run.train(state, total)
        best = checkpoints.restore_best(state)
        return FitResult(state, best.variables, int(best.step), read_lines(folder / LOG))


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
      The newest state, the metrics up to it, and the best variables.

    Raises:
      FileNotFoundError: the folder holds no run, or no whole checkpoint.
      ValueError: the folder belongs to another run.
    """
    mesh = make_mesh() if mesh is None else mesh
    _check(task, settings, mesh)
    folder = run_folder(workdir)
    check_workdir(folder, describe(model, task, settings, config))
    like = abstract_state(model, task, settings, mesh)
    with contextlib.closing(_checkpoints(folder, settings)) as checkpoints:
        best, latest = checkpoints.restore_best(like), checkpoints.restore_latest(like)
    return FitResult(latest.state, best.variables, int(best.step), read_lines(latest.log))


def _checkpoints(folder: epath.Path, settings: TrainSettings) -> Checkpoints:
    return Checkpoints(
        folder / "checkpoints", keep=settings.keep, keep_best=settings.keep_best
    )


def _claim(workdir: str | os.PathLike, description: Mapping[str, Any]) -> epath.Path:
    """Return the run's folder; where it is new, process 0 makes it and the others wait."""
    folder = run_folder(workdir)
    if is_primary():
        claim_workdir(folder, description)
    meet("workdir")
    check_workdir(folder, description)
    return folder


def _check(task: Task, settings: TrainSettings, mesh: Mesh) -> None:
    if task.validation is None:
        raise ValueError(
            f"task {task.name!r} has no validation split, which model selection needs; for example "
            "from_arrays(..., validation=0.1)"
        )
    for name in ("batch_size", "eval_batch_size"):
        check_batch_size(getattr(settings, name), mesh, name)
    for split in (task.train, task.validation):
        check_length(split, mesh)
    if settings.batch_size > len(task.train.labels):
        raise ValueError(
            f"batch_size is {settings.batch_size}, expected at most {len(task.train.labels)}, the "
            f"training examples of task {task.name!r}"
        )
