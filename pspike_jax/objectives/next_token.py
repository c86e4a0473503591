"""The next token of a sequence, at every step: cross-entropy in bits."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.objectives import metrics
from pspike_jax.objectives.classification import best, cross_entropy
from pspike_jax.objectives.objective import Batch, ahead_mask


@dataclasses.dataclass(frozen=True)
class NextToken:
    """The token of step t + 1 from those up to t; targets are the inputs.

    Attributes:
      vocab_size: number of tokens; None until `complete`.
    """

    vocab_size: int | None = None

    merit: ClassVar[tuple[str, str]] = ("bits_per_token", "min")
    per_step: ClassVar[bool] = True
    needs_targets: ClassVar[bool] = False

    def __post_init__(self):
        if self.vocab_size is not None and self.vocab_size < 2:
            raise ValueError(f"vocab_size is {self.vocab_size}, expected at least 2")

    @property
    def num_outputs(self) -> int | None:
        """One logit for each token; None until they are counted."""
        return self.vocab_size

    def complete(self, inputs: np.ndarray, targets: None = None) -> "NextToken":
        """Fill in the number of tokens.

        Args:
          inputs: (n, L) tokens.
          targets: not used.

        Returns:
          The objective, with its number of tokens.
        """
        if self.vocab_size is not None:
            return self
        return dataclasses.replace(self, vocab_size=int(np.max(inputs)) + 1)

    def check(self, inputs: Any, lengths: np.ndarray, targets: Any, where: str) -> None:
        """Refuse inputs that are no tokens; see `Objective.check`."""
        if targets is not None:
            raise ValueError(f"{where}: the next token makes its targets of the inputs, give None")
        if inputs.ndim != 2 or inputs.dtype.kind not in "iu":
            raise ValueError(
                f"{where}: inputs {inputs.dtype} {inputs.shape} are no tokens, expected (n, L) "
                "integers"
            )
        if lengths.max() < 2:
            raise ValueError(f"{where}: no example has a second token")

    def __call__(
        self, outputs: jax.Array, batch: Batch
    ) -> tuple[jax.Array, jax.Array, metrics.Metrics]:
        """Compare logits with the tokens that follow; see `Objective`."""
        labels = jnp.roll(batch["inputs"].astype(jnp.int32), -1, axis=1)
        valid = ahead_mask(batch, labels.shape[1], 1)
        losses = cross_entropy(outputs, labels, valid)
        measured = {
            "loss": losses,
            "bits_per_token": losses / math.log(2),
            "accuracy": best(outputs) == labels,
        }
        return losses, valid.astype(jnp.float32), {
            name: metrics.mean_over_steps(values, valid) for name, values in measured.items()
        }

    def summary(
        self, outputs: np.ndarray, targets: np.ndarray, lengths: np.ndarray
    ) -> dict[str, Any]:
        """Say how well tokens are foretold, and how that grows with what is known before them.

        Args:
          outputs: (n, L, vocab_size).
          targets: (n, L), the inputs.
          lengths: (n,).

        Returns:
          "bits_per_token"; "perplexity"; "bits_by_step" (L - 1,), NaN where no example is as long.
        """
        logits = np.asarray(outputs[:, :-1], np.float64)
        logits = logits - logits.max(axis=-1, keepdims=True)
        labels = np.asarray(targets[:, 1:], np.int64)
        picked = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
        bits = (np.log(np.exp(logits).sum(axis=-1)) - picked) / np.log(2)
        valid = np.arange(1, targets.shape[1]) < lengths[:, None]
        counts = valid.sum(axis=0)
        total = np.where(valid, bits, 0).sum(axis=0)
        mean = float(total.sum() / counts.sum())
        with np.errstate(invalid="ignore"):
            by_step = total / counts
        return {"bits_per_token": mean, "perplexity": 2.0**mean, "bits_by_step": by_step}
