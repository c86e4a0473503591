"""Typed settings of a training run: what a config's `training` and `optimizer` sections become."""

import dataclasses

SCHEDULES = ("cosine", "constant", "plateau")


def _check(settings: object, kind: type, least: int, *names: str) -> None:
    """Refuse fields that are not numbers of a kind (a float may be an int), or are too small."""
    for name in names:
        value = getattr(settings, name)
        wanted = f"{name} is {value!r}, expected {kind.__name__} of at least {least}"
        if isinstance(value, bool) or not isinstance(value, (kind, int)):
            raise TypeError(wanted)
        if not value >= least:
            raise ValueError(wanted)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW, its parameter groups and its schedule.

    Attributes:
      learning_rate: peak rate of everything but the dynamics.
      dynamics_rate: peak rate of A, P and B.
      step_size_rate: peak rate of the step size dt.
      readout_rate: peak rate of C, which decays like the rest; None for `learning_rate`.
      weight_decay: decoupled decay of the group "decay"; the other groups have none.
      b1: decay of the mean of gradients, in [0, 1).
      b2: decay of the mean of squared gradients, in [0, 1).
      clip_norm: largest global norm of the gradient, or None.
      schedule: "cosine" falls to 0 at `decay_steps`; "constant"; "plateau" falls by
        `plateau_factor` when validation stops improving.
      warmup_steps: steps in which the rate rises linearly from 0 to its peak.
      decay_steps: steps, warm-up among them, after which a cosine is 0. None for those of the run.
        In a longer run the rate rises again, back to its peak at twice the way, and so on: the
        unclamped cosine of the S4 and P-SpikeSSM programs. Read by "cosine" alone.
      plateau_factor: in (0, 1); read by "plateau" alone.
      plateau_patience: validations in a row without a better accuracy before the rate falls; read
        by "plateau" alone.
    """

    learning_rate: float = 1e-3
    dynamics_rate: float = 1e-3
    step_size_rate: float = 1e-3
    readout_rate: float | None = None
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
        _check(self, float, 0, "learning_rate", "dynamics_rate", "step_size_rate", "weight_decay")
        _check(self, float, 0, "b1", "b2", "plateau_factor")
        _check(self, int, 0, "warmup_steps")
        _check(self, int, 1, "plateau_patience")
        if self.readout_rate is not None:
            _check(self, float, 0, "readout_rate")
        if self.decay_steps is not None:
            _check(self, int, self.warmup_steps + 1, "decay_steps")
        for name in ("b1", "b2", "plateau_factor"):
            if not getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number in [0, 1)")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm is {self.clip_norm}, expected a positive number or None")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One training run.

    Attributes:
      steps: number of updates.
      batch_size: B of a training batch.
      seed: initial parameters, order of examples, noise; not negative.
      optimizer: AdamW and its schedule.
      log_every: steps between lines of metrics; a line averages over them.
      eval_every: steps between validations, a multiple of `log_every`; the last step validates too.
        Each validation saves a checkpoint.
      checkpoint_every: steps between checkpoints, a multiple of `log_every`.
      keep: newest checkpoints that stay on disk.
      keep_best: best checkpoints by validation that stay besides them.
      eval_batch_size: B of an evaluation batch.
      validation_draws: noise draws that a validation averages over.
      firing_rate_weight: factor of the firing-rate penalty in the loss; 0 for none.
      firing_rate_target: firing rate above which the penalty acts, in [0, 1].
    """

    steps: int
    batch_size: int = 32
    seed: int = 0
    optimizer: OptimizerSettings = OptimizerSettings()
    log_every: int = 10
    eval_every: int = 100
    checkpoint_every: int = 100
    keep: int = 2
    keep_best: int = 1
    eval_batch_size: int = 128
    validation_draws: int = 1
    firing_rate_weight: float = 0.0
    firing_rate_target: float = 0.0

    def __post_init__(self):
        _check(self, int, 1, "steps", "batch_size", "eval_batch_size", "validation_draws")
        _check(self, int, 1, "log_every", "eval_every", "checkpoint_every", "keep", "keep_best")
        _check(self, int, 0, "seed")
        _check(self, float, 0, "firing_rate_weight", "firing_rate_target")
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
