"""Classes with fixed prototypes, of which more are seen session by session."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.simplex import dot_regression
from pspike_jax.objectives import metrics
from pspike_jax.objectives.classification import Classification
from pspike_jax.objectives.objective import Batch, check_shape, refuse


@dataclasses.dataclass(frozen=True)
class SimplexRegression:
    """Dot regression onto the prototype of an example's class; accuracy among the classes seen.

    Outputs are (B, K), products of unit features with all prototypes. Targets are (n,) integers
    below `seen`.

    Attributes:
      num_classes: K, of all sessions.
      seen: classes that there have been so far, the first ones; None for all.
    """

    num_classes: int
    seen: int | None = None

    merit: ClassVar[tuple[str, str]] = ("accuracy", "max")
    per_step: ClassVar[bool] = False
    needs_targets: ClassVar[bool] = True

    @property
    def num_outputs(self) -> int:
        """A product for each class."""
        return self.num_classes

    @property
    def classes(self) -> int:
        """Classes that are told apart."""
        return self.num_classes if self.seen is None else self.seen

    def check(
        self, inputs: Any, lengths: np.ndarray, targets: np.ndarray | None, where: str
    ) -> None:
        """Refuse labels that are no classes seen so far; see `Objective.check`."""
        check_shape(targets, [(len(inputs),)], where)
        if targets.dtype.kind not in "iu":
            raise TypeError(f"{where}: targets are {targets.dtype}, expected integers")
        bad = (targets < 0) | (targets >= self.classes)
        refuse(targets, bad, f"{where}: targets", f"0 to {self.classes - 1}")

    def __call__(
        self, outputs: jax.Array, batch: Batch
    ) -> tuple[jax.Array, jax.Array, metrics.Metrics]:
        """Compare outputs with labels; see `Objective`."""
        labels = batch["targets"]
        valid = labels >= 0
        scores = jnp.where(valid[:, None], outputs.astype(jnp.float32), 0.0)
        losses = dot_regression(scores, labels)
        seen = scores[:, : self.classes]
        hits = valid & (jax.lax.argmax(seen, 1, jnp.int32) == labels)
        measured = {
            "loss": metrics.sums(losses, valid),
            "accuracy": metrics.share(jnp.sum(hits), jnp.sum(valid)),
        }
        return losses, valid.astype(jnp.float32), measured

    def summary(
        self, outputs: np.ndarray, targets: np.ndarray, lengths: np.ndarray
    ) -> dict[str, Any]:
        """Count what was taken for what, as `Classification.summary`."""
        return Classification(self.classes).summary(outputs[:, : self.classes], targets, lengths)
