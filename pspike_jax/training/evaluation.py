"""Evaluation of stochastic models: over noise draws, in the mean field, and at a threshold."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pspike_jax.analysis.activity import merge_aux
from pspike_jax.data.batches import Split, eval_batches
from pspike_jax.training import losses, metrics
from pspike_jax.training.sharding import (
    check_batch_size,
    check_length,
    gather_parameters,
    local_rows,
    make_mesh,
    replicated,
    shard_batch,
)

THRESHOLD = 0.5  # a neuron fires where its probability is above it


@functools.partial(jax.jit, static_argnames=("model", "sampling", "noise", "mesh"))
def eval_step(
    model: nn.Module,
    variables: Any,
    batch: dict[str, jax.Array],
    key: jax.Array,
    example_ids: jax.Array,
    *,
    sampling: str,
    noise: float | None,
    mesh: Mesh,
) -> tuple[metrics.Metrics, Any]:
    """Run a model on one batch without changing it.

    Args:
      model: the model.
      variables: its parameters and batch statistics.
      batch: {"inputs", "lengths", "labels"}; what has label -1 counts nowhere.
      key: of the noise; consumed.
      example_ids: (B,) integers that key each example's noise.
      sampling: "spikes" or "mean".
      noise: None to draw, or a number in place of the uniforms.
      mesh: every device of it holds the results.

    Returns:
      "loss" and "accuracy" as sums, and the model's activity counts.
    """
    valid = batch["labels"] >= 0
    # Length 0 masks every step of what fills a batch, so that it counts in no firing rate.
    lengths = jnp.where(valid.reshape(-1, *[1] * (batch["lengths"].ndim - 1)), batch["lengths"], 0)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        logits, aux = model.apply(
            variables | {"params": gather_parameters(variables["params"])},
            batch["inputs"],
            lengths,
            train=False,
            noise=noise,
            sampling=sampling,
            example_ids=example_ids,
            rngs={"spikes": key},
        )
    example_losses = losses.cross_entropy(logits, batch["labels"])
    measured = metrics.prediction_metrics(logits, batch["labels"], example_losses)
    return jax.lax.with_sharding_constraint((measured, aux), replicated(mesh))


def run_split(
    model: nn.Module,
    variables: Any,
    split: Split,
    *,
    key: jax.Array,
    batch_size: int,
    mesh: Mesh,
    sampling: str = "spikes",
    noise: float | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> tuple[metrics.Metrics, Any]:
    """Run a model on every example of a split once.

    Args:
      model: the model.
      variables: its parameters and batch statistics.
      split: the examples; noise is keyed by their row, so the result does not depend on B.
      key: of the noise; consumed.
      batch_size: B.
      mesh: the mesh.
      sampling: "spikes" or "mean".
      noise: None to draw, or a number in place of the uniforms.
      before_batch: called before each batch; what it raises ends the pass.

    Returns:
      "loss" and "accuracy" as sums on the host, and the activity counts of the whole split.
    """
    results, part = [], local_rows(batch_size, mesh)
    for number, batch in enumerate(eval_batches(split, batch_size, part)):
        before_batch()
        ids = np.int32(number * batch_size) + part.astype(np.int32)
        sharded = shard_batch(batch | {"ids": ids}, mesh)
        ids = sharded.pop("ids")
        results.append(
            eval_step(
                model, variables, sharded, key, ids, sampling=sampling, noise=noise, mesh=mesh
            )
        )
    measured, activity = zip(*jax.device_get(results))
    return functools.reduce(metrics.merge, measured, None), merge_aux(activity)


def evaluate(
    model: nn.Module,
    variables: Any,
    split: Split,
    *,
    key: jax.Array,
    draws: int,
    batch_size: int,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Measure a trained model in the three ways in which a stochastic model can be run.

    Args:
      model: the model.
      variables: its parameters and batch statistics.
      split: the examples.
      key: of the noise; consumed.
      draws: noise draws, at least 2.
      batch_size: B.
      mesh: the devices; None takes all of them as data.

    Returns:
      {"sampled", "mean_field", "threshold"}, each with "mean" and "sem", the accuracy and its
      standard error over noise draws, "draws", "sem_examples", the standard error that comes from
      the number of examples, "examples", and "loss". "sampled" is the mean over draws of the
      single-draw result; its "accuracies" are those of the draws. "mean_field" passes
      probabilities in place of spikes; in "threshold" a neuron fires where its probability is
      above 0.5; both draw nothing, so their "sem" is 0.
    """
    if draws < 2:
        raise ValueError(f"draws is {draws}, expected at least 2 for a standard error")
    mesh = make_mesh() if mesh is None else mesh
    check_batch_size(batch_size, mesh, "batch_size")
    check_length(split, mesh)
    run = functools.partial(run_split, model, variables, split, batch_size=batch_size, mesh=mesh)
    single = run_draws(run, key, draws)
    accuracies = [float(metrics.mean(one["accuracy"])) for one in single]
    sampled = _result(average_draws(single), draws) | {
        "sem": float(np.std(accuracies, ddof=1) / np.sqrt(draws)),
        "accuracies": accuracies,
    }
    return {
        "sampled": sampled,
        "mean_field": _result(run(key=key, sampling="mean")[0], 1),
        "threshold": _result(run(key=key, noise=THRESHOLD)[0], 1),
    }


def run_draws(
    run: Callable[..., tuple[metrics.Metrics, Any]], key: jax.Array, draws: int
) -> list[metrics.Metrics]:
    """Run a split once for each noise draw.

    Args:
      run: `run_split` with all but its key given.
      key: folded with the number of the draw; consumed.
      draws: number of draws.

    Returns:
      The sums of each draw.
    """
    return [run(key=jax.random.fold_in(key, draw))[0] for draw in range(draws)]


def average_draws(single: list[metrics.Metrics]) -> metrics.Metrics:
    """Average the sums of several draws of the same examples.

    Args:
      single: the sums of each draw.

    Returns:
      Sums that count each example once: more draws do not shrink the error that comes from the
      number of examples.
    """
    return jax.tree.map(lambda *values: np.mean(values, axis=0), *single)


def _result(measured: metrics.Metrics, draws: int) -> dict[str, Any]:
    return {
        "mean": float(metrics.mean(measured["accuracy"])),
        "sem": 0.0,
        "draws": draws,
        "sem_examples": float(metrics.standard_error(measured["accuracy"])),
        "examples": int(measured["accuracy"]["count"]),
        "loss": float(metrics.mean(measured["loss"])),
    }
