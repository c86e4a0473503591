"""`fit`: train a model on a task, keep the best by validation, and resume exactly.

Batches and noise are functions of (seed, step), and a checkpoint holds everything else, so a run
that was killed and started again ends with the same bits as one that was not. Order of a step that
is logged: metrics line, then checkpoint, which keeps a copy of the lines that a restart goes back
to. A run that is told to stop saves before any of that, with the sums of the line to come.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
import tqdm
from etils import epath
from jax.sharding import Mesh

from pspike_jax.analysis.files import is_remote
from pspike_jax.data.batches import Task, num_rows
from pspike_jax.training.arguments import (
    check_model,
    check_rules,
    check_settings,
    check_task,
    check_variables,
)
from pspike_jax.training.checkpoints import LOG, Checkpoints
from pspike_jax.training.clock import Profile
from pspike_jax.training.creation import abstract_batch, materialize, state_shapes
from pspike_jax.training.distributed import (
    barrier,
    explain_lost_process,
    is_primary,
)
from pspike_jax.training.evaluation import MODES, eval_step, pass_shardings
from pspike_jax.training.files import MetricsLog, read_lines, run_folder
from pspike_jax.training.lock import owned
from pspike_jax.training.preemption import Preempted, StopSignal
from pspike_jax.training.run import Callback, Prefetch, Run, signed_merit, with_rates
from pspike_jax.training.settings import TrainSettings
from pspike_jax.training.sharding import (
    check_batch_size,
    check_length,
    describe_mesh,
    share_batches,
)
from pspike_jax.training.state import TrainState, compile_train_step
from pspike_jax.training.statistics import compile_statistics
from pspike_jax.training.workdir import Description, check_workdir, claim_workdir, describe


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
    optimizer: optax.GradientTransformation | None = None,
    frozen: Sequence[str] | None = None,
    variables: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Train a model; go on where a killed run of the same settings stopped.

    Args:
      model: a model of the zoo, or one with the same call.
      task: its train split is learnt, its validation split selects; its test split is not read.
      settings: everything that decides the run.
      workdir: folder for checkpoints and metrics, the same for all processes; may be in an object
        storage; None keeps them in a temporary one, which stays where the run is interrupted.
      config: what the settings were made from, written down beside them; or None.
      mesh: the devices; None takes all of them as data. XLA runs its CPU device on all cores, which
        was measured to be as fast as one device a core, or faster.
      progress: whether to show a progress bar.
      profile_steps: first and last step that JAX's profiler writes down in the workdir; or None.
      optimizer: an optax transformation in place of the AdamW of the settings; or None.
      frozen: groups of parameters ("dynamics", "readout", ...), paths or patterns of paths that
        stay as they are.
      variables: parameters and batch statistics to start from. What they lack is initialized: for
        a new head, leave out the old one.
      callbacks: each is called with every line of metrics, in process 0; see `training.writers`.

    Returns:
      The last state, the best variables, and the metrics.

    Raises:
      Preempted: told to stop by SIGTERM, the state is saved; it ends the program with status 143.
      KeyboardInterrupt: told to stop by Ctrl-C, the state is saved.
      TypeError, ValueError: task, model, settings or workdir do not fit each other.
      RuntimeError: another run owns the workdir.
      FloatingPointError: loss, a gradient or a parameter is not finite.
      OSError: a file could not be written.
    """
    check_rules(optimizer, callbacks)
    if variables is not None:
        check_variables(variables)
    mesh = _check(model, task, settings, mesh)
    with jax.set_mesh(mesh), contextlib.ExitStack() as stack:  # whatever the caller's mesh is
        abstract = state_shapes(model, task, settings, mesh, optimizer=optimizer, frozen=frozen)
        _rehearse(abstract, task, settings, mesh)
        own = {"frozen": frozen, "own_optimizer": optimizer is not None}
        description = describe(model, task, settings, config, **own)
        folder = stack.enter_context(_folder(workdir))
        profile = stack.enter_context(
            contextlib.closing(Profile(folder / "profile", profile_steps))
        )
        stack.enter_context(_claimed(folder, description))
        checkpoints = stack.enter_context(contextlib.closing(_checkpoints(folder, task, settings)))
        stack.enter_context(explain_lost_process())
        restored = checkpoints.restore_latest(abstract)
        if restored is None:
            checkpoints.prove()
            state, lines, sums = materialize(abstract, task, settings, variables), None, None
        else:
            state, lines, sums = restored
        stop = stack.enter_context(StopSignal())
        log = stack.enter_context(
            contextlib.closing(MetricsLog(folder / LOG, lines, writes=is_primary()))
        )
        bar = stack.enter_context(
            tqdm.tqdm(
                initial=int(state.step), total=settings.steps, unit="step",
                disable=not (progress and is_primary()),
            )
        )
        if not bar.disable:
            bar.write(describe_mesh(mesh, settings.batch_size))
        batches = stack.enter_context(
            Prefetch(task.train, settings, mesh, done=int(state.step))
        )
        merits = [] if lines is None else _merits(read_lines(lines), task)
        run = Run(
            task, settings, mesh, batches, checkpoints, log, bar, profile, stop, callbacks, merits
        )
        state = run.train(state, sums)
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
    optimizer: optax.GradientTransformation | None = None,
    frozen: Sequence[str] | None = None,
) -> FitResult:
    """Read what a run of `fit` with these arguments has left so far; nothing is written.

    Returns the newest state, the metrics up to it, and the best variables. Raises FileNotFoundError
    where the folder holds no run, or no whole checkpoint, and ValueError where it belongs to
    another run.
    """
    mesh = _check(model, task, settings, mesh)
    folder = run_folder(workdir)
    with jax.set_mesh(mesh):
        own = {"frozen": frozen, "own_optimizer": optimizer is not None}
        check_workdir(folder, describe(model, task, settings, config, **own))
        like = state_shapes(model, task, settings, mesh, optimizer=optimizer, frozen=frozen)
        with contextlib.closing(_checkpoints(folder, task, settings)) as checkpoints:
            best, latest = checkpoints.restore_best(like), checkpoints.restore_latest(like)
        history = read_lines(latest.log)
        state = with_rates(latest.state, settings, _merits(history, task))
    return FitResult(state, best.variables, int(best.step), history)


def _merits(lines: list[dict[str, Any]], task: Task) -> list[float]:
    """Return the merits of all validations, from the lines of metrics."""
    name = f"validation/{task.objective.merit[0]}"
    return [signed_merit(line[name], task.objective) for line in lines if name in line]


def _checkpoints(folder: epath.Path, task: Task, settings: TrainSettings) -> Checkpoints:
    return Checkpoints(
        folder / "checkpoints", keep=settings.keep, keep_best=settings.keep_best,
        merit=task.objective.merit,
    )


@contextlib.contextmanager
def _folder(workdir: str | os.PathLike | None) -> Iterator[epath.Path]:
    """Give the run's folder; a temporary one stays where the run was told to stop."""
    if workdir is not None:
        yield run_folder(workdir)
        return
    folder = tempfile.mkdtemp(prefix="pspike-run-")
    try:
        yield run_folder(folder)
    except (KeyboardInterrupt, Preempted):
        said = f"the run so far is in {folder}, where load(..., workdir=) reads it; "
        print(f"{said}workdir={folder!r} goes on", file=sys.stderr)
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _claimed(folder: epath.Path, description: Description) -> Iterator[None]:
    """Own the run's folder; where it is new, process 0 makes it and the others wait."""
    with contextlib.ExitStack() as stack:
        if is_primary():
            if not is_remote(folder):
                folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(owned(folder))
            claim_workdir(folder, description)
        barrier("workdir")
        check_workdir(folder, description)
        yield


def _rehearse(abstract: TrainState, task: Task, settings: TrainSettings, mesh: Mesh) -> None:
    """Trace all that will be computed, so that what cannot be fails before the first step."""
    leaves, structure = jax.tree.flatten(abstract)
    batches = [
        tuple(sorted(abstract_batch(task, settings, mesh, split=split).items()))
        for split in ("train", "validation")
    ]
    _rehearse_once(structure, tuple(leaves), *batches, mesh)


@functools.lru_cache(maxsize=16)
def _rehearse_once(structure: Any, leaves: tuple, train: tuple, validation: tuple, mesh: Mesh):
    state = structure.unflatten(leaves)
    jax.eval_shape(compile_train_step(state, mesh), state, dict(train))
    if state.batch_stats:
        jax.eval_shape(compile_statistics(state, mesh), state, dict(train), np.int32(0))
    stochastic = getattr(state.model, "stochastic", True)
    for mode in MODES if stochastic else ("sampled",):
        eval_step.eval_shape(
            state.model, state.variables, dict(validation), state.key, mesh=mesh,
            objective=state.objective, gathered=pass_shardings(state.variables), **MODES[mode],
        )


def _default_mesh(settings: TrainSettings) -> Mesh:
    return share_batches(settings.batch_size, settings.eval_batch_size)


def _check(
    model: nn.Module, task: Task, settings: TrainSettings, mesh: Mesh | None
) -> Mesh:
    """Refuse what cannot be trained; return the devices."""
    check_model(model)
    check_task(task)
    check_settings(settings)
    mesh = _default_mesh(settings) if mesh is None else mesh
    if task.validation is None:
        raise ValueError(
            f"task {task.name!r} has no validation split, which model selection needs; for example "
            "from_arrays(..., validation=0.1)"
        )
    for name in ("batch_size", "eval_batch_size"):
        check_batch_size(getattr(settings, name), mesh, name)
    for split in (task.train, task.validation):
        check_length(split, mesh)
    if settings.batch_size > num_rows(task.train):
        raise ValueError(
            f"batch_size is {settings.batch_size}, expected at most {num_rows(task.train)}, the "
            f"training examples of task {task.name!r}"
        )
    return mesh
