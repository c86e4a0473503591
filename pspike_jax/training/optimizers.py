"""AdamW with the parameter groups that state space models need, and its schedules."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pspike_jax.training.settings import OptimizerSettings

DYNAMICS = frozenset({"Lambda_re", "Lambda_im", "A_real", "A_imag", "P", "B"})
STEP_SIZE = frozenset({"log_dt", "inv_dt"})
# A rate falls when the error rate has not gone down by more than this: less than one example.
PLATEAU_TOLERANCE = 1e-7


def parameter_groups(params: Any) -> Any:
    """Name the group of each parameter, by its path.

    "dynamics" (A, P, B) and "step_size" (dt) have their own rates and no decay: decay would pull
    poles and time scales away from where they were put. "readout" (C) has a rate of its own.
    "no_decay" is biases and whatever a normalisation owns. "decay" is the rest.

    Args:
      params: tree of parameters, of dicts.

    Returns:
      A tree of the same structure, with a group's name at each leaf.
    """
    return jax.tree.map_with_path(lambda path, _: _group([key.key for key in path]), params)


def _group(names: list[str]) -> str:
    if names[-1] in DYNAMICS:
        return "dynamics"
    if names[-1] in STEP_SIZE:
        return "step_size"
    if names[-1] == "C":
        return "readout"
    if names[-1] == "bias" or any("norm" in name.lower() for name in names):
        return "no_decay"
    return "decay"


def make_schedule(settings: OptimizerSettings, peak: float, steps: int) -> optax.Schedule:
    """Make the learning rate as a function of the step.

    Args:
      settings: names the schedule.
      peak: rate after the warm-up.
      steps: length of the run, where a cosine without `decay_steps` ends.

    Returns:
      Function from a step, counted from 0, to a rate.
    """
    warmup = optax.schedules.linear_schedule(0.0, peak, settings.warmup_steps)
    if settings.schedule == "cosine":
        end = steps if settings.decay_steps is None else settings.decay_steps
        rest = _cosine(peak, max(1, end - settings.warmup_steps), settings.decay_steps is not None)
    else:
        rest = optax.schedules.constant_schedule(peak)
    return optax.schedules.join_schedules([warmup, rest], [settings.warmup_steps])


def _cosine(peak: float, steps: int, rises_again: bool) -> optax.Schedule:
    def rate(count: jax.Array) -> jax.Array:
        # A remainder first: the cosine of a large float32 number would lose digits.
        count = count % (2 * steps) if rises_again else jnp.minimum(count, steps)
        return 0.5 * peak * (1.0 + jnp.cos(jnp.pi * count / steps))

    return rate


def _plateau(settings: OptimizerSettings) -> optax.GradientTransformationExtraArgs:
    return optax.contrib.reduce_on_plateau(
        factor=settings.plateau_factor,
        patience=settings.plateau_patience,
        rtol=0.0,
        atol=PLATEAU_TOLERANCE,
    )


def _scale_by_plateau(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Scale updates by a plateau's factor, which `observe_validation` alone changes."""

    def update(updates, state, params=None):
        del params
        return jax.tree.map(lambda u: state.scale * u, updates), state

    return optax.GradientTransformation(_plateau(settings).init, update)


@functools.lru_cache(maxsize=16)  # one object for one setting: it is static in the train state
def make_optimizer(settings: OptimizerSettings, steps: int) -> optax.GradientTransformation:
    """Make AdamW over `parameter_groups`.

    Args:
      settings: rates, decay, clipping, schedule.
      steps: length of the run.

    Returns:
      The optimizer.
    """

    def adamw(peak: float, weight_decay: float) -> optax.GradientTransformation:
        schedule = make_schedule(settings, peak, steps)
        return optax.adamw(schedule, settings.b1, settings.b2, weight_decay=weight_decay)

    given = settings.readout_rate
    readout_rate = settings.learning_rate if given is None else given
    groups = optax.partition(
        {
            "dynamics": adamw(settings.dynamics_rate, 0.0),
            "step_size": adamw(settings.step_size_rate, 0.0),
            "readout": adamw(readout_rate, settings.weight_decay),
            "no_decay": adamw(settings.learning_rate, 0.0),
            "decay": adamw(settings.learning_rate, settings.weight_decay),
        },
        parameter_groups,
    )
    parts = [groups]
    if settings.clip_norm is not None:
        parts.insert(0, optax.clip_by_global_norm(settings.clip_norm))
    if settings.schedule == "plateau":
        parts.append(_scale_by_plateau(settings))
    return optax.chain(*parts)


def observe_validation(
    opt_state: optax.OptState, accuracy: jax.Array, settings: OptimizerSettings
) -> optax.OptState:
    """Tell a plateau schedule the newest validation accuracy.

    Args:
      opt_state: state of an optimizer whose schedule is "plateau".
      accuracy: scalar in [0, 1].
      settings: of that optimizer.

    Returns:
      The state, its scale lower where `plateau_patience` validations in a row were no better.
    """
    *others, plateau = opt_state
    _, plateau = _plateau(settings).update({}, plateau, value=jnp.float32(1.0) - accuracy)
    return (*others, plateau)
