"""What a model of the common size remembers: it learns longer examples, until it fails."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.data import TASKS, Task, train_batch
from pspike_jax.models import create_model, describe_model
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.objectives import StepClassification, metrics
from pspike_jax.training import (
    OptimizerSettings, TrainSettings, TrainState, create_state, make_mesh, run_split, shard_batch
)
from pspike_jax.training.state import compile_train_step
from pspike_jax.training.workdir import source_commit

THRESHOLDS = {
    "copying": 0.9, "selective_copying": 0.9, "induction": 0.9, "parity": 0.9,
    "waiting_digits": 0.8,  # of 16 pixels each
}
TOKENS, CLASSES = 18, 10  # of the widest task: one program of each model serves all
BATCH, EVALUATED = 32, 128
RATE = 5e-3
FIELDS: dict[str, Any] = {
    "d_model": 32, "widths": (32, 32), "n_layers": 2, "d_state": 16, "causal": True,
    "dropout": 0.0, "dt_min": 0.01, "dt_max": 0.5,  # time constants of 2 to 100 steps
}
# Where the sizes of a default preset do not fit: two blocks in a state of 16, two heads in 32
# features, and so on.
OWN: dict[str, dict[str, Any]] = {
    "s5": {"blocks": 2},
    "s5rf": {"blocks": 2},
    "gla": {"d_mlp": 64, "heads": 2},
    "mamba2": {"head_features": 16},
    "pendulum": {"preset": "euler"},  # solved to rounding, an update takes seconds
    "psm": {"chunk": 8},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What rows must share to stand in one record.

    Attributes:
      steps: L, of the longest examples; a power of two, at least 16.
      level_steps: updates within which a length must be passed.
      every: updates from one validation to the next.
      seconds: of processor time within which a row ends; rows of a record may differ in it.
      seed: of the data, the parameters, the order and the noise.
    """

    steps: int = 64
    level_steps: int = 600
    every: int = 50
    seconds: float = 60.0
    seed: int = 0


def make_task(name: str, length: int, settings: Settings) -> Task:
    """Make a task whose examples have one length, as all programs take it.

    Args:
      name: a key of `THRESHOLDS`.
      length: steps of an example.
      settings: of the record.

    Returns:
      The task, padded to `settings.steps`, of TOKENS tokens and CLASSES classes.
    """
    sizes = {"num_train": 4096, "num_validation": 256, "num_test": 512}
    own = {
        "copying": {"symbols": 8, "count": 3, "delay": length - 6} | sizes,
        "selective_copying": {"symbols": 8, "count": 3, "delay": length - 6} | sizes,
        "induction": {"symbols": 8, "length": length} | sizes,
        "parity": {"length": length} | sizes,
        "waiting_digits": {"side": 4, "delay": length - 16},
    }[name]
    task = TASKS[name](**own, seed=settings.seed, steps=settings.steps)
    return dataclasses.replace(task, objective=StepClassification(CLASSES), vocab_size=TOKENS)


def lengths(name: str, settings: Settings) -> list[int]:
    """Return the lengths of examples that a task is tried at, doubled from each to the next."""
    first = 16 if name == "waiting_digits" else 8
    return [first << power for power in range((settings.steps // first).bit_length())]


def make_model(name: str, settings: Settings) -> SequenceModel:
    """Build a model of the common size.

    Args:
      name: in the zoo.
      settings: of the record.

    Returns:
      The model.

    Raises:
      ValueError: it does not answer at every step.
    """
    known = {field.name for field in describe_model(name).fields}
    fields = {key: value for key, value in FIELDS.items() if key in known} | OWN.get(name, {})
    if "l_max" in known:
        fields["l_max"] = settings.steps
    return create_model(name, num_outputs=CLASSES, vocab_size=TOKENS, pool="none", **fields)


class Learner:
    """A model that learns a task from one length of examples to the next.

    All tasks have the same shapes, so that its programs and its first weights serve all of them.

    Attributes:
      state: of training.
      updates: so far, over all lengths of a task.
    """

    def __init__(self, model: SequenceModel, settings: Settings):
        task = make_task("copying", settings.steps, settings)
        optimizer = OptimizerSettings(learning_rate=RATE, weight_decay=0.0, schedule="constant")
        steps = settings.level_steps * len(lengths("copying", settings))
        self._training = TrainSettings(
            steps=steps, batch_size=BATCH, seed=settings.seed, optimizer=optimizer
        )
        self._mesh = make_mesh(devices=jax.devices()[:1])
        self._first = create_state(model, task, self._training, self._mesh)
        self._advance = compile_train_step(self._first, self._mesh)
        self.forget()
        self.learn(task, 1)  # compiles, as the next line does
        self.measure(task, "validation")
        self.forget()

    def forget(self) -> None:
        """Go back to the first weights."""
        self.state: TrainState = jax.tree.map(jnp.copy, self._first)  # an update takes its buffers
        self.updates = 0

    def learn(self, task: Task, updates: int) -> None:
        """Make some updates."""
        for _ in range(updates):
            batch = train_batch(
                task.train, seed=self._training.seed, step=self.updates, batch_size=BATCH
            )
            self.state, _ = self._advance(self.state, shard_batch(batch, self._mesh))
            self.updates += 1
        jax.block_until_ready(self.state.step)

    def measure(self, task: Task, split: str) -> tuple[float, float | None]:
        """Return the share of questions that are answered right, and the firing rate if any."""
        measured, counts = run_split(
            self.state.model, self.state.variables, task.split(split), objective=task.objective,
            key=jax.random.key(self._training.seed), batch_size=EVALUATED, mesh=self._mesh,
        )
        sites = counts["sites"].values()
        chances = sum(np.sum(site["steps"] * site["neurons"]) for site in sites)
        rate = float(sum(np.sum(site["spikes"]) for site in sites) / chances) if chances else None
        return float(metrics.mean(measured["accuracy"])), rate


def climb(learner: Learner, name: str, settings: Settings) -> dict[str, Any]:
    """Train a model on longer and longer examples until it fails.

    Args:
      learner: of the model; it forgets what it has learnt before.
      name: of the task.
      settings: of the record.

    Returns:
      A row: "remembers", the longest length that was passed, or 0; "levels", of each length tried
      its accuracies and updates; "ended" by "steps" or "seconds", or None where all was passed;
      "seconds" of the processor; "firing_rate" on test examples of the last length, or None.
    """
    levels: list[dict[str, Any]] = []
    spent, ended, rate = 0.0, None, None
    learner.forget()
    for length in lengths(name, settings):
        task = make_task(name, length, settings)
        before, best, passed = learner.updates, 0.0, False
        while not passed and ended is None:
            start = time.process_time()
            learner.learn(task, settings.every)
            found, _ = learner.measure(task, "validation")
            spent += time.process_time() - start
            best, passed = max(best, found), found >= THRESHOLDS[name]
            if not passed and learner.updates - before >= settings.level_steps:
                ended = "steps"
            elif not passed and spent >= settings.seconds:
                ended = "seconds"
        test, rate = learner.measure(task, "test")
        levels.append({
            "length": length, "passed": passed, "updates": learner.updates - before,
            "validation": best, "test": test,
        })
        if ended is not None:
            break
    remembers = max((level["length"] for level in levels if level["passed"]), default=0)
    return {
        "remembers": remembers, "ended": ended, "levels": levels, "seconds": round(spent, 1),
        "firing_rate": rate, "commit": source_commit(),
    }
