"""The accumulator of metrics between two logged lines, and the watch over what is not finite."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from pspike_jax.objectives import metrics
from pspike_jax.training.settings import TrainSettings
from pspike_jax.training.sharding import replicated
from pspike_jax.training.state import TrainState, leaf_paths

# What neurons of one step do is not independent: the error comes from the spread between steps.
BY_STEP = ("firing_rate", "dead", "saturated", "surrogate")
WITHOUT_ERRORS = (*BY_STEP, "gradient_norm", "penalty")


class MetricsAccumulator:
    """Sums of the steps since the last line; the newest step stays on the device for a while.

    Fetching a step late keeps the device busy: it works on the next step meanwhile.
    """

    def __init__(
        self, params: Any, settings: TrainSettings, total: metrics.Metrics | None = None
    ):
        """Start with nothing, or with the `total` since the last line of a run that goes on.

        Paths of the parameters, or of their shapes, name what is not finite.
        """
        self._paths = leaf_paths(params)
        self._settings = settings
        self._pending: tuple[int, metrics.Metrics] | None = None
        self._total = total

    def push(self, step: int, measured: metrics.Metrics) -> dict[str, Any] | None:
        """Take the metrics of the newest step, which are on the device.

        Returns a line if the step before it ended one, else None, and raises FloatingPointError if
        something of that step is not finite.
        """
        self.total()
        line = self.close(step - 1)
        self._pending = step, measured
        return line

    def total(self) -> metrics.Metrics | None:
        """Fetch the newest step; return the sums since the last line, None right after one.

        Raises FloatingPointError if something of that step is not finite.
        """
        if self._pending is not None:
            step, measured = self._pending[0], jax.device_get(self._pending[1])
            self._pending = None
            self._check(step, measured)
            for name in BY_STEP:
                if name in measured:
                    value = metrics.mean(measured[name])
                    measured[f"{name}_se"] = {"sum": value, "sum_sq": value**2, "count": 1.0}
            self._total = metrics.merge(self._total, measured)
        return self._total

    def close(self, step: int) -> dict[str, Any] | None:
        """Return the line that the newest step, fetched, ends; None where it ends none."""
        ends = step % self._settings.log_every == 0 or step == self._settings.steps
        if self._total is None or not ends:
            return None
        line = {"step": step, **{f"train/{k}": v for k, v in scalars(self._total).items()}}
        self._total = None
        return line

    def _check(self, step: int, measured: metrics.Metrics) -> None:
        """Take the indicators out of a step's metrics and stop if one of them is 0."""
        finite_params = measured.pop("finite_params")["sum"]
        finite_gradients = measured.pop("finite_gradients")["sum"]
        loss = float(metrics.mean(measured["loss"]))
        if np.isfinite(loss) and finite_params.all() and finite_gradients.all():
            return
        what = "every parameter and gradient is finite"
        for kind, flags in (("parameter", finite_params), ("gradient", finite_gradients)):
            if not flags.all():
                what = f"the first non-finite {kind} is {self._paths[int(np.argmin(flags))]}"
                break
        raise FloatingPointError(f"step {step}: the loss is {loss}; {what}")


def check_finite(state: TrainState, step: int) -> None:
    """Raise FloatingPointError before a state is kept that is not finite, and name the leaf."""
    mesh = jax.tree.leaves(state.params)[0].sharding.mesh
    flags = np.asarray(_finite(state.variables, replicated(mesh)))
    if not flags.all():
        path = leaf_paths(state.variables)[int(np.argmin(flags))]
        raise FloatingPointError(f"step {step}: after the update, {path} is not finite")


@functools.partial(jax.jit, static_argnums=1)
def _finite(tree: Any, sharding: NamedSharding) -> jax.Array:
    """Return for each leaf whether all of it is finite, in every process."""
    flags = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])
    return jax.lax.with_sharding_constraint(flags, sharding)


def scalars(measured: metrics.Metrics) -> dict[str, float]:
    """Turn sums into the numbers of a line: means, and their standard errors as NAME_se.

    Those are over examples for the objective's metrics, over steps for activity. What is not
    finite, because nothing was counted, is left out.
    """
    values = {}
    for name, one in measured.items():
        error = float(metrics.standard_error(one))
        values[name] = error if name.endswith("_se") else float(metrics.mean(one))
        if not name.endswith("_se") and name not in WITHOUT_ERRORS:
            values[f"{name}_se"] = error
    return {name: value for name, value in values.items() if np.isfinite(value)}
