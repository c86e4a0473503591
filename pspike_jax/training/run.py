"""The steps of a run, and what follows each of them: metrics, validation, checkpoints, stopping."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import tqdm
from jax.sharding import Mesh

from pspike_jax.data.batches import Task
from pspike_jax.training import metrics
from pspike_jax.training.checkpoints import Checkpoints
from pspike_jax.training.clock import Clock, Profile
from pspike_jax.training.evaluation import average_draws, run_draws, run_split
from pspike_jax.training.feed import Feed
from pspike_jax.training.files import MetricsLog
from pspike_jax.training.optimizers import observe_validation
from pspike_jax.training.preemption import Preempted, StopSignal
from pspike_jax.training.state import TrainState, compile_train_step, seed_keys
from pspike_jax.training.window import MetricsWindow, check_finite, scalars

SHOWN = ("loss", "accuracy", "firing_rate")


class _ToldToStop(Exception):
    """Raised between two batches of a validation."""


@dataclasses.dataclass
class Run:
    """What the steps of one run use besides its state.

    Attributes:
      task: the data.
      mesh: the devices.
      feed: the batches that are left.
      checkpoints: where states are kept.
      log: where metrics are kept.
      bar: shows progress.
      profile: of chosen steps.
      stop: whether the run was told to stop.
    """

    task: Task
    mesh: Mesh
    feed: Feed
    checkpoints: Checkpoints
    log: MetricsLog
    bar: tqdm.tqdm
    profile: Profile
    stop: StopSignal
    clock: Clock = dataclasses.field(default_factory=Clock)

    def train(self, state: TrainState, total: metrics.Metrics | None) -> TrainState:
        """Do the steps that are left.

        Args:
          state: to go on from; donated.
          total: sums since the last line where the state was saved between a step and what follows
            it, else None.

        Returns:
          The state after the last step; all checkpoints are written.

        Raises:
          Preempted, FloatingPointError, OSError: as `fit` says.
        """
        settings = state.settings
        advance = compile_train_step(state, self.mesh)
        window = MetricsWindow(state.params, settings, total)
        start = int(state.step)
        if total is not None:
            state = self._follow(state, start, window)
        for step in range(start + 1, settings.steps + 1):
            self.profile.before(step)
            with self.clock.part("data"):
                batch = self.feed.next()
            with self.clock.part("compute"):
                state, measured = advance(state, batch)
                line = window.push(step, measured)
            self.profile.after(step, state)
            self.bar.update()
            self.clock.end_step()
            self._report(line)
            self.checkpoints.check()
            state = self._follow(state, step, window)
        self.checkpoints.wait()
        return state

    def _follow(self, state: TrainState, step: int, window: MetricsWindow) -> TrainState:
        """Do what is due after a step."""
        if self.stop.requested():
            self._save_and_stop(state, step, window)
        settings = state.settings
        validates = step % settings.eval_every == 0 or step == settings.steps
        if not validates and step % settings.checkpoint_every:
            return state
        with self.clock.part("compute"):
            window.total()
            check_finite(state, step)
        scores = None
        if validates:
            try:
                state, scores = self._validate(state, step)
            except _ToldToStop:
                self._save_and_stop(state, step, window)
        line = window.close(step)
        for name, value in (scores or {}).items():
            line[f"validation/{name}"] = value
        self._report(line)
        self.log.flush()
        with self.clock.part("save"):
            self.checkpoints.save(state, scores, self.log.text())
        return state

    def _save_and_stop(self, state: TrainState, step: int, window: MetricsWindow) -> None:
        total = window.total()
        check_finite(state, step)
        self.log.flush()
        self.checkpoints.save(state, None, self.log.text(), total)
        self.checkpoints.wait()
        stopped = Preempted(step)
        if not self.bar.disable:  # a program that ends by a number says nothing by itself
            self.bar.write(str(stopped))
        raise stopped

    def _report(self, line: dict[str, Any] | None) -> None:
        if line is None:
            return
        self.log.write(line | self.clock.take())
        shown = {name: line[f"train/{name}"] for name in SHOWN if f"train/{name}" in line}
        if "validation/accuracy" in line and not self.bar.disable:
            accuracy = line["validation/accuracy"]
            self.bar.write(f"step {line['step']}: validation accuracy {accuracy:.4f}")
        self.bar.set_postfix(shown, refresh=False)

    def _watch(self) -> None:
        if self.stop.requested():
            raise _ToldToStop

    def _validate(self, state: TrainState, step: int) -> tuple[TrainState, dict[str, float]]:
        """Return the validation metrics, and the state with its plateau schedule told of them."""
        settings = state.settings
        run = functools.partial(
            run_split,
            state.model,
            state.variables,
            self.task.validation,
            batch_size=settings.eval_batch_size,
            mesh=self.mesh,
            before_batch=self._watch,
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
