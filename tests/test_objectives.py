"""Objectives against float64 NumPy that shares no code: losses, weights, metrics, errors, masks."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax import objectives
from pspike_jax.objectives import metrics

B, L, K = 7, 6, 4
RTOL = 3e-6  # float32 logarithms and sums of a few dozen numbers


def nats(logits, label, smoothing=0.0):
    """Cross-entropy of one step, by the definition, in float64."""
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    target = np.full(len(p), smoothing / len(p))
    target[label] += 1 - smoothing
    return -(target * np.log(p)).sum()


def run(objective, outputs, **batch):
    """Losses, weights and metrics of one compiled call, on the host."""
    call = jax.jit(lambda outputs, batch: objective(outputs, batch))
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    losses, weights, measured = jax.device_get(call(jnp.asarray(outputs, jnp.float32), batch))
    assert losses.dtype == weights.dtype == np.float32 and losses.shape == weights.shape
    assert objective.merit[0] in measured and "loss" in measured
    return losses, weights, measured


def total(losses, weights):
    return (losses * weights).sum() / weights.sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [None, (1.0, 0.0, 2.5, 0.5)])
def test_classification_matches_float64(rng, smoothing, weights):
    logits = rng.normal(0, 3, size=(B, K)).astype(np.float32)
    labels = np.array([0, 1, 2, 3, 2, -1, 0], np.int32)
    objective = objectives.Classification(K, class_weights=weights, label_smoothing=smoothing)
    losses, found, measured = run(objective, logits, lengths=np.full(B, L), targets=labels)
    rows = np.flatnonzero(labels >= 0)
    expected = np.array([nats(np.float64(logits[i]), labels[i], smoothing) for i in rows])
    by_class = np.ones(K) if weights is None else np.array(weights)
    np.testing.assert_allclose(losses[rows], expected, rtol=RTOL)
    np.testing.assert_allclose(found[rows], by_class[labels[rows]], rtol=1e-6)
    assert losses[5] == found[5] == 0
    hits = np.argmax(logits[rows], axis=1) == labels[rows]
    assert metrics.mean(measured["accuracy"]) == hits.mean()
    # Metrics count every example alike, whatever its class weighs.
    np.testing.assert_allclose(metrics.mean(measured["loss"]), expected.mean(), rtol=RTOL)
    error = expected.std(ddof=1) / np.sqrt(len(rows))
    np.testing.assert_allclose(metrics.standard_error(measured["loss"]), error, rtol=1e-4)


def test_balanced_weights_make_classes_count_alike():
    targets = np.array([0] * 6 + [1] * 3 + [2])
    objective = objectives.Classification(class_weights="balanced").complete(None, targets)
    assert objective.num_classes == 3
    totals = [weight * (targets == k).sum() for k, weight in enumerate(objective.class_weights)]
    np.testing.assert_allclose(totals, 10 / 3, rtol=1e-12)
    with pytest.raises(ValueError, match="class 3 has no example"):
        objectives.Classification(4, class_weights="balanced").complete(None, targets)


@pytest.mark.parametrize("per_step", [False, True])
def test_what_does_not_count_has_no_gradient(per_step):
    kind = objectives.StepClassification if per_step else objectives.Classification
    logits = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf]])
    labels = jnp.array([0, -1])
    if per_step:
        logits, labels = logits[None], labels[None]

    def loss(x):
        losses, weights, _ = kind(2)(x, {"targets": labels, "lengths": jnp.array([2])})
        return jnp.sum(losses * weights)

    gradient = jax.grad(loss)(logits).reshape(2, 2)
    assert np.all(np.isfinite(gradient)) and np.all(gradient[1] == 0) and np.any(gradient[0] != 0)


def test_step_classification_counts_steps_of_lengths_with_targets(rng):
    logits = rng.normal(size=(B, L, K)).astype(np.float32)
    labels = rng.integers(-1, K, size=(B, L)).astype(np.int32)
    lengths = np.array([6, 3, 1, 0, 5, 6, 2], np.int32)
    objective = objectives.StepClassification(K)
    losses, weights, measured = run(objective, logits, lengths=lengths, targets=labels)
    places = [(b, t) for b in range(B) for t in range(lengths[b]) if labels[b, t] >= 0]
    expected = np.array([nats(np.float64(logits[place]), labels[place]) for place in places])
    assert weights.sum() == len(places) and all(weights[place] == 1 for place in places)
    np.testing.assert_allclose(total(losses, weights), expected.mean(), rtol=RTOL)
    hits = np.array([np.argmax(logits[place]) == labels[place] for place in places])
    np.testing.assert_allclose(metrics.mean(measured["accuracy"]), hits.mean(), rtol=1e-12)
    # The error of a ratio: deviations of the examples' sums from the mean times their counts.
    rows = {b for b, _ in places}
    apart = [
        sum(hit - hits.mean() for hit, (b, _) in zip(hits, places) if b == row) for row in rows
    ]
    expected = np.sqrt(len(rows) / (len(rows) - 1) * np.sum(np.square(apart))) / len(places)
    # Deviations from the mean are rounded to float32.
    np.testing.assert_allclose(metrics.standard_error(measured["accuracy"]), expected, rtol=1e-6)


def test_regression_is_the_mean_over_what_counts(rng):
    outputs = rng.normal(size=(B, 3)).astype(np.float32)
    targets = rng.normal(size=(B, 3)).astype(np.float32)
    targets[1, 2] = targets[4, 0] = np.nan
    targets[6] = np.nan
    losses, weights, measured = run(
        objectives.Regression(3), outputs, lengths=np.full(B, L), targets=targets
    )
    error = np.float64(outputs) - targets
    np.testing.assert_allclose(total(losses, weights), np.nanmean(error**2), rtol=RTOL)
    np.testing.assert_allclose(metrics.mean(measured["mse"]), np.nanmean(error**2), rtol=RTOL)
    np.testing.assert_allclose(metrics.mean(measured["mae"]), np.nanmean(abs(error)), rtol=RTOL)
    assert weights[6] == losses[6] == 0
    summary = objectives.Regression(3).summary(outputs, targets, np.full(B, L))
    assert summary["targets"].shape == (6, 3)
    for k in range(3):
        rows = ~np.isnan(targets[:, k])
        wide = np.float64(targets[rows, k])
        r2 = 1 - (error[rows, k] ** 2).sum() / ((wide - wide.mean()) ** 2).sum()
        np.testing.assert_allclose(summary["r2"][k], r2, rtol=1e-10)


def test_regression_of_one_number_takes_targets_without_an_axis(rng):
    outputs, targets = rng.normal(size=(2, B, 1)).astype(np.float32)
    flat = run(objectives.Regression(), outputs, lengths=np.full(B, L), targets=targets[:, 0])
    column = run(objectives.Regression(), outputs, lengths=np.full(B, L), targets=targets)
    chex.assert_trees_all_equal(flat, column)


def test_step_regression_leaves_out_padding_and_nan(rng):
    outputs = rng.normal(size=(B, L, 2)).astype(np.float32)
    targets = rng.normal(size=(B, L, 2)).astype(np.float32)
    targets[0, 1, 0] = np.nan
    lengths = np.array([6, 3, 1, 0, 5, 6, 2], np.int32)
    losses, weights, measured = run(
        objectives.StepRegression(2), outputs, lengths=lengths, targets=targets
    )
    inside = (np.arange(L) < lengths[:, None])[..., None] & ~np.isnan(targets)
    expected = np.mean((np.float64(outputs) - targets)[inside] ** 2)
    np.testing.assert_allclose(total(losses, weights), expected, rtol=RTOL)
    np.testing.assert_allclose(metrics.mean(measured["mse"]), expected, rtol=RTOL)


@pytest.mark.parametrize("horizon", [1, 3])
def test_forecast_compares_with_inputs_to_come(rng, horizon):
    inputs = rng.normal(size=(B, L, 3)).astype(np.float32)
    outputs = rng.normal(size=(B, L, 2)).astype(np.float32)
    lengths = np.array([6, 3, 1, 0, 5, 6, 4], np.int32)
    objective = objectives.Forecast(horizon, num_outputs=2)
    losses, weights, measured = run(objective, outputs, inputs=inputs, lengths=lengths)
    squared, still = [], []
    for b in range(B):
        for t in range(lengths[b] - horizon):
            ahead = np.float64(inputs[b, t + horizon, :2])
            squared.append((outputs[b, t] - ahead) ** 2)
            still.append((inputs[b, t, :2] - ahead) ** 2)
    np.testing.assert_allclose(total(losses, weights), np.mean(squared), rtol=RTOL)
    np.testing.assert_allclose(metrics.mean(measured["mse"]), np.mean(squared), rtol=RTOL)
    skill = 1 - np.mean(squared) / np.mean(still)
    np.testing.assert_allclose(metrics.mean(measured["skill"]), skill, rtol=1e-5, atol=1e-6)
    summary = objective.summary(outputs, inputs, lengths)
    assert summary["predictions"].shape == (len(squared), 2)
    np.testing.assert_allclose(
        np.mean((summary["predictions"] - summary["targets"]) ** 2), np.mean(squared), rtol=1e-10
    )


def test_forecast_of_nothing_changes_has_no_skill(rng):
    inputs = rng.normal(size=(B, L, 2)).astype(np.float32)
    objective = objectives.Forecast(2).complete(inputs)
    _, _, measured = run(objective, inputs, inputs=inputs, lengths=np.full(B, L))
    assert metrics.mean(measured["skill"]) == 0


def test_next_token_is_measured_in_bits(rng):
    tokens = rng.integers(0, K, size=(B, L)).astype(np.int32)
    logits = rng.normal(size=(B, L, K)).astype(np.float32)
    lengths = np.array([6, 3, 1, 0, 5, 6, 2], np.int32)
    objective = objectives.NextToken(K)
    losses, weights, measured = run(objective, logits, inputs=tokens, lengths=lengths)
    expected = [
        nats(np.float64(logits[b, t]), tokens[b, t + 1])
        for b in range(B) for t in range(lengths[b] - 1)
    ]
    np.testing.assert_allclose(total(losses, weights), np.mean(expected), rtol=RTOL)
    bits = np.mean(expected) / np.log(2)
    np.testing.assert_allclose(metrics.mean(measured["bits_per_token"]), bits, rtol=RTOL)
    summary = objective.summary(logits, tokens, lengths)
    np.testing.assert_allclose(summary["bits_per_token"], bits, rtol=1e-10)
    np.testing.assert_allclose(summary["perplexity"], 2**bits, rtol=1e-10)
    assert summary["bits_by_step"].shape == (L - 1,)


def test_targets_ahead_stay_within_their_example_of_a_packed_row(rng):
    tokens = rng.integers(0, K, size=(1, 8)).astype(np.int32)
    resets = np.zeros((1, 8), bool)
    resets[0, [0, 3, 4]] = True  # examples of 3, 1 and 3 steps, and one of padding
    _, weights, _ = run(
        objectives.NextToken(K), np.zeros((1, 8, K)), inputs=tokens, lengths=[7], resets=resets
    )
    assert weights[0].tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    inputs = rng.normal(size=(1, 8, 1)).astype(np.float32)
    _, weights, _ = run(
        objectives.Forecast(2, 1), np.zeros((1, 8, 1)), inputs=inputs, lengths=[7], resets=resets
    )
    assert weights[0].tolist() == [1, 0, 0, 0, 1, 0, 0, 0]


def poisson(rate, count):
    return rate - count * np.log(rate) + math.lgamma(count + 1)


def test_counts_are_poisson_and_measured_in_bits_per_spike(rng):
    counts = rng.poisson(1.5, size=(B, L, 2)).astype(np.float32)
    counts[0, 0, 0], counts[2, 3, 1] = np.nan, -1
    outputs = rng.normal(0.3, 0.5, size=(B, L, 2)).astype(np.float32)
    lengths = np.array([6, 3, 1, 0, 5, 6, 4], np.int32)
    objective = objectives.Counts(2, rates=(1.25, 1.75))
    losses, weights, measured = run(objective, outputs, lengths=lengths, targets=counts)
    places = [
        (b, t, k) for b in range(B) for t in range(lengths[b]) for k in range(2)
        if counts[b, t, k] >= 0
    ]
    model = sum(poisson(np.exp(np.float64(outputs[place])), counts[place]) for place in places)
    null = sum(poisson(objective.rates[place[2]], counts[place]) for place in places)
    spikes = sum(counts[place] for place in places)
    most = sum(poisson(counts[place], counts[place]) if counts[place] else 0 for place in places)
    np.testing.assert_allclose(total(losses, weights), model / len(places), rtol=RTOL)
    found = {name: metrics.mean(value) for name, value in measured.items()}
    np.testing.assert_allclose(found["loss"], model / len(places), rtol=RTOL)
    bits = (null - model) / np.log(2) / spikes
    np.testing.assert_allclose(found["bits_per_spike"], bits, rtol=1e-4)
    np.testing.assert_allclose(
        found["deviance_explained"], 1 - (model - most) / (null - most), rtol=1e-4
    )


def test_counts_at_their_own_rates_are_fully_explained():
    counts = np.array([[[1.0, 2.0], [3.0, 5.0]]], np.float32)
    objective = objectives.Counts(2, rates=(2.0, 3.0))
    _, _, measured = run(objective, np.log(counts), lengths=[2], targets=counts)
    np.testing.assert_allclose(metrics.mean(measured["deviance_explained"]), 1, rtol=1e-5)


def test_counts_take_their_rates_from_training():
    counts = np.array([[[1, 0], [3, 0]], [[-1, 0], [2, 0]]])
    objective = objectives.Counts().complete(None, counts)
    # A counter that was silent is taken to have counted half an event, not for impossible.
    assert objective.num_outputs == 2 and objective.rates == (2.0, 0.125)
    assert objective.merit == ("bits_per_spike", "max")
    assert objectives.Counts(2).merit == ("loss", "min")


def test_pooled_objectives_read_packed_rows_by_the_same_masks(rng):
    separate = rng.normal(size=(3, K)).astype(np.float32)
    labels = np.array([2, 0, 3], np.int32)
    rows = np.full((1, L), -1, np.int32)
    logits = rng.normal(size=(1, L, K)).astype(np.float32)
    rows[0, [1, 2, 5]], logits[0, [1, 2, 5]] = labels, separate
    packed = run(objectives.Classification(K), logits, lengths=[L], targets=rows)
    plain = run(objectives.Classification(K), separate, lengths=np.full(3, 3), targets=labels)
    np.testing.assert_allclose(total(*packed[:2]), total(*plain[:2]), rtol=RTOL)
    for name in plain[2]:
        for of in (metrics.mean, metrics.standard_error):
            np.testing.assert_allclose(of(packed[2][name]), of(plain[2][name]), rtol=1e-5)
    numbers = rng.normal(size=(3, 2)).astype(np.float32)
    targets = np.full((1, L, 2), np.nan, np.float32)
    targets[0, [1, 2, 5]] = numbers
    packed = run(objectives.Regression(2), logits[..., :2], lengths=[L], targets=targets)
    plain = run(objectives.Regression(2), separate[:, :2], lengths=np.full(3, 3), targets=numbers)
    np.testing.assert_allclose(total(*packed[:2]), total(*plain[:2]), rtol=RTOL)
    for name in plain[2]:
        error = metrics.standard_error(plain[2][name])
        np.testing.assert_allclose(metrics.standard_error(packed[2][name]), error, rtol=1e-4)


def test_confusion_counts_true_classes_in_rows():
    outputs = np.eye(3)[[0, 0, 1, 2, 2]]
    targets = np.array([0, 1, 1, 1, 2])
    summary = objectives.Classification(3, names="abc").summary(outputs, targets, np.ones(5))
    assert summary["confusion"].tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 1]]
    np.testing.assert_allclose(summary["recall"], [1, 1 / 3, 1])
    np.testing.assert_allclose(summary["precision"], [1 / 2, 1, 1 / 2])
    np.testing.assert_allclose(summary["balanced_accuracy"], 7 / 9)
    assert summary["names"] == ("a", "b", "c")


OF_EACH_KIND = [
    objectives.Classification(3), objectives.StepClassification(3), objectives.Regression(2),
    objectives.StepRegression(2), objectives.Forecast(2, 3), objectives.NextToken(5),
    objectives.Counts(2),
]


@pytest.mark.parametrize("objective", OF_EACH_KIND, ids=lambda x: type(x).__name__)
def test_objectives_keep_the_protocol_and_are_constants(objective):
    assert isinstance(objective, objectives.Objective)
    assert hash(objective) == hash(dataclasses.replace(objective))
    assert objective.merit[1] in ("min", "max") and objective.num_outputs >= 2


@pytest.mark.parametrize(
    ("objective", "targets", "error", "message"),
    [
        (OF_EACH_KIND[0], np.array([0, 3]), ValueError, r"targets\[1\] is 3, expected 0 to 2"),
        (OF_EACH_KIND[0], np.array([0, -1]), ValueError, r"targets\[1\] is -1, expected 0 to 2"),
        (OF_EACH_KIND[0], np.zeros(2), TypeError, "float64, expected integers"),
        (OF_EACH_KIND[0], None, TypeError, "targets are None"),
        (OF_EACH_KIND[1], np.zeros((2, 3), int), ValueError, r"\(2, 3\), expected \(2, 4\)"),
        (OF_EACH_KIND[1], np.full((2, 4), -1), ValueError, "every target is -1"),
        (OF_EACH_KIND[1], np.full((2, 4), -2), ValueError, r"targets\[0, 0\] is -2, expected 0 to"),
        (OF_EACH_KIND[2], np.full((2, 2), np.nan), ValueError, r"targets\[0, 0\] is nan"),
        (OF_EACH_KIND[2], np.full((2, 2), np.inf), ValueError, r"targets\[0, 0\] is inf"),
        (OF_EACH_KIND[2], np.zeros((2, 3)), ValueError, r"\(2, 3\), expected \(2, 2\)"),
        (OF_EACH_KIND[2], np.zeros((2, 2), int), TypeError, "int64, expected floats"),
        (OF_EACH_KIND[3], np.full((2, 4, 2), np.nan), ValueError, "every target is nan"),
        (OF_EACH_KIND[4], np.zeros(2), ValueError, "give None"),
        (OF_EACH_KIND[5], None, ValueError, "no tokens"),
        (OF_EACH_KIND[6], np.full((2, 4, 2), 0.5), ValueError, r"is 0.5, expected whole numbers"),
        (OF_EACH_KIND[6], np.full((2, 4, 2), -3), ValueError, r"is -3, expected whole numbers"),
        (OF_EACH_KIND[6], np.full((2, 4, 2), -1), ValueError, "no target counts"),
    ],
)
def test_check_names_what_cannot_be_learnt(objective, targets, error, message):
    inputs, lengths = np.zeros((2, 4, 3), np.float32), np.array([4, 2])
    with pytest.raises(error, match=f"here: .*{message}"):
        objective.check(inputs, lengths, targets, "here")


def test_forecast_refuses_a_horizon_beyond_every_example():
    with pytest.raises(ValueError, match="4 steps, expected more than the horizon 4"):
        objectives.Forecast(4, 3).check(np.zeros((2, 4, 3)), np.array([4, 2]), None, "here")


@pytest.mark.parametrize(
    "make",
    [
        lambda: objectives.Classification(1),
        lambda: objectives.Classification(3, names=("a", "b")),
        lambda: objectives.Classification(2, class_weights=(1.0, -1.0)),
        lambda: objectives.Classification(2, class_weights="even"),
        lambda: objectives.Classification(2, label_smoothing=1.0),
        lambda: objectives.Regression(0),
        lambda: objectives.Forecast(0),
        lambda: objectives.NextToken(1),
        lambda: objectives.Counts(2, rates=(1.0, 0.0)),
        lambda: objectives.Counts(2, rates=(1.0,)),
    ],
)
def test_objectives_refuse_what_they_cannot_be(make):
    with pytest.raises(ValueError):
        make()
