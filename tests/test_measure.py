"""Runs over a test split against counts in NumPy."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.analysis import activity, measure, report

CLASSES, FEATURES, LENGTH = 3, 2, 12
MACS = {"encoder": 3.0, "head": 6.0, "state": 9.0, "dense": 0.0}


class Split:
    """Inputs, lengths and targets, as the splits of tasks have them."""

    def __init__(self, inputs, lengths, targets, dt=None):
        self.inputs, self.lengths, self.targets, self.dt = inputs, lengths, targets, dt


class Threshold(nn.Module):
    """Neuron i of example b fires at step t where inputs[b, t, i] > b / 10."""

    @nn.compact
    def __call__(self, inputs, lengths, example_ids, capture, dt=None):
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
        if dt is not None:
            logits += 100 * dt[:, :1]
        sites = {"input": {name: count[None] for name, count in counts.items()}}
        steps = jnp.sum(lengths, dtype=jnp.float32)
        return logits, {"sites": sites, "losses": {},
                        "macs": {name: steps * value for name, value in MACS.items()}}

    def stacked(self, example_ids, inputs):
        if inputs.ndim == 3:
            return example_ids, inputs
        return jnp.repeat(example_ids, 2), inputs.reshape(-1, *inputs.shape[2:])


class Dense(nn.Module):
    """A classifier without spikes."""

    @nn.compact
    def __call__(self, inputs, lengths, example_ids, capture):
        aux = {"sites": {}, "losses": {}, "macs": dict.fromkeys(MACS, jnp.float32(1))}
        return nn.Dense(CLASSES, name="head")(inputs.mean(axis=1)), aux


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
    found = findings.operations
    np.testing.assert_allclose(
        [found.encoder_macs, found.head_macs, found.state_macs, found.real_macs],
        [value * steps / 8 for value in MACS.values()], rtol=1e-6,  # float32 sums
    )
    assert findings.outputs.shape == (8, CLASSES)
    np.testing.assert_array_equal(findings.targets, split.targets[:8])
    np.testing.assert_array_equal(findings.all_lengths, split.lengths[:8])


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


def test_measure_compiles_one_program(split, key, monkeypatch):
    monkeypatch.setattr(measure, "BATCH_STEPS", 2 * LENGTH)  # 5 batches
    model = Threshold()
    apply = chex.assert_max_traces(lambda *args, **options: model.apply(*args, **options), n=1)
    traced = type("Model", (), {"apply": staticmethod(apply)})
    assert run(traced, split, key).examples == 10
    chex.clear_trace_counter()


def test_measure_hands_on_the_time_between_steps_and_takes_inputs_for_targets(split, key):
    split.dt, split.targets = np.ones((10, LENGTH)), None
    findings = run(Threshold(), split, key)
    assert findings.outputs.min() > 90
    np.testing.assert_array_equal(findings.targets, split.inputs)


def test_measure_reads_the_examples_of_a_packed_split(split, key):
    packed = type("Packed", (), {"examples": split})
    assert run(Threshold(), packed, key).examples == 10


def test_summary_counts_probabilities_near_zero_and_no_padding():
    p = np.full((2, 2, 3, 2), 0.5)  # layers, examples, steps, neurons
    p[0, 0, :, 0] = 0.04  # three of the eight values that are no padding
    p[1, 0, 2, 1] = 0.05  # not below the limit
    p[:, 1, 1:] = 0.0  # padding of the second example, whose length is 1
    findings = measure.Findings(
        examples=2, shares={}, operations=None, captured={"input": {"probability_array": p}},
        lengths=np.array([3, 1]), outputs=np.zeros((2, 1)), targets=np.zeros(2),
        all_lengths=np.array([3, 1]),
    )
    content = report.summary(findings, {}, merit="loss", answers={})
    assert content["near_zero"] == {"input": [3 / 8, 0.0]}
