"""Typed settings of a training run: what a config's `training` and `optimizer` sections become."""

import dataclasses
import numbers
from typing import Any

SCHEDULES = ("cosine", "constant", "plateau")


def _numbers(settings: Any, kind: type, least: float, *names: str) -> None:
    """Make fields Python numbers; refuse those that are of another kind, or too small.

    NumPy's numbers are taken, and whole numbers where floats are asked for; None where the field's
    default is None.
    """
    optional = {field.name for field in dataclasses.fields(settings) if field.default is None}
    wanted = numbers.Integral if kind is int else numbers.Real
    for name in names:
        value = getattr(settings, name)
        if value is None and name in optional:
            continue
        message = f"{name} is {value!r}, expected {kind.__name__} of at least {least}"
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise TypeError(message)
        if not value >= least:
            raise ValueError(message)
        whole = isinstance(value, numbers.Integral)
        object.__setattr__(settings, name, int(value) if whole else float(value))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW, its parameter groups and its schedule.

    Groups are what the model's parameters say of themselves (`nn.roles`). Weights decay, and C;
    poles, time constants, leaks, thresholds, step sizes, biases and norms never do.

    Attributes:
      learning_rate: peak rate of every group that has none of its own.
      dynamics_rate: peak rate of poles, leaks and time constants, P and B; None for
        `learning_rate`, as for the three that follow.
      step_size_rate: peak rate of the step size dt.
      readout_rate: peak rate of C.
      threshold_rate: peak rate of trained thresholds.
      weight_decay: decoupled decay of the groups "decay" and "readout".
      b1: decay of the mean of gradients, in [0, 1).
      b2: decay of the mean of squared gradients, in [0, 1).
      clip_norm: largest global norm of the gradient, or None.
      schedule: "cosine" falls to 0 at `decay_steps`; "constant"; "plateau" falls by
        `plateau_factor` when validation stops improving.
      warmup_steps: updates in which the rate rises linearly from 0 to its peak.
      decay_steps: updates, warm-up among them, after which a cosine is 0. None for those of the
        run. In a longer run the rate rises again, back to its peak at twice the way, and so on: the
        unclamped cosine of the S4 and P-SpikeSSM programs. Read by "cosine" alone.
      plateau_factor: in (0, 1); read by "plateau" alone.
      plateau_patience: validations in a row without a better merit before the rate falls; read
        by "plateau" alone.
    """

    learning_rate: float = 1e-2
    dynamics_rate: float | None = None
    step_size_rate: float | None = None
    readout_rate: float | None = None
    threshold_rate: float | None = None
    weight_decay: float = 0.01
    b1: float = 0.9
    b2: float = 0.999
    clip_norm: float | None = None
    schedule: str = "cosine"
    warmup_steps: int = 0
    decay_steps: int | None = None
    plateau_factor: float = 0.2
    plateau_patience: int = 20

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}, expected one of {SCHEDULES}")
        _numbers(self, float, 0, "learning_rate", "dynamics_rate", "step_size_rate")
        _numbers(self, float, 0, "readout_rate", "threshold_rate", "weight_decay")
        _numbers(self, float, 0, "b1", "b2", "plateau_factor", "clip_norm")
        _numbers(self, int, 0, "warmup_steps")
        _numbers(self, int, 1, "plateau_patience")
        _numbers(self, int, self.warmup_steps + 1, "decay_steps")
        for name in ("b1", "b2", "plateau_factor"):
            if not getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number in [0, 1)")
        if self.clip_norm == 0:
            raise ValueError(
                f"clip_norm is {self.clip_norm}, expected a positive number or None"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One training run.

    Attributes:
      steps: number of batches learnt from.
      batch_size: B of a training batch.
      seed: initial parameters, order of examples, noise; not negative.
      optimizer: AdamW and its schedule.
      accumulate: batches whose mean gradient makes one update.
      log_every: steps between lines of metrics; a line averages over them.
      eval_every: steps between validations, a multiple of `log_every`; the last step validates too.
        Each validation saves a checkpoint.
      checkpoint_every: steps between checkpoints, a multiple of `log_every`.
      keep: newest checkpoints that stay on disk.
      keep_best: best checkpoints by validation that stay besides them.
      early_stopping: validations in a row without a better merit after which the run ends, or None.
      eval_batch_size: B of an evaluation batch.
      validation_draws: noise draws that a validation averages over.
      statistics_batches: training batches over which batch statistics are measured afresh before a
        validation, see `training.statistics`; 0 validates with the running averages.
      firing_rate_weight: factor of the firing-rate penalty in the loss; 0 for none.
      firing_rate_target: firing rate above which the penalty acts, in [0, 1].
    """

    steps: int
    batch_size: int = 32
    seed: int = 0
    optimizer: OptimizerSettings = OptimizerSettings()
    accumulate: int = 1
    log_every: int = 10
    eval_every: int = 100
    checkpoint_every: int = 100
    keep: int = 2
    keep_best: int = 1
    early_stopping: int | None = None
    eval_batch_size: int = 128
    validation_draws: int = 1
    statistics_batches: int = 10
    firing_rate_weight: float = 0.0
    firing_rate_target: float = 0.0

    def __post_init__(self):
        if not isinstance(self.optimizer, OptimizerSettings):
            raise TypeError(
                f"optimizer is {self.optimizer!r}, expected OptimizerSettings(learning_rate=...); "
                "a transformation of optax goes to fit(..., optimizer=)"
            )
        _numbers(self, int, 1, "steps", "batch_size", "eval_batch_size", "validation_draws")
        _numbers(self, int, 1, "log_every", "eval_every", "checkpoint_every", "keep", "keep_best")
        _numbers(self, int, 1, "accumulate", "early_stopping")
        _numbers(self, int, 0, "seed", "statistics_batches")
        _numbers(self, float, 0, "firing_rate_weight", "firing_rate_target")
        if self.firing_rate_target > 1:
            raise ValueError(
                f"firing_rate_target is {self.firing_rate_target}, expected a rate in [0, 1]"
            )
        for name in ("eval_every", "checkpoint_every"):
            # A line averages since the line before it, so a restart must fall between two lines.
            if getattr(self, name) % self.log_every:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, expected a multiple of "
                    f"log_every = {self.log_every}"
                )
