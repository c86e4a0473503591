"""Evaluation: every example once, noise by example, three ways to run a stochastic model."""

import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TinySpiking, one_device, tiny, tiny_settings, tiny_task

from pspike_jax.training import create_state, evaluate, evaluation, make_mesh, predict, run_split


@pytest.fixture(scope="module")
def variables():
    state = create_state(TinySpiking(), tiny_task(), tiny_settings(), one_device())
    return jax.device_get(state.variables)


def run(variables, batch_size=8, mesh=None, seed=3, **how):
    return run_split(
        TinySpiking(),
        variables,
        tiny_task().test,
        objective=tiny_task().objective,
        key=jax.random.key(seed),
        batch_size=batch_size,
        mesh=mesh or one_device(),
        **how,
    )


def fired(counts):
    return counts["sites"]["input"]["neuron_spikes"]


def test_run_split_does_not_depend_on_the_batch_size(variables):
    # 24 examples: batches of 8 fit, batches of 16 are filled up with repeats.
    (first, one), (second, two) = run(variables, 8), run(variables, 16)
    assert first["loss"]["count"] == second["loss"]["count"] == 24
    assert first["accuracy"]["sum"] == second["accuracy"]["sum"]
    # The same spikes, so counts are equal; a sum of 24 float32 losses in another order.
    np.testing.assert_allclose(first["loss"]["sum"], second["loss"]["sum"], rtol=1e-6)
    for name in ("spikes", "steps", "neuron_spikes", "surrogate"):
        np.testing.assert_array_equal(one["sites"]["input"][name], two["sites"]["input"][name])
    assert one["sites"]["input"]["steps"] == tiny_task().test.lengths.sum()


def test_run_split_does_not_depend_on_the_mesh(variables):
    (first, one), (second, two) = run(variables, 8), run(variables, 8, make_mesh(data=8))
    assert first["accuracy"]["sum"] == second["accuracy"]["sum"]
    np.testing.assert_array_equal(fired(one), fired(two))


def test_run_split_draws_by_its_key(variables):
    (_, one), (_, again), (_, other) = (run(variables, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(fired(one), fired(again))
    assert not np.array_equal(fired(one), fired(other))


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
    scores = evaluate(
        TinySpiking(),
        variables,
        tiny_task(),
        key=jax.random.key(0),
        draws=2,
        batch_size=8,
        mesh=one_device(),
    )
    found = scores[name]
    logits = numpy_logits(variables, split, threshold)
    accuracy = np.mean(np.argmax(logits, axis=1) == split.targets)
    assert found["mean"] == pytest.approx(accuracy, abs=1e-12)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(24), split.targets]
    # Float32 logits of order 1 against float64.
    assert found["metrics"]["loss"]["mean"] == pytest.approx(losses.mean(), rel=1e-5)
    assert found["sem"] == 0 and "draws" not in found and found["examples"] == 24
    assert found["sem_examples"] == pytest.approx(np.sqrt(accuracy * (1 - accuracy) / 23))


def test_evaluate_averages_single_draws(variables):
    key, draws = jax.random.key(5), 4
    found = evaluate(
        TinySpiking(),
        variables,
        tiny_task(),
        key=key,
        draws=draws,
        batch_size=8,
        mesh=one_device(),
    )["sampled"]
    single = [
        run_split(
            TinySpiking(),
            variables,
            tiny_task().test,
            objective=tiny_task().objective,
            key=jax.random.fold_in(key, draw),
            batch_size=8,
            mesh=one_device(),
        )[0]["accuracy"]
        for draw in range(draws)
    ]
    accuracies = np.array([one["sum"] / one["count"] for one in single])
    assert found["values"] == accuracies.tolist() and len(set(accuracies)) > 1
    assert found["mean"] == pytest.approx(accuracies.mean())
    assert found["sem"] == pytest.approx(accuracies.std(ddof=1) / 2)


def test_evaluate_runs_a_deterministic_model_once(variables, monkeypatch):
    passes, run = [], evaluation.run_split
    monkeypatch.setattr(evaluation, "run_split", lambda *a, **k: passes.append(1) or run(*a, **k))
    scores = evaluate(
        TinySpiking(stochastic=False), variables, tiny_task(), key=jax.random.key(0), batch_size=8
    )
    assert set(scores) == {"sampled"} and len(passes) == 1
    assert scores["sampled"]["sem"] == 0 and not {"draws", "values"} & set(scores["sampled"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"draws": 1}, ValueError, "draws is 1, expected at least 2"),
        ({"split": "tests"}, ValueError, "task 'tiny' has no split 'tests', only train"),
        ({"split": None}, ValueError, "task 'tiny' has no split None"),
        ({"task": tiny_task().test}, TypeError, "task is a Split, expected a Task"),
        ({"model": tiny(features=[8])}, TypeError, "TinySpiking: features cannot be hashed"),
    ],
)
def test_evaluate_refuses_what_it_cannot_measure(variables, arguments, error, message):
    given = {"model": TinySpiking(), "task": tiny_task(), "split": "test"} | arguments
    with pytest.raises(error, match=message):
        evaluate(
            given.pop("model"),
            variables,
            given.pop("task"),
            given.pop("split"),
            key=jax.random.key(0),
            batch_size=8,
            **given,
        )


def test_evaluate_keeps_no_batch(variables, monkeypatch):
    """What a batch leaves is gone two batches later: memory does not grow with the split."""
    alive, fetch = [], jax.device_get

    def watch(tree):
        found = fetch(tree)
        if isinstance(found, tuple):
            alive.append(weakref.ref(found[1]["sites"]["input"]["neuron_spikes"]))
        return found

    monkeypatch.setattr(evaluation.jax, "device_get", watch)
    run(variables, 2)
    assert len(alive) == 12 and sum(one() is not None for one in alive) <= 2


def outputs_of(variables, **given):
    return predict(TinySpiking(), variables, **{"inputs": tiny_task().test.inputs} | given)


def test_predict_is_the_mean_of_its_draws_and_their_spread(variables):
    key = jax.random.key(3)
    mean, spread = outputs_of(variables, key=key, draws=3, spread=True)
    single = [
        TinySpiking().apply(
            variables,
            tiny_task().test.inputs,
            jnp.full(24, 6),
            train=False,
            rngs={"spikes": jax.random.fold_in(key, draw)},
        )[0]
        for draw in range(3)
    ]
    # Float32 means of three numbers of order 1.
    np.testing.assert_allclose(mean, np.mean(single, axis=0), atol=1e-6)
    np.testing.assert_allclose(spread, np.std(single, axis=0, ddof=1), atol=1e-6)
    assert mean.dtype == np.float32 and type(mean) is np.ndarray


@pytest.mark.parametrize("pool", ["mean", "none"])
def test_predict_takes_what_people_have(variables, pool):
    model = tiny(pool=pool)
    inputs = np.float32(tiny_task().test.inputs)
    expected = predict(model, variables, inputs, batch_size=5)
    for same in (inputs.astype(">f4"), inputs.astype(np.float64), list(inputs), inputs.tolist()):
        np.testing.assert_allclose(
            predict(model, variables, same, batch_size=24), expected, rtol=1e-5, atol=1e-6
        )
    lengths = np.arange(24) % 6 + 1
    ragged = predict(model, variables, [x[:n] for x, n in zip(inputs, lengths)])
    padded = predict(model, variables, inputs, lengths=lengths.astype(">i8"))
    ends = slice(None) if pool == "mean" else np.arange(6) < lengths[:, None]
    np.testing.assert_array_equal(ragged[ends], padded[ends])  # padding may hold anything


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"inputs": np.ma.masked_array(np.ones((2, 6, 2)))}, TypeError, "masked"),
        ({"inputs": np.full((2, 6, 2), np.nan)}, ValueError, "inputs"),
        ({"lengths": np.full(24, 7)}, ValueError, "lengths"),
        ({"spread": True}, ValueError, "draws is 1, expected at least 2"),
    ],
)
def test_predict_refuses_what_a_task_would(variables, given, error, message):
    with pytest.raises(error, match=message):
        outputs_of(variables, **given)
