"""The training step: pure, sharded like unsharded, and honest about what is not finite."""

import dataclasses
import functools
from multiprocessing.reduction import ForkingPickler

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import TinySpiking, one_device, tiny, tiny_settings, tiny_task

from pspike_jax.data import from_arrays, train_batch
from pspike_jax.objectives import Forecast, metrics
from pspike_jax.training import (
    OptimizerSettings,
    create_state,
    make_mesh,
    shard_batch,
    train_step,
)
from pspike_jax.training.state import firing_rate_penalty
from pspike_jax.training.creation import state_shapes
from pspike_jax.training.state import compile_train_step, leaf_paths


def first_batch(step=0):
    return train_batch(tiny_task().train, seed=0, step=step, batch_size=16)


def program(mesh, **changes):
    """Return functions that make a state of step 0, and advance a state by a batch."""
    state = create_state(TinySpiking(), tiny_task(), tiny_settings(**changes), mesh)
    advance = compile_train_step(state, mesh)
    fresh = lambda: jax.tree.map(jnp.copy, state)  # a state that is advanced is donated
    return fresh, lambda state, batch: advance(state, shard_batch(batch, mesh))


@pytest.fixture(scope="module")
def one():
    return program(one_device())


def run_steps(fresh, advance, steps=3):
    """Return the state after some steps, and the metrics of each, on the host."""
    state, measured = fresh(), []
    for step in range(steps):
        batch = train_batch(tiny_task().train, seed=0, step=step, batch_size=16)
        state, metrics = advance(state, batch)
        measured.append(jax.device_get(metrics))
    return state, measured


def test_train_step_changes_every_parameter(one):
    fresh, advance = one
    # The rate of step 0 is 0 under a warm-up: count on.
    later = fresh().opt_state._replace(count=fresh().opt_state.count + 3)
    before, (after, _) = fresh(), advance(fresh().replace(opt_state=later), first_batch())
    pairs = zip(jax.tree.leaves(before.variables), jax.tree.leaves(after.variables))
    for path, (a, b) in zip(leaf_paths(before.variables), pairs):
        assert np.all(np.isfinite(b)) and not np.array_equal(a, b), path
    assert int(after.step) == 1


def test_train_step_is_a_function_of_state_and_batch(one):
    (first, metrics), (second, again) = run_steps(*one), run_steps(*one)
    chex.assert_trees_all_equal(first.params, second.params)
    chex.assert_trees_all_equal(metrics, again)


def test_train_step_draws_new_noise_at_each_step(one):
    fresh, advance = one
    counts = set()
    for step in range(6):
        state = fresh().replace(step=fresh().step + step)
        counts.add(float(advance(state, first_batch())[1]["firing_rate"]["sum"]))
    # About 200 spikes with a standard deviation near 9: six equal draws are out of reach.
    assert len(counts) > 1


def test_train_step_counts_what_the_batch_holds(one):
    _, (measured,) = run_steps(*one, steps=1)
    assert measured["loss"]["count"] == 16
    assert measured["firing_rate"]["count"] == first_batch()["lengths"].sum() * 8
    assert measured["dead"]["count"] == 8
    assert measured["finite_params"]["sum"].all() and measured["finite_gradients"]["sum"].all()


def test_train_step_flags_the_parameter_that_is_not_finite(one):
    fresh, advance = one
    state = fresh()
    bias = state.params["head"]["bias"]
    head = state.params["head"] | {"bias": bias.at[1].set(jnp.inf)}
    _, measured = advance(state.replace(params=state.params | {"head": head}), first_batch())
    flags = dict(zip(leaf_paths(fresh().params), np.asarray(measured["finite_params"]["sum"])))
    assert [path for path, flag in flags.items() if not flag] == ["head/bias"]


def test_train_step_on_eight_devices_equals_one(one):
    state, expected = run_steps(*one)
    sharded, found = run_steps(*program(make_mesh(data=2, fsdp=4)))
    for a, b in zip(expected, found):
        # Spikes are the same bits, so counts are equal; losses differ by the order of sums.
        assert a["firing_rate"]["sum"] == b["firing_rate"]["sum"]
        np.testing.assert_allclose(b["loss"]["sum"], a["loss"]["sum"], rtol=1e-5)
    # Adam divides by the root of squared gradients, which magnifies rounding where they are small.
    # Three steps (rates 0, 0.0025, 0.005) move a weight by 0.0075: agreement to 1 % of that.
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(sharded.params)):
        np.testing.assert_allclose(b, a, atol=7.5e-5)


def test_firing_rate_weight_adds_the_penalty_to_what_is_minimised(one):
    _, plain = run_steps(*one, steps=3)
    pushed, punished = run_steps(*program(one_device(), firing_rate_weight=1000.0), steps=3)
    assert punished[0]["loss"]["sum"] == plain[0]["loss"]["sum"], "the loss is logged without it"
    assert punished[0]["gradient_norm"]["sum"] > 10 * plain[0]["gradient_norm"]["sum"]
    # Every drive falls with its shift: Adam moves each by its rate, 0 + 0.0025 + 0.005.
    assert np.all(pushed.params["norm"]["bias"] < -0.007)
    assert "penalty" not in plain[0]
    mean_rate = plain[0]["firing_rate"]["sum"] / plain[0]["firing_rate"]["count"]
    # The penalty is the squared mean probability; 200 spikes are within 5 sd of their expectation.
    assert punished[0]["penalty"]["sum"] == pytest.approx(mean_rate**2, rel=0.5)


def test_firing_rate_penalty_has_a_gradient(one):
    state = one[0]()
    batch = first_batch()

    @jax.jit
    @jax.value_and_grad
    def penalty(params):
        _, aux = state.model.apply(
            state.variables | {"params": params}, batch["inputs"], batch["lengths"],
            sampling="mean",
        )
        return firing_rate_penalty(aux["sites"], 0.0)

    value, gradient = penalty(state.params)
    size = sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient))
    lower = jax.tree.map(lambda p, g: p - 0.1 * value / size * g, state.params, gradient)
    # A step that should take a tenth off: half of that allows for curvature.
    assert penalty(lower)[0] < 0.95 * value


def test_create_state_splits_parameters_over_fsdp():
    mesh = make_mesh(data=2, fsdp=4)
    state = create_state(TinySpiking(), tiny_task(), tiny_settings(), mesh)
    kernel = state.params["encoder"]["kernel"]  # (2, 8)
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 2)}
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.shape == (2, 8)]
    shapes = {shard.data.shape for moment in moments for shard in moment.addressable_shards}
    assert shapes == {(2, 2)}


def test_create_state_does_not_depend_on_the_mesh():
    one, many = (
        create_state(TinySpiking(), tiny_task(), tiny_settings(), mesh)
        for mesh in (one_device(), make_mesh(data=2, fsdp=4))
    )
    # The same draws; compilers may round their transform to normals otherwise in a shard's shape,
    # by two units in the last place (2.4e-7) with jax 0.12.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    jax.tree.map(close, one.params, many.params)


def test_state_shapes_match_the_state():
    arguments = (TinySpiking(), tiny_task(), tiny_settings(), one_device())
    abstract, state = state_shapes(*arguments), create_state(*arguments)
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(abstract))
    for a, b in zip(jax.tree.leaves(abstract), jax.tree.leaves(state)):
        assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (tiny(num_outputs=4), ValueError, r"outputs of shape \(1, 4\) for one .* \(1, 3\)"),
        (tiny(pool="none"), ValueError, r"outputs of shape \(1, 6, 3\) for one example"),
        (tiny(vocab_size=7), ValueError, "vocab_size is 7, expected None"),
        (tiny(features=[8]), TypeError, "TinySpiking: features cannot be hashed"),
    ],
)
def test_state_shapes_refuse_a_model_of_another_task(model, error, message):
    with pytest.raises(error, match=message):
        state_shapes(model, tiny_task(), tiny_settings(), one_device())


def test_create_state_starts_from_given_variables_and_initializes_the_rest():
    make = lambda **options: create_state(
        TinySpiking(), tiny_task(), tiny_settings(), one_device(), **options
    )
    old = jax.device_get(make().variables)
    old["params"]["encoder"]["kernel"] = np.full((2, 8), 7.0)
    body = old | {"params": {k: v for k, v in old["params"].items() if k != "head"}}
    state = make(variables=body)
    assert np.all(state.params["encoder"]["kernel"] == 7)
    np.testing.assert_array_equal(state.params["head"]["kernel"], make().params["head"]["kernel"])
    other = {"params": {"head": {"kernel": np.ones((8, 5))}, "tail": np.ones(2)}}
    with pytest.raises(ValueError, match="params/head/kernel has shape \\(8, 5\\), .*; .*tail"):
        make(variables=other)


@pytest.mark.parametrize("pattern", ["encoder", "decay", "*/kernel", "encoder/kernel"])
@pytest.mark.parametrize("optimizer", [None, optax.sgd(0.1)])
def test_frozen_parameters_stay_as_they_are(pattern, optimizer):
    settings = tiny_settings(optimizer=OptimizerSettings(schedule="constant"))
    state = create_state(
        TinySpiking(), tiny_task(), settings, one_device(), frozen=[pattern], optimizer=optimizer
    )
    after, _ = jax.jit(train_step)(state, first_batch())
    same = jax.tree.map(np.array_equal, state.params, after.params)
    assert same["encoder"]["kernel"] and not same["norm"]["bias"] and not same["head"]["bias"]
    assert same["head"]["kernel"] == (pattern in ("decay", "*/kernel"))


def test_frozen_names_what_matches_nothing():
    with pytest.raises(ValueError, match="frozen 'boddy' is no role"):
        create_state(TinySpiking(), tiny_task(), tiny_settings(), one_device(), frozen="boddy")


def test_accumulated_batches_make_the_update_of_their_mean_gradient():
    """Two batches of accumulated gradients move as plain SGD by their mean does."""
    make = lambda accumulate: create_state(
        tiny(), tiny_task(), tiny_settings(accumulate=accumulate), one_device(),
        optimizer=optax.sgd(1.0),
    )
    step, batches = jax.jit(train_step), [first_batch(), first_batch(step=1)]
    state = make(2)
    for batch in batches:
        before, (state, _) = state, step(state, batch)
    chex.assert_trees_all_equal(before.params, make(1).params)
    alone = []
    for number, batch in enumerate(batches):
        one = make(1).replace(step=jnp.int32(number), batch_stats=make(1).batch_stats)
        alone.append(jax.tree.map(jnp.subtract, step(one, batch)[0].params, one.params))
    expected = jax.tree.map(lambda p, a, b: p + (a + b) / 2, make(1).params, *alone)
    # Sums of a few float32 numbers of order 0.1, in another order.
    chex.assert_trees_all_close(state.params, expected, rtol=1e-7, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Pinball:
    """An objective of the caller's own: the median, without a metric named loss."""

    merit = ("pinball", "min")
    num_outputs, per_step, needs_targets = 1, False, True

    def check(self, inputs, lengths, targets, where):
        assert targets.shape == lengths.shape, where

    def __call__(self, outputs, batch):
        valid = ~jnp.isnan(batch["targets"])
        error = jnp.abs(jnp.where(valid, batch["targets"] - outputs[:, 0], 0.0))
        return error, valid.astype(jnp.float32), {"pinball": metrics.sums(error, valid)}

    def summary(self, outputs, targets, lengths):
        return {}


@pytest.mark.parametrize(
    ("objective", "targets", "fields"),
    [
        (None, lambda x: x.mean(axis=(1, 2)), {"num_outputs": 1}),
        (None, lambda x: x, {"num_outputs": 2, "pool": "none"}),
        (None, lambda x: (x[..., 0] > 1).astype(int), {"num_outputs": 2, "pool": "none"}),
        (Forecast(1), lambda x: None, {"num_outputs": 2, "pool": "none"}),
        (Pinball(), lambda x: x.mean(axis=(1, 2)), {"num_outputs": 1}),
    ],
)
def test_train_step_minimises_every_objective(objective, targets, fields):
    inputs = tiny_task().train.inputs
    task = from_arrays(inputs, targets(inputs), objective=objective, validation=0.2, seed=0)
    settings = tiny_settings(steps=40, optimizer=OptimizerSettings(schedule="constant"))
    state = create_state(tiny(**fields), task, settings, one_device())
    batch = train_batch(task.train, seed=0, step=0, batch_size=16)
    step, losses = jax.jit(train_step), []
    for _ in range(40):
        state, measured = step(state, batch)
        losses.append(float(metrics.mean(measured["loss"])))
    # Forty steps on one batch: a loss of order 1 with noise of 1/sqrt(16) falls visibly.
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_activity_of_a_huge_batch_does_not_overflow():
    """2^33 neuron-steps: the sums are numbers, nothing of that size is made."""
    one = jnp.ones(8)
    site = {
        "spikes": one * 2.0**29, "probability": one * 2.0**29, "steps": one * 2.0**22,
        "neurons": one * 2.0**8, "neuron_spikes": jnp.ones((8, 4)), "surrogate": one,
    }
    assert float(firing_rate_penalty({"a": site}, 0.25)) == pytest.approx(0.0625, rel=1e-6)
    rate = metrics.activity_metrics({"a": site})["firing_rate"]
    assert float(rate["sum"] / rate["count"]) == pytest.approx(0.5, rel=1e-6)


def test_results_can_be_sent_to_another_process():
    state = create_state(TinySpiking(), tiny_task(), tiny_settings(), one_device())
    sent = ForkingPickler.loads(bytes(ForkingPickler.dumps(state)))
    assert jax.tree.structure(sent) == jax.tree.structure(state)
    chex.assert_trees_all_equal(sent.params, state.params)
    step = jax.jit(train_step)
    found, expected = step(sent, first_batch())[0], step(state, first_batch())[0]
    chex.assert_trees_all_equal(found.params, expected.params)
