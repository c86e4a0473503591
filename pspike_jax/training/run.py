"""The steps of a run: the prefetch of batches, and metrics, validation, checkpoints, stopping."""

import collections
import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import tqdm
from jax.sharding import Mesh

from pspike_jax.data.batches import Task, train_batch
from pspike_jax.data.split import Split
from pspike_jax.objectives import metrics
from pspike_jax.training.accumulator import MetricsAccumulator, check_finite, scalars
from pspike_jax.training.checkpoints import Checkpoints
from pspike_jax.training.clock import Clock, Profile
from pspike_jax.training.creation import run_rates, seed_keys
from pspike_jax.training.distributed import is_primary
from pspike_jax.training.evaluation import average_draws, run_draws, run_split
from pspike_jax.training.files import MetricsLog
from pspike_jax.training.optimizers import plateau_scale, validations_since_best
from pspike_jax.training.preemption import Preempted, StopSignal
from pspike_jax.training.settings import TrainSettings
from pspike_jax.training.sharding import local_rows, shard_batch
from pspike_jax.training.state import TrainState, compile_train_step
from pspike_jax.training.statistics import measure_statistics

Callback = Callable[[dict[str, Any]], None]
AHEAD = 2  # batches that wait on the devices, or are being made


class Prefetch:
    """The batches of a run in order, made by a thread that ends with the context.

    Each process reads the rows it holds.
    """

    def __init__(self, split: Split, settings: TrainSettings, mesh: Mesh, *, done: int):
        """Begin to make the batches that follow `done` steps."""
        self._split, self._settings, self._mesh = split, settings, mesh
        self._part = local_rows(settings.batch_size, mesh)
        self._asked = done
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._coming = collections.deque()
        for _ in range(AHEAD):
            self._ask()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_) -> None:
        self._thread.shutdown(cancel_futures=True)

    def next(self) -> dict[str, jax.Array]:
        """Return the batch of the next step, on the devices; IndexError where there is none."""
        batch = self._coming.popleft().result()
        self._ask()
        return batch

    def _ask(self) -> None:
        if self._asked < self._settings.steps:
            self._coming.append(self._thread.submit(self._make, self._asked))
            self._asked += 1

    def _make(self, step: int) -> dict[str, jax.Array]:
        batch = train_batch(
            self._split,
            seed=self._settings.seed,
            step=step,
            batch_size=self._settings.batch_size,
            part=self._part,
        )
        return shard_batch(batch, self._mesh)


class _ToldToStop(Exception):
    """Raised between two batches of a validation."""


@dataclasses.dataclass
class Run:
    """What the steps of one run use besides its state.

    `batches` are those that are left, `callbacks` get each line of metrics in process 0, `merits`
    are those of all validations so far, higher is better.
    """

    task: Task
    settings: TrainSettings
    mesh: Mesh
    batches: Prefetch
    checkpoints: Checkpoints
    log: MetricsLog
    bar: tqdm.tqdm
    profile: Profile
    stop: StopSignal
    callbacks: Sequence[Callback]
    merits: list[float]
    clock: Clock = dataclasses.field(default_factory=Clock)

    def train(self, state: TrainState, sums: metrics.Metrics | None) -> TrainState:
        """Do the steps that are left; return the last state, with all checkpoints written.

        The state is donated; `sums` since the last line are those of a state saved between a step
        and what follows it. Raises what `fit` says.
        """
        state = with_rates(state, self.settings, self.merits)
        advance = compile_train_step(state, self.mesh)
        accumulator = MetricsAccumulator(state.params, self.settings, sums)
        start = int(state.step)
        if sums is not None:
            state = self._follow(state, start, accumulator)
        for step in range(start + 1, self.settings.steps + 1):
            if self._ends_early():
                break
            self.profile.before(step)
            with self.clock.part("data"):
                batch = self.batches.next()
            with self.clock.part("compute"):
                state, measured = advance(state, batch)
                line = accumulator.push(step, measured)
            self.profile.after(step, state)
            self.bar.update()
            self.clock.end_step()
            self._report(line)
            self.checkpoints.check()
            state = self._follow(state, step, accumulator)
        self.checkpoints.wait()
        return state

    def _ends_early(self) -> bool:
        patience = self.settings.early_stopping
        return patience is not None and validations_since_best(self.merits) >= patience

    def _follow(self, state: TrainState, step: int, accumulator: MetricsAccumulator) -> TrainState:
        """Do what is due after a step."""
        if self.stop.requested():
            self._save_and_stop(state, step, accumulator)
        settings = self.settings
        validates = step % settings.eval_every == 0 or step == settings.steps
        if not validates and step % settings.checkpoint_every:
            return state
        with self.clock.part("compute"):
            accumulator.total()
            check_finite(state, step)
        scores = None
        if validates:
            try:
                measured = measure_statistics(
                    state, self.task.train, settings, self.mesh, self._watch
                )
                scores = self._validate(measured, step)
            except _ToldToStop:
                self._save_and_stop(state, step, accumulator)
            state = with_rates(measured, settings, self.merits)
        line = accumulator.close(step)
        for name, value in (scores or {}).items():
            line[f"validation/{name}"] = value
        self._report(line)
        self.log.flush()
        with self.clock.part("save"), self.stop.shielded():
            self.checkpoints.save(state, scores, self.log.text())
        return state

    def _save_and_stop(
        self, state: TrainState, step: int, accumulator: MetricsAccumulator
    ) -> None:
        total = accumulator.total()
        check_finite(state, step)
        self.log.flush()
        with self.stop.shielded():
            self.checkpoints.save(state, None, self.log.text(), total)
            self.checkpoints.wait()
        stopped = Preempted(step)
        if self.stop.interrupted:
            raise KeyboardInterrupt(str(stopped))
        if not self.bar.disable:  # a program that ends by a number says nothing by itself
            self.bar.write(str(stopped))
        raise stopped

    def _report(self, line: dict[str, Any] | None) -> None:
        if line is None:
            return
        line = line | self.clock.take()
        self.log.write(line)
        merit = self.task.objective.merit[0]
        if f"validation/{merit}" in line and not self.bar.disable:
            value = line[f"validation/{merit}"]
            self.bar.write(f"step {line['step']}: validation {merit} {value:.4g}")
        shown = dict.fromkeys(("loss", merit, "firing_rate"))
        shown = {name: line[f"train/{name}"] for name in shown if f"train/{name}" in line}
        self.bar.set_postfix(shown, refresh=False)
        if is_primary():
            for callback in self.callbacks:
                callback(dict(line))

    def _watch(self) -> None:
        if self.stop.requested():
            raise _ToldToStop

    def _validate(self, state: TrainState, step: int) -> dict[str, float]:
        """Return the validation metrics, and remember the merit."""
        settings, objective = self.settings, self.task.objective
        run = functools.partial(
            run_split,
            state.model,
            state.variables,
            self.task.validation,
            objective=objective,
            batch_size=settings.eval_batch_size,
            mesh=self.mesh,
            before_batch=self._watch,
        )
        key = jax.random.fold_in(seed_keys(settings.seed)[2], step)
        draws = settings.validation_draws if getattr(state.model, "stochastic", True) else 1
        scores = scalars(average_draws(run_draws(run, key, draws)))
        name, _ = objective.merit
        for needed in ("loss", name):
            # An objective of the caller's may measure no loss.
            if not np.isfinite(scores.get(needed, 0.0 if needed != name else np.nan)):
                raise FloatingPointError(f"step {step}: the validation {needed} is not finite")
        self.merits.append(signed_merit(scores[name], objective))
        return scores


def with_rates(state: TrainState, settings: TrainSettings, merits: list[float]) -> TrainState:
    """Return a state, whose rates may be shapes, with those that settings and merits ask for."""
    rates = run_rates(settings, plateau_scale(merits, settings.optimizer))
    place = lambda rate, leaf: jax.device_put(rate, leaf.sharding)
    return state.replace(rates=jax.tree.map(place, rates, state.rates))


def signed_merit(value: float, objective: Any) -> float:
    """Return a merit so that higher is better."""
    return value if objective.merit[1] == "max" else -value
