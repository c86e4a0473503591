"""Classes of sequences, or of steps: cross-entropy, accuracy, and the confusion matrix."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.objectives import metrics
from pspike_jax.objectives.objective import Batch, check_shape, refuse, step_mask


def cross_entropy(
    logits: jax.Array, labels: jax.Array, valid: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Compute the cross-entropy with integer labels.

    With smoothing s the target distribution over K classes is (1 - s) onehot + s / K.

    Args:
      logits: (..., K).
      labels: (...) integers in [0, K) where valid.
      valid: (...) bool; elsewhere the loss and its gradient are 0, whatever the logits are.
      label_smoothing: s, in [0, 1).

    Returns:
      (...) float32, in nats.
    """
    # Masked on both sides: logits of what is not an example may be NaN, and so would a gradient be.
    logits = jnp.where(valid[..., None], logits.astype(jnp.float32), 0.0)
    log_p = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_p, jnp.where(valid, labels, 0)[..., None], axis=-1)[..., 0]
    losses = -(1 - label_smoothing) * picked - label_smoothing * jnp.mean(log_p, axis=-1)
    return jnp.where(valid, losses, 0.0)


def best(logits: jax.Array) -> jax.Array:
    """Return the class of the largest logit, int32 in every mode of JAX."""
    return jax.lax.argmax(logits, logits.ndim - 1, jnp.int32)


@dataclasses.dataclass(frozen=True)
class Classification:
    """One class of each sequence.

    Targets are (n,) integers in [0, num_classes). In packed rows they are (B, L), and -1 but at the
    last step of each example.

    Attributes:
      num_classes: K, at least 2; None until `complete` has counted them.
      names: of the classes, or None.
      class_weights: weight of an example of each class in the training loss; "balanced" until
        `complete` makes them n / (K n_k), or None for equal weights. Metrics are not weighted.
      label_smoothing: share of the target that is spread over all classes, in [0, 1).
    """

    num_classes: int | None = None
    names: tuple[str, ...] | None = None
    class_weights: tuple[float, ...] | str | None = None
    label_smoothing: float = 0.0

    merit: ClassVar[tuple[str, str]] = ("accuracy", "max")
    per_step: ClassVar[bool] = False
    needs_targets: ClassVar[bool] = True

    def __post_init__(self):
        # Tuples are hashable: an objective is a constant of a compiled step.
        if self.names is not None:
            object.__setattr__(self, "names", tuple(map(str, self.names)))
        if self.class_weights is not None and not isinstance(self.class_weights, str):
            object.__setattr__(self, "class_weights", tuple(map(float, self.class_weights)))
        if self.num_classes is not None and self.num_classes < 2:
            raise ValueError(f"num_classes is {self.num_classes}, expected at least 2")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}, expected 0 <= s < 1")
        self._check_fields()

    def _check_fields(self):
        if isinstance(self.class_weights, str):
            if self.class_weights != "balanced":
                raise ValueError(f"class_weights are {self.class_weights!r}, expected 'balanced'")
        elif self.class_weights is not None:
            weights = np.asarray(self.class_weights)
            if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.max() > 0):
                raise ValueError(f"class_weights are {self.class_weights}, expected 0 or more")
        if self.num_classes is None:
            return
        for name in ("names", "class_weights"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.num_classes:
                raise ValueError(f"{len(value)} {name} of {self.num_classes} classes")

    @property
    def num_outputs(self) -> int | None:
        """One logit for each class; None until they are counted."""
        return self.num_classes

    def complete(self, inputs: Any, targets: np.ndarray) -> "Classification":
        """Fill in, from training examples, what was left to them.

        Args:
          inputs: not used.
          targets: of this objective's shape.

        Returns:
          The objective, with its number of classes and its class weights.
        """
        count = self.num_classes
        if count is None:
            count = len(self.names) if self.names else int(np.max(targets, initial=0)) + 1
        weights = self.class_weights
        if isinstance(weights, str):
            sizes = np.bincount(targets[targets >= 0].astype(np.int64), minlength=count)
            if not sizes.all():
                missing = int(np.argmin(sizes))
                raise ValueError(f"class_weights='balanced', but class {missing} has no example")
            weights = tuple((sizes.sum() / (count * sizes)).tolist())
        return dataclasses.replace(self, num_classes=int(count), class_weights=weights)

    def check(
        self, inputs: Any, lengths: np.ndarray, targets: np.ndarray | None, where: str
    ) -> None:
        """Refuse labels that are no classes; see `Objective.check`."""
        packed = lengths.ndim == 1 and np.ndim(targets) == 2
        check_shape(targets, [inputs.shape[:2] if packed else lengths.shape[:1]], where)
        _check_labels(targets, self.num_outputs, where, missing=packed)

    def __call__(
        self, outputs: jax.Array, batch: Batch
    ) -> tuple[jax.Array, jax.Array, metrics.Metrics]:
        """Compare logits with labels; see `Objective`."""
        labels = batch["targets"].astype(jnp.int32)
        losses, weights, valid = self._losses(outputs, labels, labels >= 0)
        hits = best(outputs) == labels
        measured = {"loss": metrics.sums(losses, valid), "accuracy": metrics.sums(hits, valid)}
        return losses, weights, measured

    def _losses(self, logits, labels, valid):
        losses = cross_entropy(logits, labels, valid, self.label_smoothing)
        if self.class_weights is None:
            return losses, valid.astype(jnp.float32), valid
        if isinstance(self.class_weights, str):
            raise ValueError("class_weights are 'balanced': let `complete` count the classes")
        table = jnp.asarray(self.class_weights, jnp.float32)
        return losses, jnp.where(valid, table[jnp.where(valid, labels, 0)], 0.0), valid

    def summary(
        self, outputs: np.ndarray, targets: np.ndarray, lengths: np.ndarray
    ) -> dict[str, Any]:
        """Count which class was taken for which.

        Returns:
          "confusion" (K, K) integers, rows the true classes; "names"; "recall" (K,), the share of
          each class that was found, NaN without examples; "precision" (K,); "balanced_accuracy",
          the mean recall.
        """
        del lengths
        return self._summary(outputs, targets, targets >= 0)

    def _summary(self, outputs, targets, valid):
        count = self.num_outputs
        pairs = targets[valid].astype(np.int64) * count + np.argmax(outputs[valid], axis=-1)
        confusion = np.bincount(pairs, minlength=count**2).reshape(count, count)
        with np.errstate(invalid="ignore"):
            recall, precision = (np.diag(confusion) / confusion.sum(axis) for axis in (1, 0))
        known = recall[~np.isnan(recall)]
        return {
            "confusion": confusion,
            "names": self.names or tuple(map(str, range(count))),
            "recall": recall,
            "precision": precision,
            "balanced_accuracy": float(known.mean()) if known.size else float("nan"),
        }


@dataclasses.dataclass(frozen=True)
class StepClassification(Classification):
    """One class of each step; targets (n, L) integers, -1 where a step does not count.

    Steps weigh alike, so that a long example weighs more than a short one; errors are over
    examples.
    """

    per_step: ClassVar[bool] = True

    def check(
        self, inputs: Any, lengths: np.ndarray, targets: np.ndarray | None, where: str
    ) -> None:
        """Refuse labels that are no classes; see `Objective.check`."""
        check_shape(targets, [inputs.shape[:2]], where)
        _check_labels(targets, self.num_outputs, where, missing=True)

    def __call__(
        self, outputs: jax.Array, batch: Batch
    ) -> tuple[jax.Array, jax.Array, metrics.Metrics]:
        """Compare logits with labels; see `Objective`."""
        labels = batch["targets"].astype(jnp.int32)
        valid = (labels >= 0) & step_mask(batch["lengths"], labels.shape[1])
        losses, weights, valid = self._losses(outputs, labels, valid)
        hits = best(outputs) == labels
        measured = {"loss": losses, "accuracy": hits}
        return losses, weights, {
            name: metrics.mean_over_steps(values, valid) for name, values in measured.items()
        }

    def summary(
        self, outputs: np.ndarray, targets: np.ndarray, lengths: np.ndarray
    ) -> dict[str, Any]:
        """Count which class was taken for which, as `Classification.summary` over all steps."""
        steps = np.arange(targets.shape[1]) < lengths[:, None]
        return self._summary(outputs, targets, (targets >= 0) & steps)


def _check_labels(labels: np.ndarray, count: int, where: str, *, missing: bool) -> None:
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{where}: targets are {labels.dtype}, expected integers, the classes")
    low = -1 if missing else 0
    expected = f"0 to {count - 1}" + (", or -1 where there is none" if missing else "")
    refuse(labels, (labels < low) | (labels >= count), f"{where}: targets", expected)
    if missing and not (labels >= 0).any():
        raise ValueError(f"{where}: every target is -1, expected one that counts")
