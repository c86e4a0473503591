"""The training state, and the pure step that advances it."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from pspike_jax.objectives import Objective, metrics
from pspike_jax.training import sharding
from pspike_jax.training.optimizers import Optimizer, Rates

Batch = Mapping[str, jax.Array]


@flax.struct.dataclass
class TrainState:
    """Everything that a training run carries from one step to the next.

    Attributes:
      step: () int32, batches learnt from.
      params: the model's parameters.
      batch_stats: the model's batch statistics; {} where it has none.
      opt_state: the optimizer's state.
      key: all noise of step t comes from fold_in(key, t).
      rates: numbers of the optimizer's settings; no checkpoint holds them.
      model: the model.
      objective: what it learns.
      optimizer: its rules without their numbers.
      frozen: for each parameter, in the order of `jax.tree.leaves`, whether it stays as it is.
      penalty: weight and target of the firing-rate penalty.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    key: jax.Array
    rates: Rates
    model: nn.Module = flax.struct.field(pytree_node=False)
    objective: Objective = flax.struct.field(pytree_node=False)
    optimizer: Optimizer = flax.struct.field(pytree_node=False)
    frozen: tuple[bool, ...] = flax.struct.field(pytree_node=False)
    penalty: tuple[float, float] = flax.struct.field(pytree_node=False)

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes: parameters, and batch statistics where there are any."""
        statistics = {"batch_stats": self.batch_stats} if self.batch_stats else {}
        return {"params": self.params} | statistics


def train_step(
    state: TrainState, batch: Batch, gathered: Any = None
) -> tuple[TrainState, metrics.Metrics]:
    """Update the parameters once.

    Args:
      state: the state; its key is folded with the step, never used twice.
      batch: {"inputs", "lengths", "targets"}, and maybe "dt", "resets" and "ids".
      gathered: where parameters are during the pass, or None; see `gathered_shardings`.

    Returns:
      The next state, and sums: "loss" and the other metrics of the objective, "gradient_norm", the
      activity of a spiking model, the model's own losses, "penalty" where the loss has one, and
      "finite_params" and "finite_gradients", arrays with an indicator for each parameter in the
      order of `jax.tree.leaves`.
    """
    key = jax.random.fold_in(state.key, state.step)

    def loss_function(params):
        params = sharding.place_parameters(_stop_frozen(params, state.frozen), gathered)
        return _loss(state, params, batch, key)

    gradients, (measured, statistics) = jax.grad(loss_function, has_aux=True)(state.params)
    updates, opt_state = state.optimizer.update(
        gradients, state.opt_state, state.params, rates=state.rates
    )
    updates = _zero_frozen(updates, state.frozen)
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)]
    measured["gradient_norm"] = _once(jnp.sqrt(sum(squares)))
    # The sum of a leaf is finite if and only if the leaf is, short of overflow.
    totals = [jnp.sum(leaf) for leaf in jax.tree.leaves(state.params)]
    for name, values in (("finite_params", totals), ("finite_gradients", squares)):
        flags = jnp.isfinite(jnp.stack(values))
        measured[name] = metrics.share(flags, jnp.ones(flags.shape, jnp.float32))
    new_state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=statistics,
        opt_state=opt_state,
    )
    return new_state, measured


def _loss(state: TrainState, params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
    """Return the loss of a batch, and its metrics and the new batch statistics."""
    variables = state.variables | {"params": params}
    (outputs, aux), updated = apply_in_training(state.model, variables, batch, key)
    losses, weights, measured = state.objective(outputs, batch)
    tiny = jnp.finfo(jnp.float32).tiny
    loss = jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), tiny)
    if "loss" not in measured:
        measured = measured | {"loss": metrics.sums(losses, weights > 0)}
    measured = measured | metrics.activity_metrics(aux["sites"])
    for name, value in aux.get("losses", {}).items():
        loss += value
        measured[name] = _once(value)
    weight, target = state.penalty
    if weight:
        penalty = firing_rate_penalty(aux["sites"], target)
        loss += jnp.float32(weight) * penalty
        measured["penalty"] = _once(penalty)
    return loss, (measured, updated.get("batch_stats", {}) if state.batch_stats else {})


def firing_rate_penalty(sites: Mapping[str, Mapping[str, jax.Array]], target: float) -> jax.Array:
    """Punish layers whose expected firing rate is above a target.

    The mean over sites and layers of max(0, rate - target)^2, where rate is the mean spike
    probability: the expectation of the firing rate, without the noise of the draw.

    Args:
      sites: counts of a model, `aux["sites"]`; {} for one without spikes.
      target: rate that costs nothing, in [0, 1].

    Returns:
      Scalar float32; 0 without spikes.
    """
    if not sites:
        return jnp.float32(0.0)
    # Float32 before the product: integers of 32 bits overflow at 2^31 neuron-steps.
    size = lambda site: site["steps"].astype(jnp.float32) * site["neurons"].astype(jnp.float32)
    rates = [site["probability"] / size(site) for site in sites.values()]
    return jnp.mean(jnp.maximum(jnp.concatenate(rates) - target, 0.0) ** 2)


def apply_in_training(
    model: nn.Module, variables: Any, batch: Batch, key: jax.Array
) -> tuple[tuple[jax.Array, Any], Any]:
    """Return outputs and aux of a training pass, and the updated statistics; consumes the key."""
    spikes_key, dropout_key = jax.random.split(key)
    return model.apply(
        variables,
        batch["inputs"],
        batch["lengths"],
        train=True,
        rngs={"spikes": spikes_key, "dropout": dropout_key},
        mutable=["batch_stats"],
        **call_options(batch),
    )


def call_options(batch: Batch) -> dict[str, jax.Array]:
    """Return what a batch holds for the model besides inputs and lengths."""
    names = {"dt": "dt", "resets": "resets", "ids": "example_ids"}
    return {option: batch[name] for name, option in names.items() if name in batch}


def _once(value: jax.Array) -> metrics.Sums:
    return metrics.sums(value[None], jnp.ones(1, bool))


def _stop_frozen(params: Any, frozen: tuple[bool, ...]) -> Any:
    leaves, structure = jax.tree.flatten(params)
    stopped = [
        jax.lax.stop_gradient(x) if stop else x for x, stop in zip(leaves, frozen, strict=True)
    ]
    return structure.unflatten(stopped)


def _zero_frozen(updates: Any, frozen: tuple[bool, ...]) -> Any:
    leaves, structure = jax.tree.flatten(updates)
    return structure.unflatten([
        jnp.zeros_like(x) if stop else x for x, stop in zip(leaves, frozen, strict=True)
    ])


def compiled_once(compile: Callable) -> Callable:
    """Let a function of a state, or of its shapes, read shardings alone, and keep what it returns.

    States that differ by their numbers alone then share a compiled program.
    """
    @functools.lru_cache(maxsize=16)
    def of_shardings(structure, shardings, *others):
        return compile(structure.unflatten(shardings), *others)

    @functools.wraps(compile)
    def of_state(state, *others):
        leaves, structure = jax.tree.flatten(state)
        return of_shardings(structure, tuple(leaf.sharding for leaf in leaves), *others)

    return of_state


@compiled_once
def compile_train_step(state: TrainState, mesh: Mesh) -> Callable:
    """Jit `train_step` for a mesh; the state that the step is given is donated."""
    gathered = sharding.gathered_shardings(state.params)

    def advance(state: TrainState, batch: Batch) -> tuple[TrainState, metrics.Metrics]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # what `nn.placement` reads
            return train_step(state, batch, gathered)

    return jax.jit(
        advance,
        in_shardings=(state, None),
        out_shardings=(state, sharding.replicated(mesh)),
        donate_argnums=0,
    )


def leaf_paths(tree: Any) -> list[str]:
    """Name the leaves of a tree, such as "encoder/kernel", in the order of `jax.tree.leaves`."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path(tree)
    ]
