"""Evaluation: every example once, noise by example, three ways to run a stochastic model."""

import jax
import numpy as np
import pytest
from tiny import TinySpiking, one_device, tiny_settings, tiny_task

from pspike_jax.training import create_state, evaluate, make_mesh, run_split


@pytest.fixture(scope="module")
def variables():
    state = create_state(TinySpiking(), tiny_task(), tiny_settings(), one_device())
    return jax.device_get(state.variables)


def run(variables, batch_size=8, mesh=None, seed=3, **how):
    return run_split(
        TinySpiking(), variables, tiny_task().test, key=jax.random.key(seed),
        batch_size=batch_size, mesh=mesh or one_device(), **how,
    )


def test_run_split_does_not_depend_on_the_batch_size(variables):
    # 24 examples: batches of 8 fit, batches of 16 are filled up with repeats.
    (first, one), (second, two) = run(variables, 8), run(variables, 16)
    assert first["loss"]["count"] == second["loss"]["count"] == 24
    assert first["accuracy"]["sum"] == second["accuracy"]["sum"]
    # The same spikes, so counts are equal; a sum of 24 float32 losses in another order.
    np.testing.assert_allclose(first["loss"]["sum"], second["loss"]["sum"], rtol=1e-6)
    for name in ("spikes", "steps", "neuron_spikes", "surrogate"):
        np.testing.assert_array_equal(one["input"][name], two["input"][name])
    assert one["input"]["steps"] == tiny_task().test.lengths.sum()


def test_run_split_does_not_depend_on_the_mesh(variables):
    (first, one), (second, two) = run(variables, 8), run(variables, 8, make_mesh(data=8))
    assert first["accuracy"]["sum"] == second["accuracy"]["sum"]
    np.testing.assert_array_equal(one["input"]["neuron_spikes"], two["input"]["neuron_spikes"])


def test_run_split_draws_by_its_key(variables):
    (_, one), (_, again), (_, other) = (run(variables, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one["input"]["neuron_spikes"], again["input"]["neuron_spikes"])
    assert not np.array_equal(one["input"]["neuron_spikes"], other["input"]["neuron_spikes"])


def numpy_logits(variables, split, threshold):
    """Run the tiny model in float64: p above a threshold fires; None passes p itself."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    statistics = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["batch_stats"])
    drive = split.inputs.astype(np.float64) @ params["encoder"]["kernel"]
    drive = (drive - statistics["norm"]["mean"]) / np.sqrt(statistics["norm"]["var"] + 1e-5)
    drive = drive * params["norm"]["scale"] + params["norm"]["bias"]
    fired = np.clip(drive, 0, 1) if threshold is None else (drive > threshold)
    valid = np.arange(split.inputs.shape[1]) < split.lengths[:, None]
    pooled = (fired * valid[..., None]).sum(axis=1) / split.lengths[:, None]
    return pooled @ params["head"]["kernel"] + params["head"]["bias"]


@pytest.mark.parametrize(("name", "threshold"), [("mean_field", None), ("threshold", 0.5)])
def test_evaluate_runs_mean_field_and_threshold(variables, name, threshold):
    split = tiny_task().test
    found = evaluate(
        TinySpiking(), variables, split, key=jax.random.key(0), draws=2, batch_size=8,
        mesh=one_device(),
    )[name]
    logits = numpy_logits(variables, split, threshold)
    accuracy = np.mean(np.argmax(logits, axis=1) == split.labels)
    assert found["mean"] == pytest.approx(accuracy, abs=1e-12)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(24), split.labels]
    # Float32 logits of order 1 against float64.
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert found["sem"] == 0 and found["draws"] == 1 and found["examples"] == 24
    assert found["sem_examples"] == pytest.approx(np.sqrt(accuracy * (1 - accuracy) / 23))


def test_evaluate_averages_single_draws(variables):
    key, draws = jax.random.key(5), 4
    found = evaluate(
        TinySpiking(), variables, tiny_task().test, key=key, draws=draws, batch_size=8,
        mesh=one_device(),
    )["sampled"]
    single = [
        run_split(
            TinySpiking(), variables, tiny_task().test, key=jax.random.fold_in(key, draw),
            batch_size=8, mesh=one_device(),
        )[0]["accuracy"]
        for draw in range(draws)
    ]
    accuracies = np.array([one["sum"] / one["count"] for one in single])
    assert found["accuracies"] == accuracies.tolist() and len(set(accuracies)) > 1
    assert found["mean"] == pytest.approx(accuracies.mean())
    assert found["sem"] == pytest.approx(accuracies.std(ddof=1) / 2)


def test_evaluate_refuses_one_draw(variables):
    with pytest.raises(ValueError, match="draws is 1, expected at least 2"):
        evaluate(
            TinySpiking(), variables, tiny_task().test, key=jax.random.key(0), draws=1,
            batch_size=8, mesh=one_device(),
        )
