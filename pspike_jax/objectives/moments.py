"""A conditional moment E[Y - f(X) | Z] = 0, as the game of a model that holds both players."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.moments import moment_game
from pspike_jax.objectives import metrics
from pspike_jax.objectives.objective import Batch, check_shape, refuse


@dataclasses.dataclass(frozen=True)
class ConditionalMoment:
    """What f makes small and u large: (f(X) - Y) u(Z) - u(Z)^2 / 2 + alpha f(X)^2 / 2.

    Outputs are (B, 2): f and u, of which u came through `reversed_gradient`, so that one step of
    descent for both is descent of f and ascent of u. Targets are (n,) floats, Y. The loss itself
    says nothing of the fit; the merit is the square of the violated moment on the examples' own u.

    Attributes:
      alpha: weight of f's square, 0 or more.
    """

    alpha: float = 0.01

    merit: ClassVar[tuple[str, str]] = ("violation", "min")
    num_outputs: ClassVar[int] = 2
    per_step: ClassVar[bool] = False
    needs_targets: ClassVar[bool] = True

    def check(
        self, inputs: Any, lengths: np.ndarray, targets: np.ndarray | None, where: str
    ) -> None:
        """Refuse targets that are no numbers; see `Objective.check`."""
        check_shape(targets, [(len(inputs),)], where)
        if targets.dtype.kind != "f":
            raise TypeError(f"{where}: targets are {targets.dtype}, expected floats")
        refuse(targets, ~np.isfinite(targets), f"{where}: targets", "a finite number")

    def __call__(
        self, outputs: jax.Array, batch: Batch
    ) -> tuple[jax.Array, jax.Array, metrics.Metrics]:
        """Compare outputs with targets; see `Objective`."""
        valid = ~jnp.isnan(batch["targets"])
        f, u = (jnp.where(valid, outputs[:, i].astype(jnp.float32), 0.0) for i in range(2))
        y = jnp.where(valid, batch["targets"].astype(jnp.float32), 0.0)
        losses = moment_game(f, u, y, self.alpha)
        measured = {
            "loss": metrics.sums(losses, valid),
            "violation": metrics.sums(u**2, valid),
            "residual": metrics.sums((f - y) ** 2, valid),
        }
        return losses, valid.astype(jnp.float32), measured

    def summary(
        self, outputs: np.ndarray, targets: np.ndarray, lengths: np.ndarray
    ) -> dict[str, Any]:
        """Put f, u and Y beside each other."""
        return {"f": outputs[:, 0], "u": outputs[:, 1], "targets": targets}
