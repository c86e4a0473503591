"""Batch statistics for evaluation, measured afresh with the weights that are evaluated.

A running average of batch statistics is one of weights that are gone. Where a batch norm follows a
product, the loss does not feel the scale of the weights, so that they drift, and a variance that
has doubled since drives every neuron of its layer too hard or not at all: validation swings while
training does not. `fit` therefore measures means and variances over some training batches before it
validates. Training itself never reads them, and goes on as it would have.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pspike_jax.data.batches import Split, train_batch
from pspike_jax.training.settings import TrainSettings
from pspike_jax.training.sharding import (
    gathered_shardings,
    local_rows,
    place_parameters,
    shard_batch,
)
from pspike_jax.training.state import Batch, TrainState, apply_in_training, compiled_once


def batch_statistics(state: TrainState, batch: Batch, number: jax.Array) -> Any:
    """Return the statistics of one batch, whatever average the model makes of them.

    A model turns a running statistic r into m r + (1 - m) s, where s is that of the batch: the
    value at r = 0 and the derivative by r tell s. The number of the batch, not negative, decides
    the noise.
    """
    # Training draws from the keys of steps, which are not negative.
    key = jax.random.fold_in(state.key, ~number)

    def average(running):
        variables = {"params": state.params, "batch_stats": running}
        return apply_in_training(state.model, variables, batch, key)[1]["batch_stats"]

    zeros = jax.tree.map(jnp.zeros_like, state.batch_stats)
    ones = jax.tree.map(jnp.ones_like, state.batch_stats)
    values, momenta = jax.jvp(average, (zeros,), (ones,))
    return jax.tree.map(
        lambda r, m, value: jnp.where(m < 1, value / jnp.where(m < 1, 1 - m, 1), r),
        state.batch_stats, momenta, values,
    )


def measure_statistics(
    state: TrainState,
    split: Split,
    settings: TrainSettings,
    mesh: Mesh,
    before_batch: Callable[[], None] = lambda: None,
) -> TrainState:
    """Replace running averages by the mean statistics of the newest training batches.

    The state stays as it is where the model has none, or none are to be measured; what
    `before_batch` raises ends the measurement.
    """
    step = int(state.step)
    numbers = range(max(0, step - settings.statistics_batches), step)
    if not state.batch_stats or not numbers:
        return state
    part, total = local_rows(settings.batch_size, mesh), None
    measure = compile_statistics(state, mesh)
    for number in numbers:
        before_batch()
        batch = train_batch(
            split, seed=settings.seed, step=number, batch_size=settings.batch_size, part=part
        )
        found = measure(state, shard_batch(batch, mesh), np.int32(number))
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    count = np.float32(len(numbers))
    return state.replace(batch_stats=jax.tree.map(lambda leaf: leaf / count, total))


@compiled_once
def compile_statistics(state: TrainState, mesh: Mesh) -> Callable:
    """Jit `batch_statistics` for a mesh."""
    placed, gathered = state, gathered_shardings(state.params)

    def measure(state, batch, number):
        state = state.replace(params=place_parameters(state.params, gathered))
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return batch_statistics(state, batch, number)

    return jax.jit(measure, in_shardings=(placed, None, None), out_shardings=placed.batch_stats)
