"""Numbers of sequences, of steps, or of steps to come: squared errors, and what is explained."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.objectives import metrics
from pspike_jax.objectives.objective import Batch, ahead_mask, check_shape, refuse, step_mask


def _squared_errors(outputs, targets, valid):
    """Errors, losses and weights: the mean over the outputs that count, weighed by their share."""
    # Masked on both sides: see cross_entropy.
    errors = jnp.where(valid, outputs.astype(jnp.float32), 0.0) - jnp.where(valid, targets, 0.0)
    known = jnp.sum(valid, axis=-1, dtype=jnp.float32)
    losses = jnp.sum(errors**2, axis=-1) / jnp.maximum(known, 1.0)
    return errors, losses, known / valid.shape[-1]


def _measure(errors, valid):
    """Metrics of errors (n, ...), whose first axis is examples."""
    squared = metrics.mean_over_steps(errors**2, valid)
    return {
        "loss": squared, "mse": squared, "mae": metrics.mean_over_steps(jnp.abs(errors), valid)
    }


def _summary(predictions, targets, valid):
    """Predictions against targets where they count, and the share of variance explained."""
    predictions, targets, valid = (
        x.reshape(-1, x.shape[-1]) for x in (predictions, targets, valid)
    )
    rows = valid.any(axis=-1)
    targets = np.where(valid, targets, np.nan)[rows].astype(np.float64)
    predictions = np.where(valid, predictions, np.nan)[rows].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = np.nansum((predictions - targets) ** 2, axis=0)
        center = np.nansum(targets, axis=0) / (~np.isnan(targets)).sum(axis=0)
        r2 = 1 - residual / np.nansum((targets - center) ** 2, axis=0)
    return {"targets": targets, "predictions": predictions, "r2": r2}


@dataclasses.dataclass(frozen=True)
class Regression:
    """Numbers of each sequence, by their mean squared error.

    Targets are (n,) or (n, num_outputs) floats; of several, some may be NaN and do not count. In
    packed rows they are (B, L, num_outputs), and NaN but at the last step of each example.

    Attributes:
      num_outputs: K, numbers to predict.
    """

    num_outputs: int = 1

    merit: ClassVar[tuple[str, str]] = ("mse", "min")
    per_step: ClassVar[bool] = False
    needs_targets: ClassVar[bool] = True

    def __post_init__(self):
        if self.num_outputs < 1:
            raise ValueError(f"num_outputs is {self.num_outputs}, expected at least 1")

    def _shapes(self, inputs, lengths, targets):
        several = (len(inputs), self.num_outputs)
        packed = (*inputs.shape[:2], self.num_outputs)
        shapes = [several, packed] if np.ndim(targets) == 3 else [several]
        return shapes + [shape[:-1] for shape in shapes if self.num_outputs == 1]

    def check(
        self, inputs: Any, lengths: np.ndarray, targets: np.ndarray | None, where: str
    ) -> None:
        """Refuse targets that are no numbers; see `Objective.check`."""
        check_shape(targets, self._shapes(inputs, lengths, targets), where)
        if targets.dtype.kind != "f":
            raise TypeError(f"{where}: targets are {targets.dtype}, expected floats")
        too_large = np.abs(targets) > np.finfo(np.float32).max
        refuse(targets, too_large, f"{where}: targets", "finite numbers of float32")
        missing = np.isnan(targets)
        if targets.ndim <= 2 and not self.per_step:  # not packed: each example is for learning
            missing = missing if targets.ndim == 1 else missing & missing.all(axis=1)[:, None]
            refuse(targets, missing, f"{where}: targets", "a finite number")
        elif missing.all():
            raise ValueError(f"{where}: every target is nan, expected one that counts")

    def __call__(
        self, outputs: jax.Array, batch: Batch
    ) -> tuple[jax.Array, jax.Array, metrics.Metrics]:
        """Compare outputs with targets; see `Objective`."""
        targets = batch["targets"].astype(jnp.float32)
        targets = targets if targets.ndim == outputs.ndim else targets[..., None]
        valid = self._valid(targets, batch)
        errors, losses, weights = _squared_errors(outputs, targets, valid)
        if not self.per_step:  # the examples of packed rows are told apart
            errors, valid = (x.reshape(-1, x.shape[-1]) for x in (errors, valid))
        return losses, weights, _measure(errors, valid)

    def _valid(self, targets, batch):
        return ~jnp.isnan(targets)

    def summary(
        self, outputs: np.ndarray, targets: np.ndarray, lengths: np.ndarray
    ) -> dict[str, Any]:
        """Put predictions beside targets.

        Returns:
          "targets" and "predictions" (m, K) float64, of the examples, or steps, that count, NaN
          where an output does not; "r2" (K,), the share of their variance that is explained.
        """
        targets = targets if targets.ndim == outputs.ndim else targets[..., None]
        return _summary(outputs, targets, self._known(targets, lengths))

    def _known(self, targets, lengths):
        return ~np.isnan(targets)


@dataclasses.dataclass(frozen=True)
class StepRegression(Regression):
    """Numbers of each step; targets (n, L, num_outputs) floats, NaN where one does not count.

    Errors are over examples, whose steps are not independent.
    """

    per_step: ClassVar[bool] = True

    def _shapes(self, inputs, lengths, targets):
        shape = (*inputs.shape[:2], self.num_outputs)
        return [shape, shape[:-1]] if self.num_outputs == 1 else [shape]

    def _valid(self, targets, batch):
        return ~jnp.isnan(targets) & step_mask(batch["lengths"], targets.shape[1])[..., None]

    def _known(self, targets, lengths):
        return ~np.isnan(targets) & (np.arange(targets.shape[1]) < lengths[:, None])[..., None]


@dataclasses.dataclass(frozen=True)
class Forecast:
    """The inputs `horizon` steps ahead, at every step, by their mean squared error.

    Attributes:
      horizon: h; the output of step t is compared with the inputs of step t + h.
      num_outputs: the first K features are forecast; None, until `complete`, for all of them.
    """

    horizon: int = 1
    num_outputs: int | None = None

    merit: ClassVar[tuple[str, str]] = ("mse", "min")
    per_step: ClassVar[bool] = True
    needs_targets: ClassVar[bool] = False

    def __post_init__(self):
        for name in ("horizon", "num_outputs"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}, expected at least 1")

    def complete(self, inputs: Any, targets: None = None) -> "Forecast":
        """Fill in the number of features.

        Args:
          inputs: (n, L, F).
          targets: not used.

        Returns:
          The objective, with its number of outputs.
        """
        if self.num_outputs is not None:
            return self
        return dataclasses.replace(self, num_outputs=int(inputs.shape[-1]))

    def check(self, inputs: Any, lengths: np.ndarray, targets: Any, where: str) -> None:
        """Refuse inputs that are no numbers, or end too soon; see `Objective.check`."""
        if targets is not None:
            raise ValueError(f"{where}: a forecast makes its targets of the inputs, give None")
        if inputs.ndim != 3 or inputs.dtype.kind != "f":
            raise ValueError(f"{where}: inputs {inputs.dtype} {inputs.shape} cannot be forecast")
        if self.num_outputs is not None and self.num_outputs > inputs.shape[2]:
            raise ValueError(
                f"{where}: {self.num_outputs} outputs are forecast, inputs have {inputs.shape[2]} "
                "features"
            )
        if lengths.max() <= self.horizon:
            raise ValueError(
                f"{where}: the longest example has {lengths.max()} steps, expected more than the "
                f"horizon {self.horizon}"
            )

    def __call__(
        self, outputs: jax.Array, batch: Batch
    ) -> tuple[jax.Array, jax.Array, metrics.Metrics]:
        """Compare outputs with inputs to come; see `Objective`.

        "skill" is the share of the squared error of "nothing changes" that the model saves.
        """
        now = batch["inputs"][..., : self.num_outputs].astype(jnp.float32)
        targets = jnp.roll(now, -self.horizon, axis=1)
        valid = ahead_mask(batch, now.shape[1], self.horizon)[..., None]
        valid = jnp.broadcast_to(valid, now.shape)
        errors, losses, weights = _squared_errors(outputs, targets, valid)
        still = jnp.sum(jnp.where(valid, targets - now, 0.0) ** 2, axis=(1, 2))
        saved = still - jnp.sum(errors**2, axis=(1, 2))
        measured = _measure(errors, valid)
        measured["skill"] = metrics.ratio(saved, still, jnp.any(valid, axis=(1, 2)))
        return losses, weights, measured

    def summary(
        self, outputs: np.ndarray, targets: np.ndarray, lengths: np.ndarray
    ) -> dict[str, Any]:
        """Put forecasts beside what came, as `Regression.summary`; `targets` are the inputs."""
        now = np.asarray(targets[..., : self.num_outputs])
        valid = np.arange(now.shape[1]) + self.horizon < lengths[:, None]
        valid = np.broadcast_to(valid[..., None], now.shape)
        return _summary(outputs, np.roll(now, -self.horizon, axis=1), valid)
