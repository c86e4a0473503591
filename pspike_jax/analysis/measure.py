"""Run a trained model on part of a test split: what it fires, and what that takes."""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from pspike_jax.analysis import activity, energy

EXAMPLES = 256  # of the split
BATCH_STEPS = 2**13  # B L of a batch: each captured array holds layers x H times as many numbers


class Findings(NamedTuple):
    """What a model did on part of a test split.

    Attributes:
      examples: number of examples seen.
      shares: {site: Activity}; empty for a model without spikes.
      operations: per example; None for a model without spikes.
      captured: aux of one batch, with its arrays.
      lengths: (B,) lengths in that batch.
    """

    examples: int
    shares: dict[str, activity.Activity]
    operations: energy.Energy | None
    captured: activity.Aux
    lengths: np.ndarray


def measure(model: nn.Module, variables: Mapping[str, Any], split: Any, key: jax.Array) -> Findings:
    """Run a model on the first test examples, and capture the arrays of the first batch.

    Args:
      model: module of the zoo.
      variables: its variables.
      split: inputs, lengths and labels.
      key: PRNG key of the spikes; consumed.

    Returns:
      Activity and operations over up to 256 examples (whole batches), and the captured batch.
    """
    rows = min(EXAMPLES, len(split.labels))
    steps = split.inputs.shape[split.lengths.ndim] * split.lengths[0].size
    batch_size = max(1, min(rows, 64, BATCH_STEPS // steps))
    batches = np.arange(rows - rows % batch_size).reshape(-1, batch_size)
    results = _run(model, variables, split, batches, key)
    logits, captured = jax.device_get(next(results))
    aux = activity.merge_aux(itertools.chain([captured], (counts for _, counts in results)))
    operations = None
    if aux:
        lengths = split.lengths[: batches.size]
        operations = count_operations(
            aux, variables["params"], examples=batches.size,
            steps=float(np.sum(lengths)) / batches.size,
            tokens=model.vocab_size is not None, scores_every_step=logits.ndim == 3,
        )
    lengths = np.reshape(split.lengths[:batch_size], -1)
    return Findings(batches.size, activity.summarize(aux), operations, captured, lengths)


def _run(model, variables, split, batches, key):
    """Yield (logits, aux) of each batch of rows; noise differs by row, so one key serves all."""

    # Arrays are captured in every batch, since a second program would take longer to compile.
    @jax.jit
    def apply(variables, inputs, lengths, rows, key):
        return model.apply(
            variables, inputs, lengths, example_ids=rows, capture=True, rngs={"spikes": key}
        )

    dtype = np.float32 if split.inputs.dtype.kind == "f" else np.int32
    for rows in batches.astype(np.int32):
        lengths = split.lengths[rows].astype(np.int32)
        yield apply(variables, split.inputs[rows].astype(dtype), lengths, rows, key)


def count_operations(
    aux: activity.Aux,
    params: Mapping[str, Any],
    *,
    examples: int,
    steps: float,
    tokens: bool,
    scores_every_step: bool,
) -> energy.Energy:
    """Count operations per example; sizes are read off the parameters.

    Args:
      aux: counts over `examples` examples.
      params: parameters; matrices are called "kernel", readouts of states "C". The encoder is
        "encoder", or the first layer of a network that has none.
      examples: number of examples that aux counts.
      steps: mean number of steps of an example.
      tokens: inputs are tokens, looked up in a table without arithmetic.
      scores_every_step: the head scores each step, not the pooled features.

    Returns:
      Operations per example.
    """
    encoder = head = pairs = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [entry.key for entry in path]
        if names[-1] == "C":
            # Each recurrence has one complex number here, stored as two, for every pair of it.
            pairs += leaf.size // 2
        elif names[-1] == "kernel" and names[0] == "head":
            head += leaf.size
        elif names[-1] == "kernel" and names[0] in ("encoder", "layers_0") and not tokens:
            encoder += leaf.size
    return energy.estimate_energy(
        aux,
        examples=examples,
        encoder_macs=steps * encoder,
        head_macs=(steps if scores_every_step else 1) * head,
        state_macs=energy.state_update_macs(pairs=pairs, steps=steps),
    )
