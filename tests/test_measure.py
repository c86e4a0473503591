"""Runs over a test split against counts in NumPy; operations against closed forms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax import models
from pspike_jax.analysis import activity, measure
from pspike_jax.data.batches import Split
from pspike_jax.nn.blocks import Block

CLASSES, FEATURES, LENGTH, H, LAYERS = 3, 2, 12, 8, 2
FIELDS = {"num_classes": CLASSES, "d_model": H, "n_layers": LAYERS, "d_state": 4, "l_max": LENGTH}


class Threshold(nn.Module):
    """Neuron i of example b fires at step t where inputs[b, t, i] > b / 10."""

    vocab_size: int | None = None

    @nn.compact
    def __call__(self, inputs, lengths, example_ids, capture):
        assert (inputs.dtype, lengths.dtype) == (jnp.float32, jnp.int32)
        ids, inputs = self.stacked(example_ids, inputs)
        spikes = (inputs > ids[:, None, None] / 10) + 0.0
        valid = jnp.arange(inputs.shape[1])[None, :, None] < lengths.reshape(-1, 1, 1)
        neuron_spikes = jnp.sum(spikes * valid, axis=(0, 1))
        counts = {"spikes": jnp.sum(neuron_spikes), "probability": jnp.sum(neuron_spikes),
                  "neuron_spikes": neuron_spikes, "surrogate": jnp.float32(0),
                  "steps": jnp.sum(valid), "neurons": jnp.int32(FEATURES),
                  "fan_out": jnp.int32(5)}
        if capture:
            counts |= {"spike_array": spikes, "probability_array": spikes}
        logits = nn.Dense(CLASSES, name="head")(inputs.mean(axis=1))
        return logits, {"input": {name: count[None] for name, count in counts.items()}}

    def stacked(self, example_ids, inputs):
        if inputs.ndim == 3:
            return example_ids, inputs
        return jnp.repeat(example_ids, 2), inputs.reshape(-1, *inputs.shape[2:])


class Dense(nn.Module):
    """A classifier without spikes."""

    @nn.compact
    def __call__(self, inputs, lengths, example_ids, capture):
        return nn.Dense(CLASSES, name="head")(inputs.mean(axis=1)), {}


def run(model, split, key):
    variables = {"params": {"head": {"kernel": jnp.ones((FEATURES, CLASSES)),
                                     "bias": jnp.ones(CLASSES)}}}
    with jax.numpy_rank_promotion("allow"):  # of the bias in flax's Dense
        return measure.measure(model, variables, split, key())


@pytest.fixture
def split(rng):
    """Ten examples, as a data set may store them."""
    inputs = rng.normal(size=(10, LENGTH, FEATURES)).astype(np.float16)
    return Split(inputs, rng.integers(1, LENGTH + 1, 10), rng.integers(0, CLASSES, 10, np.uint8))


def test_measure_counts_every_row_of_whole_batches_once(split, key, monkeypatch):
    monkeypatch.setattr(measure, "BATCH_STEPS", 4 * LENGTH)  # 2 batches of 4 rows, 2 rows left
    findings = run(Threshold(), split, key)
    fired = [split.inputs[b, : split.lengths[b]].astype(np.float32) > b / 10 for b in range(8)]
    steps = split.lengths[:8].sum()
    assert findings.examples == 8
    np.testing.assert_allclose(
        findings.shares["input"].firing_rate, sum(map(np.sum, fired)) / (FEATURES * steps),
        rtol=1e-14,  # counts are whole numbers; one quotient in float64
    )
    # Each spike triggers 5 operations, and each step of each neuron in the twin.
    assert findings.operations.synaptic_ops == 5 * sum(map(np.sum, fired)) / 8
    assert findings.operations.dense_macs == 5 * FEATURES * steps / 8


def test_measure_captures_the_first_batch(split, key, monkeypatch):
    monkeypatch.setattr(measure, "BATCH_STEPS", 4 * LENGTH)
    findings = run(Threshold(), split, key)
    expected = split.inputs[:4].astype(np.float32) > np.arange(4)[:, None, None] / 10
    np.testing.assert_array_equal(findings.captured["input"]["spike_array"], expected[None])
    np.testing.assert_array_equal(findings.lengths, split.lengths[:4])


def test_measure_stops_at_the_limit_of_examples(split, key, monkeypatch):
    monkeypatch.setattr(measure, "EXAMPLES", 6)
    assert run(Threshold(), split, key).examples == 6


def test_measure_takes_two_documents_as_one_example(rng, key):
    inputs = rng.normal(size=(2, 2, LENGTH, FEATURES)).astype(np.float32)
    split = Split(inputs, np.array([[12, 5], [3, 7]]), np.zeros(2, int))
    findings = run(Threshold(), split, key)
    assert findings.examples == 2
    assert findings.operations.dense_macs == 5 * FEATURES * 27 / 2
    np.testing.assert_array_equal(findings.lengths, [12, 5, 3, 7])
    spikes = findings.captured["input"]["spike_array"]
    np.testing.assert_array_equal(activity.active_ratio(spikes, findings.lengths)[:, 11],
                                  spikes[:, 0, 11].mean(axis=-1))


def test_measure_of_a_model_without_spikes_has_no_operations(split, key):
    findings = run(Dense(), split, key)
    assert (findings.shares, findings.operations, findings.captured) == ({}, None, {})


def shapes(name, inputs, **fields):
    """Parameters of a model of the zoo, as shapes: nothing is computed."""
    model = models.create_model(name, **fields)
    keys = {"params": jax.random.key(0), "spikes": jax.random.key(1)}
    return jax.eval_shape(lambda: model.init(keys, inputs))["params"]


def operations(params, *, steps=7.5, tokens=False, scores_every_step=False):
    return measure.count_operations(
        {}, params, examples=2, steps=steps, tokens=tokens, scores_every_step=scores_every_step
    )


@pytest.mark.parametrize("fields, recurrences", [
    ({}, 1),
    ({"causal": False, "bidirectional": True}, 2),
    ({"causal": False}, 2),
    ({"preset": "official", "vocab_size": None}, 4),
])
def test_count_operations_of_p_spikessm_by_closed_forms(fields, recurrences):
    inputs = jnp.zeros((1, LENGTH, FEATURES))
    found = operations(shapes("pspikessm", inputs, **FIELDS | fields))
    assert found.encoder_macs == 7.5 * FEATURES * H
    assert found.head_macs == H * CLASSES
    # 2 pairs a neuron; 4 real products to decay one and 2 to read it out.
    assert found.state_macs == 7.5 * LAYERS * H * 2 * recurrences * (4 + 2)


def test_count_operations_of_two_documents_compares_them_in_the_head():
    inputs = jnp.zeros((1, 2, LENGTH, FEATURES))
    found = operations(shapes("pspikessm", inputs, documents=2, **FIELDS))
    assert found.head_macs == 4 * H * H + H * CLASSES


def test_count_operations_runs_the_head_at_every_step_without_pooling():
    params = shapes("pspikessm", jnp.zeros((1, LENGTH, FEATURES)), pool="none", **FIELDS)
    assert operations(params, scores_every_step=True).head_macs == 7.5 * H * CLASSES


def test_count_operations_looks_tokens_up_without_arithmetic():
    tokens = jnp.zeros((1, LENGTH), int)
    for name in ("pspikessm", "silif"):
        fields = FIELDS if name == "pspikessm" else {"widths": (4, 4)}
        params = shapes(name, tokens, vocab_size=5, **fields)
        assert operations(params, tokens=True).encoder_macs == 0


def test_count_operations_of_reset_neurons_counts_the_product_with_the_inputs():
    found = operations(shapes("silif", jnp.zeros((1, LENGTH, FEATURES)), widths=(4, 6)))
    assert (found.encoder_macs, found.head_macs, found.state_macs) == (7.5 * FEATURES * 4, 0, 0)


@pytest.mark.parametrize("fields, into_states, into_neurons", [
    ({}, 4, H),
    ({"causal": False, "bidirectional": True}, 4, H),
    ({"causal": False}, 8, H),
    ({"mixer": "none"}, 4, 1),
])
def test_fan_out_of_a_spike_counts_both_states_of_a_two_sided_layer(
    fields, into_states, into_neurons
):
    block = Block(models.create_model("pspikessm", **FIELDS | fields).config, None)
    assert (block.fan_out("input"), block.fan_out("output")) == (into_states, into_neurons)
