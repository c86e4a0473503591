"""The training step: pure, sharded like unsharded, and honest about what is not finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TinySpiking, one_device, tiny_settings, tiny_task

import pspike_jax
from pspike_jax.data import from_arrays, train_batch
from pspike_jax.training import create_state, make_mesh
from pspike_jax.training.losses import firing_rate_penalty
from pspike_jax.training.sharding import shard_batch
from pspike_jax.training.state import abstract_state, compile_train_step, state_shapes
from pspike_jax.training.window import leaf_paths


def first_batch():
    return train_batch(tiny_task().train, seed=0, step=0, batch_size=16)


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
    later = jax.tree.map(lambda x: x + 3 if x.dtype == jnp.int32 else x, fresh().opt_state)
    before, (after, _) = fresh(), advance(fresh().replace(opt_state=later), first_batch())
    pairs = zip(jax.tree.leaves(before.variables), jax.tree.leaves(after.variables))
    for path, (a, b) in zip(leaf_paths(before.variables), pairs):
        assert np.all(np.isfinite(b)) and not np.array_equal(a, b), path
    assert int(after.step) == 1


def test_train_step_is_a_function_of_state_and_batch(one):
    (first, metrics), (second, again) = run_steps(*one), run_steps(*one)
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    jax.tree.map(np.testing.assert_array_equal, metrics, again)


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


def test_firing_rate_penalty_has_a_gradient_through_a_model_of_the_zoo():
    model = pspike_jax.create_model(
        "pspikessm", num_classes=3, d_model=4, d_state=4, n_layers=1, vocab_size=None
    )
    inputs = jnp.asarray(first_batch()["inputs"])
    rngs = {"params": jax.random.key(0), "spikes": jax.random.key(1)}
    params = jax.jit(model.init)(rngs, inputs)["params"]

    @jax.jit
    @jax.value_and_grad
    def penalty(params):
        _, aux = model.apply({"params": params}, inputs, sampling="mean")
        return firing_rate_penalty(aux, 0.0)

    value, gradient = penalty(params)
    size = sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient))
    lower = jax.tree.map(lambda p, g: p - 0.1 * value / size * g, params, gradient)
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


def test_abstract_state_matches_the_state():
    arguments = (TinySpiking(), tiny_task(), tiny_settings(), one_device())
    abstract, state = abstract_state(*arguments), create_state(*arguments)
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(abstract), jax.tree.leaves(state)):
        assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)


def test_abstract_state_keeps_collections_that_are_neither_parameters_nor_statistics():
    task = from_arrays(np.ones((20, 8, 1)), np.arange(20) % 2, validation=0.2, test=0.0, seed=0)
    model = pspike_jax.create_model(
        "pspikessm", preset="official", d_model=4, d_state=4, n_layers=1, num_classes=2,
        vocab_size=None, l_max=None,
    )
    arguments = (model, task, tiny_settings(), one_device())
    leaves = jax.tree.leaves(state_shapes(*arguments))
    assert not any(isinstance(leaf, jax.Array) for leaf in leaves), "shapes alone were asked for"
    state = abstract_state(*arguments)
    (logits, _) = jax.eval_shape(
        lambda variables: model.apply(variables, jnp.ones((1, 8, 1)), noise=0.5), state.variables
    )
    assert set(state.variables) == {"params", "batch_stats", "constants"}
    assert isinstance(jax.tree.leaves(state.constants)[0], jax.Array) and logits.shape == (1, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 4}, r"logits of shape \(1, 4\) for one example, expected \(1, 3\)"),
        ({"pool": "none"}, r"logits of shape \(1, 6, 3\) for one example"),
        ({"vocab_size": 7}, "vocab_size is 7, expected None"),
    ],
)
def test_abstract_state_refuses_a_model_of_another_task(fields, message):
    fields = {"num_classes": 3, "vocab_size": None} | fields
    model = pspike_jax.create_model("pspikessm", d_model=4, d_state=4, n_layers=1, **fields)
    with pytest.raises(ValueError, match=message):
        abstract_state(model, tiny_task(), tiny_settings(), one_device())
