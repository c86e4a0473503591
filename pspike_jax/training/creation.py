"""How a training state comes to be: described, checked against its task, and born sharded."""

import fnmatch
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from pspike_jax.data.batches import Task, read
from pspike_jax.nn import roles
from pspike_jax.training import sharding
from pspike_jax.training.arguments import check_model
from pspike_jax.training.optimizers import FROZEN, Rates, make_rates, static_optimizer
from pspike_jax.training.settings import TrainSettings
from pspike_jax.training.state import TrainState, compiled_once, leaf_paths


class Example(NamedTuple):
    """The shapes of one example, which is all of a task that a state depends on.

    `shape` is that of its inputs, (L,), (L, F) or (2, L); `lengths` that of its length, () or (2,)
    for pairs.
    """

    shape: tuple[int, ...]
    dtype: str
    lengths: tuple[int, ...]


def seed_keys(seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return threefry keys for initial parameters, training noise and validation noise."""
    init_key, train_key, validation_key = jax.random.split(threefry_key(seed), 3)
    return init_key, train_key, validation_key


def threefry_key(seed: int) -> jax.Array:
    """Return the threefry key of a seed."""
    return jax.random.key(seed, impl="threefry2x32")


def example_of(task: Task) -> Example:
    """Return the shapes of one example of a task."""
    batch = read(task.train, np.zeros(1, np.int64))
    inputs = batch["inputs"]
    return Example(inputs.shape[1:], inputs.dtype.name, batch["lengths"].shape[1:])


def abstract_batch(
    task: Task, settings: TrainSettings, mesh: Mesh, split: str = "train"
) -> dict[str, jax.ShapeDtypeStruct]:
    """Describe a batch: shapes, dtypes, shardings; of evaluation, with "ids", unless of train."""
    batch = read(task.split(split), np.zeros(1, np.int64))
    size = settings.batch_size
    if split != "train":
        size, batch = settings.eval_batch_size, {"ids": np.zeros(1, np.int32)} | batch
    shapes = {
        name: jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype)
        for name, array in batch.items()
    }
    places = sharding.array_shardings(shapes, mesh)
    return {name: shape.update(sharding=places[name]) for name, shape in shapes.items()}


def _initialize(model: nn.Module, example: Example, key: jax.Array) -> tuple[Any, Any]:
    """Return the outputs for one example, and the boxed variables."""
    params_key, spikes_key, dropout_key = jax.random.split(key, 3)
    full = jnp.full((1, *example.lengths), example.shape[len(example.lengths)], jnp.int32)
    (outputs, _), variables = model.init_with_output(
        {"params": params_key, "spikes": spikes_key, "dropout": dropout_key},
        jnp.zeros((1, *example.shape), example.dtype),
        full,
    )
    return outputs, variables


def _check_fit(model: nn.Module, task: Task, outputs: jax.ShapeDtypeStruct, variables: Any) -> None:
    """Refuse a model that is not one of this task."""
    vocab_size = getattr(getattr(model, "config", None), "vocab_size", task.vocab_size)
    if vocab_size != task.vocab_size:
        raise ValueError(
            f"the model's vocab_size is {vocab_size}, expected {task.vocab_size}, "
            f"that of task {task.name!r}"
        )
    length, ahead = example_of(task).shape[0], getattr(task.objective, "forward_steps", 0)
    steps = (length + ahead,) if task.objective.per_step else ()
    expected = (1, *steps, task.objective.num_outputs)
    if outputs.shape != expected:
        raise ValueError(
            f"the model gives outputs of shape {outputs.shape} for one example, expected "
            f"{expected}, for the {type(task.objective).__name__} of task {task.name!r}; "
            "task.model_fields holds the fields that fit"
        )
    others = sorted(set(variables) - {"params", "batch_stats"})
    if others:
        raise ValueError(f"the model has collections {others}, expected params and batch_stats")


def _freeze(groups: Any, frozen: Sequence[str] | None) -> list[str]:
    """Return the group of each parameter, "frozen" where a role or a path says so."""
    paths, names = leaf_paths(groups), jax.tree.leaves(groups)
    frozen = (frozen,) if isinstance(frozen, str) else tuple(frozen or ())
    for pattern in frozen:
        hit = [p for p, name in zip(paths, names) if _matches(p, name, pattern)]
        if not hit:
            raise ValueError(
                f"frozen {pattern!r} is no role ({', '.join(roles.GROUPS)}) of this model's "
                f"parameters and matches no path; paths are {paths}"
            )
    return [
        FROZEN if any(_matches(path, name, pattern) for pattern in frozen) else name
        for path, name in zip(paths, names)
    ]


def _matches(path: str, group: str, pattern: str) -> bool:
    below = path.startswith(f"{pattern}/")
    return group == pattern or below or fnmatch.fnmatchcase(path, pattern)


@functools.lru_cache(maxsize=16)
def _shapes(model: nn.Module, example: Example, mesh: Mesh) -> tuple[Any, Any]:
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # a layer may not fit it
        return jax.eval_shape(functools.partial(_initialize, model, example), threefry_key(0))


def state_shapes(
    model: nn.Module,
    task: Task,
    settings: TrainSettings,
    mesh: Mesh,
    *,
    optimizer: optax.GradientTransformation | None = None,
    frozen: Sequence[str] | None = None,
) -> TrainState:
    """Describe a state, with shapes, dtypes and shardings in place of arrays; nothing is computed.

    `optimizer` and `frozen` are those of `fit`. Raises TypeError where the model cannot be hashed;
    ValueError where its outputs or tokens are not the task's, its layers cannot run on the mesh, or
    `frozen` names nothing.
    """
    check_model(model)
    outputs, boxed = _shapes(model, example_of(task), mesh)
    _check_fit(model, task, outputs, boxed)
    variables = nn.meta.unbox(boxed)
    params, statistics = variables["params"], variables.get("batch_stats", {})
    groups = _freeze(roles.groups(boxed["params"]), frozen)
    static = static_optimizer(
        settings.optimizer, groups, accumulate=settings.accumulate, given=optimizer
    )
    whole = sharding.replicated(mesh)
    placed = sharding.parameter_shardings(params, roles.axes(boxed["params"]), mesh)
    opt_state = jax.eval_shape(static.init, params)
    key = jax.eval_shape(threefry_key, 0)
    rates = make_rates(settings.optimizer, settings.steps // settings.accumulate)
    describe = lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
    return TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32, sharding=whole),
        params=jax.tree.map(describe, params, placed),
        batch_stats=jax.tree.map(
            describe, statistics, sharding.statistics_shardings(statistics, mesh)
        ),
        opt_state=jax.tree.map(
            describe, opt_state, sharding.like_parameters(opt_state, params, placed, mesh)
        ),
        key=describe(key, whole),
        rates=jax.tree.map(lambda rate: describe(rate, whole), rates),
        model=model,
        objective=task.objective,
        optimizer=static,
        frozen=tuple(group == FROZEN for group in groups),
        penalty=(settings.firing_rate_weight, settings.firing_rate_target),
    )


def create_state(
    model: nn.Module, task: Task, settings: TrainSettings, mesh: Mesh | None = None, **options: Any
) -> TrainState:
    """Make the state of step 0, each leaf on the devices where it will stay.

    Args:
      model, task, settings: as in `fit`.
      mesh: the mesh; None takes all devices as data.
      **options: `optimizer`, `frozen` and `variables`, as in `fit`.

    Raises:
      TypeError, ValueError: they do not fit each other.
    """
    mesh = sharding.make_mesh() if mesh is None else mesh
    variables = options.pop("variables", None)
    abstract = state_shapes(model, task, settings, mesh, **options)
    return materialize(abstract, task, settings, variables)


def initial_poles(model: nn.Module, task: Task, settings: TrainSettings) -> np.ndarray | None:
    """Return the poles that a run starts from, without making the rest of its state.

    Args:
      model, task, settings: as in `fit`.

    Returns:
      (layers, H, N) complex64, or None of a model that has none.
    """
    if getattr(model, "poles", None) is None:
        return None

    draw = jax.jit(lambda key: nn.meta.unbox(_initialize(model, example_of(task), key)[1]))
    found = model.poles(draw(seed_keys(settings.seed)[0])["params"])
    return None if found is None else np.asarray(found)


def materialize(
    abstract: TrainState, task: Task, settings: TrainSettings, variables: Any = None
) -> TrainState:
    """Make the state of step 0 that `state_shapes` describes.

    Leaves that given `variables` lack are initialized; ValueError names those that the model lacks,
    or has in another shape.
    """
    initialize = _compile_initializer(abstract, example_of(task))
    state = initialize(*seed_keys(settings.seed)[:2], run_rates(settings))
    return state if variables is None else _start_from(state, variables)


def run_rates(settings: TrainSettings, scale: float = 1.0) -> Rates:
    """Return the rates of a run; `steps` counts batches, schedules count updates."""
    return make_rates(settings.optimizer, settings.steps // settings.accumulate, scale)


@compiled_once
def _compile_initializer(abstract: TrainState, example: Example) -> Callable:
    def initialize(init_key, train_key, rates):
        variables = nn.meta.unbox(_initialize(abstract.model, example, init_key)[1])
        return abstract.replace(
            step=jnp.int32(0),
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt_state=abstract.optimizer.init(variables["params"]),
            key=train_key,
            rates=jax.tree.map(jnp.asarray, rates),
        )

    return jax.jit(initialize, out_shardings=abstract)


def _start_from(state: TrainState, variables: Any) -> TrainState:
    """Put given leaves in the place of initial ones."""
    given = dict(zip(leaf_paths(variables), jax.tree.leaves(variables), strict=True))
    leaves, structure = jax.tree.flatten(state.variables)
    here = dict(zip(leaf_paths(state.variables), leaves, strict=True))
    wrong = [
        f"{path} has shape {jnp.shape(leaf)}, expected "
        + (str(here[path].shape) if path in here else "no such variable")
        for path, leaf in given.items()
        if path not in here or here[path].shape != jnp.shape(leaf)
    ]
    if wrong:
        raise ValueError(
            "variables do not fit the model; leave out what it shall initialize: "
            + "; ".join(wrong)
        )
    for path, leaf in given.items():
        old = here[path]
        # A copy: steps donate the state, and the caller keeps what was given.
        here[path] = jax.device_put(jnp.array(leaf, old.dtype, copy=True), old.sharding)
    placed = structure.unflatten(list(here.values()))
    return state.replace(params=placed["params"], batch_stats=placed.get("batch_stats", {}))
