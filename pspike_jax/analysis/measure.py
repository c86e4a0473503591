"""Run a trained model on part of a test split: what it fires, and what that takes."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from pspike_jax.analysis import activity, costs, energy
from pspike_jax.analysis.kernels import listen

EXAMPLES = 256  # of the split
BATCH_STEPS = 2**13  # B L of a batch: each captured array holds layers x H times as many numbers


class Findings(NamedTuple):
    """What a model did on part of a test split.

    Attributes:
      examples: number of examples seen.
      shares: {site: Activity}; empty for a model without spikes.
      operations: per example; None for a model without spikes.
      captured: {site: counts and arrays} of the first batch.
      lengths: (B,) lengths in that batch.
      outputs: of all examples seen.
      targets: theirs; the inputs where the task has none.
      all_lengths: theirs.
      first_input: what the first example's row holds, (L,) or (L, F); None where it is not kept.
      kernels: {part of a layer: {"response": (layers, P, W, H), "start": (layers,)}}, what
        impulses leave, see `analysis.kernels`; empty where no layer is linear.
      crossover: {name in `costs.COSTS`: {site: (layers,) rates}}, see `costs.crossover_rates`.
      neurobench: see `costs.neurobench`.
    """

    examples: int
    shares: dict[str, activity.Activity]
    operations: energy.Energy | None
    captured: activity.Sites
    lengths: np.ndarray
    outputs: np.ndarray
    targets: np.ndarray
    all_lengths: np.ndarray
    first_input: np.ndarray | None = None
    kernels: Mapping[str, Any] = MappingProxyType({})
    crossover: Mapping[str, Mapping[str, np.ndarray]] = MappingProxyType({})
    neurobench: Mapping[str, Any] = MappingProxyType({})


def measure(model: nn.Module, variables: Mapping[str, Any], split: Any, key: jax.Array) -> Findings:
    """Run a model on the first test examples, and capture the arrays of the first batch.

    Args:
      model: module of the zoo.
      variables: its variables.
      split: inputs, lengths and targets; of a packed one, its examples.
      key: PRNG key of the spikes; consumed.

    Returns:
      Activity, operations and outputs over up to 256 examples (whole batches), and the captured
      batch.
    """
    split = getattr(split, "examples", split)
    rows = min(EXAMPLES, len(split.lengths))
    steps = split.inputs.shape[split.lengths.ndim] * split.lengths[0].size
    batch_size = max(1, min(rows, 64, BATCH_STEPS // steps))
    batches = np.arange(rows - rows % batch_size).reshape(-1, batch_size)
    captured, outputs, kernels = [], [], {}

    def counts() -> Iterator[activity.Aux]:
        for one, aux in _run(model, variables, split, batches, key):
            outputs.append(np.asarray(one))
            if not captured:
                captured.append(jax.device_get(aux["sites"]))
                kernels.update(jax.device_get(aux.get("kernels", {})))
            yield aux

    aux = activity.merge_aux(counts())
    seen, targets = slice(batches.size), split.inputs if split.targets is None else split.targets
    sites = aux["sites"]
    operations = energy.estimate_energy(aux, examples=batches.size) if sites else None
    return Findings(
        examples=batches.size,
        shares=activity.summarize(sites),
        operations=operations,
        captured=captured[0],
        lengths=np.reshape(split.lengths[:batch_size], -1),
        outputs=np.concatenate(outputs),
        targets=np.asarray(targets[seen]),
        all_lengths=np.asarray(split.lengths[seen]),
        first_input=None if split.lengths.ndim > 1 else np.asarray(split.inputs[0]),
        kernels=kernels,
        crossover={name: costs.crossover_rates(sites, cost) for name, cost in costs.COSTS.items()},
        neurobench=costs.neurobench(operations, sites, variables["params"]) if sites else {},
    )


def _run(
    model: nn.Module, variables: Mapping[str, Any], split: Any, batches: np.ndarray, key: jax.Array
) -> Iterator[tuple[jax.Array, activity.Aux]]:
    """Yield (outputs, aux) of each batch of rows; noise differs by row, so one key serves all."""

    # Arrays are captured in every batch, since a second program would take longer to compile.
    @jax.jit
    def apply(variables, arrays, rows, key):
        with listen(split.inputs.shape[split.lengths.ndim], linear):
            return model.apply(
                variables, **arrays, example_ids=rows, capture=True, rngs={"spikes": key}
            )

    poles = getattr(model, "poles", None)
    linear = poles is not None and poles(variables["params"]) is not None
    real = split.inputs.ndim == split.lengths.ndim + 2  # features, not tokens
    kinds = {"inputs": np.float32 if real else np.int32, "lengths": np.int32, "dt": np.float32}
    arrays = {name: getattr(split, name, None) for name in kinds}
    for rows in batches.astype(np.int32):
        batch = {
            name: array[rows].astype(kinds[name])
            for name, array in arrays.items() if array is not None
        }
        yield apply(variables, batch, rows, key)
