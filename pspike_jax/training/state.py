"""The training state, born sharded, and the pure step that advances it."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from pspike_jax.data.batches import Task
from pspike_jax.training import losses, metrics
from pspike_jax.training.optimizers import make_optimizer
from pspike_jax.training.settings import TrainSettings
from pspike_jax.training.sharding import (
    batch_shardings,
    gather_parameters,
    replicated,
    state_shardings,
)

Batch = Mapping[str, jax.Array]


@flax.struct.dataclass
class TrainState:
    """Everything that a training run carries from one step to the next.

    Attributes:
      step: () int32, updates done.
      params: the model's parameters.
      batch_stats: the model's batch statistics; {} where it has none.
      opt_state: the optimizer's state.
      key: all noise of step t comes from fold_in(key, t).
      constants: the model's collections that no step changes, by name; {} where it has none.
      model: the model.
      optimizer: the optimizer.
      settings: the run's settings.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    key: jax.Array
    constants: dict[str, Any]
    model: nn.Module = flax.struct.field(pytree_node=False)
    optimizer: optax.GradientTransformation = flax.struct.field(pytree_node=False)
    settings: TrainSettings = flax.struct.field(pytree_node=False)

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes: parameters, and where there are any, the other collections."""
        statistics = {"batch_stats": self.batch_stats} if self.batch_stats else {}
        return {"params": self.params} | statistics | self.constants


def seed_keys(seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Derive a run's keys from its seed.

    Args:
      seed: of the run.

    Returns:
      Keys for initial parameters, training noise and validation noise.
    """
    init_key, train_key, validation_key = jax.random.split(jax.random.key(seed), 3)
    return init_key, train_key, validation_key


def _initialize(model: nn.Module, task: Task, key: jax.Array) -> Any:
    """Return the initial variables, having seen that the model fits the task."""
    vocab_size = getattr(model, "vocab_size", task.vocab_size)
    if vocab_size != task.vocab_size:
        raise ValueError(
            f"the model's vocab_size is {vocab_size}, expected {task.vocab_size}, "
            f"that of task {task.name!r}"
        )
    params_key, spikes_key, dropout_key = jax.random.split(key, 3)
    inputs, lengths, _ = task.train
    shape = inputs.shape[1:]
    dtype = jnp.float32 if inputs.dtype.kind == "f" else jnp.int32
    full = jnp.full((1, *lengths.shape[1:]), shape[lengths.ndim - 1], jnp.int32)
    (logits, _), variables = model.init_with_output(
        {"params": params_key, "spikes": spikes_key, "dropout": dropout_key},
        jnp.zeros((1, *shape), dtype),
        full,
    )
    if logits.shape != (1, task.num_classes):
        raise ValueError(
            f"the model gives logits of shape {logits.shape} for one example, expected "
            f"{(1, task.num_classes)}, for the classes of task {task.name!r}"
        )
    return variables


def _initial_state(model: nn.Module, task: Task, settings: TrainSettings) -> TrainState:
    init_key, train_key, _ = seed_keys(settings.seed)
    variables = _initialize(model, task, init_key)
    optimizer = make_optimizer(settings.optimizer, settings.steps)
    return TrainState(
        step=jnp.int32(0),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        key=train_key,
        constants={k: v for k, v in variables.items() if k not in ("params", "batch_stats")},
        model=model,
        optimizer=optimizer,
        settings=settings,
    )


def state_shapes(model: nn.Module, task: Task, settings: TrainSettings, mesh: Mesh) -> TrainState:
    """Describe a state; nothing of it is computed.

    Args:
      model: the model.
      task: gives the shapes of one example.
      settings: seed, optimizer and length of the run.
      mesh: the mesh.

    Returns:
      The state, with shapes, dtypes and shardings in place of arrays.

    Raises:
      ValueError: the model's number of classes or tokens is not the task's, or its layers cannot
        run on the mesh.
    """
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # a layer may not fit it
        shapes = jax.eval_shape(lambda: _initial_state(model, task, settings))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_shardings(shapes, mesh),
    )


def abstract_state(
    model: nn.Module, task: Task, settings: TrainSettings, mesh: Mesh
) -> TrainState:
    """Describe a state that a checkpoint completes: what no checkpoint holds is there.

    Args:
      model: the model.
      task: gives the shapes of one example.
      settings: seed, optimizer and length of the run.
      mesh: the mesh.

    Returns:
      As `state_shapes`, but its constants are arrays.

    Raises:
      ValueError: the model's number of classes or tokens is not the task's.
    """
    abstract = state_shapes(model, task, settings, mesh)
    if not abstract.constants:
        return abstract
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract.constants)
    initialize = lambda: _initial_state(model, task, settings).constants
    return abstract.replace(constants=jax.jit(initialize, out_shardings=shardings)())


def create_state(model: nn.Module, task: Task, settings: TrainSettings, mesh: Mesh) -> TrainState:
    """Make the state of step 0, each leaf on the devices where it will stay.

    Args:
      model: the model.
      task: gives the shapes of one example.
      settings: seed, optimizer and length of the run.
      mesh: the mesh.

    Returns:
      The state.

    Raises:
      ValueError: the model's number of classes or tokens is not the task's.
    """
    return materialize(abstract_state(model, task, settings, mesh), task)


def materialize(abstract: TrainState, task: Task) -> TrainState:
    """Make the state of step 0 that an abstract state describes.

    Args:
      abstract: from `abstract_state`.
      task: the same task.

    Returns:
      The state.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    initialize = lambda: _initial_state(abstract.model, task, abstract.settings)
    return jax.jit(initialize, out_shardings=shardings)()


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, metrics.Metrics]:
    """Update the parameters once.

    Args:
      state: the state; its key is folded with the step, never used twice.
      batch: {"inputs", "lengths", "labels"}.

    Returns:
      The next state, and sums: "loss", "accuracy", "gradient_norm", the activity of a spiking
      model, "penalty" where the loss has one, and "finite_params" and "finite_gradients", arrays
      with an indicator for each parameter in the order of `jax.tree.leaves`.
    """
    settings = state.settings
    spikes_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))

    def loss_function(params):
        (logits, aux), updated = state.model.apply(
            state.variables | {"params": gather_parameters(params)},
            batch["inputs"],
            batch["lengths"],
            train=True,
            rngs={"spikes": spikes_key, "dropout": dropout_key},
            mutable=["batch_stats"],
        )
        example_losses = losses.cross_entropy(logits, batch["labels"])
        loss = jnp.sum(example_losses) / jnp.maximum(jnp.sum(batch["labels"] >= 0), 1)
        penalty = losses.firing_rate_penalty(aux, settings.firing_rate_target)
        if settings.firing_rate_weight:
            loss += settings.firing_rate_weight * penalty
        return loss, (logits, example_losses, aux, penalty, updated)

    gradients, (logits, example_losses, aux, penalty, updated) = jax.grad(
        loss_function, has_aux=True
    )(state.params)
    updates, opt_state = state.optimizer.update(gradients, state.opt_state, state.params)
    measured = metrics.prediction_metrics(logits, batch["labels"], example_losses)
    measured |= metrics.activity_metrics(aux)
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)]
    once = jnp.bool_(True)[None]
    measured["gradient_norm"] = metrics.sums(jnp.sqrt(sum(squares))[None], once)
    if settings.firing_rate_weight:
        measured["penalty"] = metrics.sums(penalty[None], once)
    # The sum of a leaf is finite if and only if the leaf is, short of overflow.
    totals = [jnp.sum(leaf) for leaf in jax.tree.leaves(state.params)]
    for name, values in (("finite_params", totals), ("finite_gradients", squares)):
        flags = jnp.isfinite(jnp.stack(values))
        measured[name] = metrics.share(flags, jnp.ones(flags.shape))
    new_state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=updated["batch_stats"] if state.batch_stats else {},
        opt_state=opt_state,
    )
    return new_state, measured


def compile_train_step(state: TrainState, mesh: Mesh) -> Callable:
    """Jit `train_step` for the shardings of a state; the state it is given is donated.

    Args:
      state: a state, or its shapes.
      mesh: the mesh.

    Returns:
      `train_step`, jitted.
    """
    shardings = state_shardings(state, mesh)
    batch = batch_shardings(mesh, getattr(state.model, "documents", 1))

    def advance(state: TrainState, batch: Batch) -> tuple[TrainState, metrics.Metrics]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # what `nn.placement` reads
            return train_step(state, batch)

    return jax.jit(
        advance,
        in_shardings=(shardings, batch),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
