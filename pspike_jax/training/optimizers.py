"""AdamW with the parameter groups that state space models need, its schedules, and one's own.

Rates and decay are numbers that a step is given, not constants that it is compiled with: another
learning rate, or another length of a cosine, runs the program that is there already.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pspike_jax.nn.roles import GROUPS
from pspike_jax.training.settings import OptimizerSettings

FROZEN = "frozen"  # the group of parameters that `fit` was told to leave alone
DECAYING = ("decay", "readout")
# A rate falls when the merit has not improved by more than this: less than one example.
PLATEAU_TOLERANCE = 1e-7

Rates = dict[str, Any]


def make_rates(settings: OptimizerSettings, updates: int, scale: float = 1.0) -> Rates:
    """Make the numbers of the settings that a step is given, as NumPy scalars.

    {"peak": {group: rate}, "decay", "warmup", "end", "clip", "scale"}; `updates` is where a cosine
    without `decay_steps` ends, `scale` multiplies every rate.
    """
    own = {
        "dynamics": settings.dynamics_rate,
        "step_size": settings.step_size_rate,
        "readout": settings.readout_rate,
        "threshold": settings.threshold_rate,
    }
    given = {group: own.get(group) for group in GROUPS}
    end = updates if settings.decay_steps is None else settings.decay_steps
    return {
        "peak": {
            group: np.float32(settings.learning_rate if rate is None else rate)
            for group, rate in given.items()
        },
        "decay": np.float32(settings.weight_decay),
        "warmup": np.int32(settings.warmup_steps),
        "end": np.int32(max(end, settings.warmup_steps + 1)),
        "clip": np.float32(settings.clip_norm or 0.0),
        "scale": np.float32(scale),
    }


class AdamState(NamedTuple):
    """State of `GroupedAdam`: updates done, and the means of gradients and of their squares."""

    count: jax.Array
    moments: optax.OptState


@dataclasses.dataclass(frozen=True)
class GroupedAdam:
    """AdamW over groups, as a value: equal ones share compiled programs.

    `groups` names that of each parameter in the order of `jax.tree.leaves`, None means "decay"; a
    cosine that `rises_again` goes on beyond its end; the rest is as in `OptimizerSettings`.
    """

    groups: tuple[str, ...] | None
    schedule: str
    rises_again: bool
    clips: bool
    b1: float
    b2: float

    def init(self, params: Any) -> AdamState:
        """Return the state before the first update."""
        return AdamState(jnp.int32(0), self._adam().init(params))

    def update(
        self, gradients: Any, state: AdamState, params: Any, *, rates: Rates
    ) -> tuple[Any, AdamState]:
        """Return what to add to the parameters, and the next state; `rates` from `make_rates`."""
        # Optax multiplies integers by floats.
        with jax.numpy_dtype_promotion("standard"):
            if self.clips:
                norm = optax.tree.norm(gradients)
                shrink = jnp.minimum(1.0, rates["clip"] / jnp.maximum(norm, 1e-30))
                gradients = jax.tree.map(lambda g: g * shrink, gradients)
            updates, moments = self._adam().update(gradients, state.moments)
            share = schedule_share(self.schedule, self.rises_again, state.count, rates)
            share = share * rates["scale"]
            leaves, structure = jax.tree.flatten(params)
            groups = self.groups or ("decay",) * len(leaves)
            moved = []
            for group, update, leaf in zip(groups, jax.tree.leaves(updates), leaves, strict=True):
                if group in DECAYING:
                    update = update + rates["decay"] * leaf
                moved.append(-share * rates["peak"].get(group, 0.0) * update)
            return structure.unflatten(moved), AdamState(state.count + 1, moments)

    def _adam(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2)


def schedule_share(kind: str, rises_again: bool, count: jax.Array, rates: Rates) -> jax.Array:
    """Return which share of its peak, in [0, 1], a rate has after `count` updates.

    "plateau" acts through `rates["scale"]` alone.
    """
    warmup, end = jnp.asarray(rates["warmup"]), jnp.asarray(rates["end"])
    rising = count.astype(jnp.float32) / jnp.maximum(warmup, 1).astype(jnp.float32)
    rest = jnp.float32(1.0)
    if kind == "cosine":
        way, done = end - warmup, jnp.maximum(count - warmup, 0)
        # A remainder first: the cosine of a large float32 number would lose digits.
        done = done % (2 * way) if rises_again else jnp.minimum(done, way)
        share = done.astype(jnp.float32) / way.astype(jnp.float32)
        rest = 0.5 * (1.0 + jnp.cos(jnp.float32(np.pi) * share))
    return jnp.where(count < warmup, rising, rest)


@dataclasses.dataclass(frozen=True)
class Given:
    """An optax transformation of the caller's, which has its own rates."""

    transformation: optax.GradientTransformation

    def init(self, params: Any) -> optax.OptState:
        """Return the state before the first update."""
        return self.transformation.init(params)

    def update(
        self, gradients: Any, state: optax.OptState, params: Any, *, rates: Rates
    ) -> tuple[Any, optax.OptState]:
        """Return what to add to the parameters, and the next state; the rates are not read."""
        del rates
        with jax.numpy_dtype_promotion("standard"):
            extra = optax.with_extra_args_support(self.transformation)
            return extra.update(gradients, state, params)

    def __reduce__(self):
        # Optax's transformations are closures, which no process can send to another.
        return (_Lost, ())


class _Lost:
    """Stands in a copy from another process for a caller's transformation."""

    def init(self, *_):
        raise TypeError("the optax transformation of this state stayed in the process it is from")

    update = init


@dataclasses.dataclass(frozen=True)
class Accumulated:
    """An optimizer on the mean gradient of several batches, by `optax.MultiSteps`."""

    inner: GroupedAdam | Given
    batches: int

    def init(self, params: Any) -> optax.MultiStepsState:
        """Return the state before the first batch."""
        return self._steps(None).init(params)

    def update(
        self, gradients: Any, state: optax.MultiStepsState, params: Any, *, rates: Rates
    ) -> tuple[Any, optax.MultiStepsState]:
        """Return what to add, zeros but at every last batch, and the next state."""
        with jax.numpy_dtype_promotion("standard"):
            return self._steps(rates).update(gradients, state, params)

    def _steps(self, rates: Rates | None) -> optax.MultiSteps:
        update = lambda g, state, params: self.inner.update(g, state, params, rates=rates)
        bound = optax.GradientTransformation(self.inner.init, update)
        return optax.MultiSteps(bound, self.batches)


Optimizer = GroupedAdam | Given | Accumulated


def static_optimizer(
    settings: OptimizerSettings,
    groups: Sequence[str] | None = None,
    *,
    accumulate: int = 1,
    given: optax.GradientTransformation | None = None,
) -> Optimizer:
    """Make what a compiled step holds of an optimizer: everything but its numbers.

    `accumulate` batches make one update; `given` takes the place of AdamW.
    """
    optimizer = Given(given) if given is not None else GroupedAdam(
        groups=None if groups is None else tuple(groups),
        schedule=settings.schedule,
        rises_again=settings.decay_steps is not None,
        clips=settings.clip_norm is not None,
        b1=settings.b1,
        b2=settings.b2,
    )
    return optimizer if accumulate == 1 else Accumulated(optimizer, accumulate)


def make_optimizer(
    settings: OptimizerSettings, steps: int, groups: Any = None
) -> optax.GradientTransformation:
    """Make AdamW as an optax transformation, for a loop of one's own.

    Args:
      settings: rates, decay, clipping, schedule; a "plateau" is constant in it.
      steps: length of the run, in updates.
      groups: tree of group names like the parameters, from `nn.roles.groups` of what `model.init`
        returns; None for "decay" everywhere.
    """
    names = None if groups is None else jax.tree.leaves(groups)
    static, rates = static_optimizer(settings, names), make_rates(settings, steps)

    def update(gradients, state, params):
        return static.update(gradients, state, params, rates=rates)

    return optax.GradientTransformation(static.init, update)


def validations_since_best(merits: Sequence[float]) -> int:
    """Count the validations since the best; merits are in order, and higher is better."""
    return len(merits) - 1 - int(np.argmax(merits)) if len(merits) else 0


def plateau_scale(merits: Sequence[float], settings: OptimizerSettings) -> float:
    """Return the scale of a plateau's rates: a function of the validations alone.

    `plateau_factor` to the power of how often `plateau_patience` validations in a row were no
    better, the count beginning again each time; 1 under another schedule.
    """
    best, since, falls = -np.inf, 0, 0
    for merit in merits if settings.schedule == "plateau" else ():
        if merit > best + PLATEAU_TOLERANCE:
            best, since = merit, 0
        else:
            since += 1
        if since >= settings.plateau_patience:
            falls, since = falls + 1, 0
    return settings.plateau_factor**falls
