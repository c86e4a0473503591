"""What the doors of training ask of their arguments before anything is computed."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import errors

from pspike_jax.data.batches import Task
from pspike_jax.training.settings import TrainSettings


def check_model(model: nn.Module) -> None:
    """Raise TypeError for what is no model, or cannot be hashed; name the fields.

    No compiled program is found by a model without a hash.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is {_short(model)}, expected a model, as pspike_jax.create_model makes one"
        )
    try:
        hash(model)
    except TypeError as error:
        fields = vars(getattr(model, "config", None) or object) | vars(model)
        lists = [name for name, value in fields.items() if isinstance(value, (list, dict, set))]
        raise TypeError(
            f"{type(model).__name__}: {', '.join(lists) or 'a field'} cannot be hashed ({error}); "
            "expected tuples in place of lists"
        ) from error


def check_task(task: Task) -> None:
    """Raise TypeError for what is no task."""
    if not isinstance(task, Task):
        raise TypeError(
            f"task is {_short(task)}, expected a Task, which checks its splits; "
            "pspike_jax.data.from_arrays makes one"
        )


def check_settings(settings: TrainSettings) -> None:
    """Raise TypeError for what are no settings of a run."""
    if not isinstance(settings, TrainSettings):
        raise TypeError(f"settings is {_short(settings)}, expected TrainSettings(steps=...)")


def check_variables(variables: Mapping[str, Any]) -> None:
    """Raise TypeError for what `model.apply` would not take."""
    if hasattr(variables, "variables"):
        raise TypeError(f"variables is a {type(variables).__name__}, expected its .variables")
    if not isinstance(variables, Mapping) or "params" not in variables:
        found = _short(variables)
        if isinstance(variables, Mapping) and variables:
            found = f"a dict of {', '.join(map(str, variables))}"
        raise TypeError(f"variables is {found}, expected a dict with 'params'")


def check_key(key: jax.Array) -> None:
    """Raise TypeError for what is no key."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and dtype != jnp.uint32:
        raise TypeError(f"key is {_short(key)}, expected a key, such as jax.random.key(0)")


def check_rules(optimizer: optax.GradientTransformation | None, callbacks: Any) -> None:
    """Raise TypeError for an optimizer that is not of optax, callbacks that are no functions."""
    if optimizer is not None and not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            f"optimizer is {_short(optimizer)}, expected a transformation of optax, such as "
            "optax.adam(1e-3), or None"
        )
    if not isinstance(callbacks, (list, tuple)) or not all(map(callable, callbacks)):
        raise TypeError(f"callbacks is {_short(callbacks)}, expected a list of functions")


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Say of variables that a model does not fit what the model expects, in a line."""
    try:
        yield
    except (
        errors.ScopeParamShapeError, errors.ScopeParamNotFoundError,
        errors.ScopeCollectionNotFound, errors.ScopeVariableNotFoundError,
    ) as error:
        said = re.split(r"\.? \(https?:|\n", str(error))[0]
        raise ValueError(f"model, variables and inputs do not fit together: {said}") from error


def _short(value: Any) -> str:
    """Return a value in a few words, in one line."""
    words = repr(value)
    return words if len(words) < 60 and "\n" not in words else f"a {type(value).__name__}"
