"""The training step: pure, sharded like unsharded, and honest about what is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TinySpiking, one_device, tiny_settings, tiny_task

import pspike_jax
from pspike_jax.data import from_arrays, train_batch
from pspike_jax.training import create_state, make_mesh, metrics, train_step
from pspike_jax.training.sharding import batch_sharding, check_batch_size, shard_batch
from pspike_jax.training.state import abstract_state, compile_train_step
from pspike_jax.training.window import leaf_paths


def run_steps(mesh, steps=3, **changes):
    """Return the state after some steps, and the metrics of each, on the host."""
    task, settings = tiny_task(), tiny_settings(**changes)
    state = create_state(TinySpiking(), task, settings, mesh)
    advance = compile_train_step(state, mesh)
    measured = []
    for step in range(steps):
        batch = train_batch(task.train, seed=0, step=step, batch_size=settings.batch_size)
        state, one = advance(state, shard_batch(batch, mesh))
        measured.append(jax.device_get(one))
    return state, measured


jitted_step = jax.jit(train_step)


def first_state():
    return create_state(TinySpiking(), tiny_task(), tiny_settings(), one_device())


def first_batch():
    return train_batch(tiny_task().train, seed=0, step=0, batch_size=16)


def test_train_step_changes_every_parameter():
    before = first_state()
    # The rate of step 0 is 0 under a warm-up: count on.
    later = jax.tree.map(lambda x: x + 3 if x.dtype == jnp.int32 else x, before.opt_state)
    after, _ = jitted_step(before.replace(opt_state=later), first_batch())
    pairs = zip(jax.tree.leaves(before.variables), jax.tree.leaves(after.variables))
    for path, (a, b) in zip(leaf_paths(before.variables), pairs):
        assert np.all(np.isfinite(b)) and not np.array_equal(a, b), path
    assert int(after.step) == 1


def test_train_step_is_a_function_of_state_and_batch():
    (first, one), (second, two) = run_steps(one_device()), run_steps(one_device())
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_train_step_draws_new_noise_at_each_step():
    state, batch = first_state(), first_batch()
    counts = {
        float(jitted_step(state.replace(step=jnp.int32(step)), batch)[1]["firing_rate"]["sum"])
        for step in range(6)
    }
    # About 200 spikes with a standard deviation near 9: six equal draws are out of reach.
    assert len(counts) > 1


def test_train_step_counts_what_the_batch_holds():
    batch = first_batch()
    _, measured = jax.device_get(jitted_step(first_state(), batch))
    assert measured["loss"]["count"] == 16
    assert measured["firing_rate"]["count"] == batch["lengths"].sum() * 8
    assert measured["dead"]["count"] == 8
    assert measured["finite_params"]["sum"].all() and measured["finite_gradients"]["sum"].all()


@pytest.mark.parametrize("sizes", [{"data": 8}, {"data": 2, "fsdp": 4}])
def test_train_step_on_eight_devices_equals_one(sizes):
    one, expected = run_steps(one_device())
    many, found = run_steps(make_mesh(**sizes))
    for a, b in zip(expected, found):
        # Spikes are the same bits, so counts are equal; losses differ by the order of sums.
        assert a["firing_rate"]["sum"] == b["firing_rate"]["sum"]
        np.testing.assert_allclose(b["loss"]["sum"], a["loss"]["sum"], rtol=1e-5)
    # Adam divides by the root of squared gradients, which magnifies rounding where they are small.
    # Three steps (rates 0, 0.0025, 0.005) move a weight by 0.0075: agreement to 1 % of that.
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(many.params)):
        np.testing.assert_allclose(b, a, atol=7.5e-5)


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
    jax.tree.map(np.testing.assert_array_equal, one.params, many.params)


def test_firing_rate_weight_lowers_the_firing_rate():
    _, plain = run_steps(one_device(), steps=30)
    _, punished = run_steps(one_device(), steps=30, firing_rate_weight=30.0)
    rate = [float(metrics.mean(m[-1]["firing_rate"])) for m in (plain, punished)]
    assert rate[1] < 0.7 * rate[0], rate
    assert "penalty" in punished[0] and "penalty" not in plain[0]


def test_train_step_flags_the_parameter_that_is_not_finite():
    state = first_state()
    head = state.params["head"] | {"bias": state.params["head"]["bias"].at[1].set(jnp.inf)}
    state = state.replace(params=state.params | {"head": head})
    _, measured = jitted_step(state, first_batch())
    flags = dict(zip(leaf_paths(state.params), np.asarray(measured["finite_params"]["sum"])))
    assert [path for path, flag in flags.items() if not flag] == ["head/bias"]


def test_abstract_state_matches_the_state():
    arguments = (TinySpiking(), tiny_task(), tiny_settings(), one_device())
    abstract, state = abstract_state(*arguments), create_state(*arguments)
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(abstract), jax.tree.leaves(state)):
        assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)


def test_create_state_keeps_collections_that_are_neither_parameters_nor_statistics():
    task = from_arrays(np.ones((20, 8, 1)), np.arange(20) % 2, validation=0.2, test=0.0, seed=0)
    model = pspike_jax.create_model(
        "pspikessm", preset="official", d_model=4, d_state=4, n_layers=1, num_classes=2,
        vocab_size=None, l_max=None,
    )
    state = abstract_state(model, task, tiny_settings(), one_device())
    logits, _ = model.apply(
        jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state.variables),
        jnp.ones((1, 8, 1)), jnp.array([8]), noise=0.5,
    )
    assert set(state.constants) == {"constants"} and logits.shape == (1, 2)


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


def test_make_mesh_takes_all_devices_as_data():
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1, "model": 1, "sequence": 1}
    assert make_mesh(fsdp=2, sequence=2).shape["data"] == 2


@pytest.mark.parametrize("sizes", [{"data": 3}, {"fsdp": 3}, {"data": 16}, {"fsdp": 16}])
def test_make_mesh_refuses_sizes_that_do_not_fit(sizes):
    with pytest.raises(ValueError, match="there are 8; for example data=8"):
        make_mesh(**sizes)


def test_check_batch_size_proposes_one_that_fits():
    with pytest.raises(ValueError, match="batch_size is 30, expected a multiple of 8, .* 32"):
        check_batch_size(30, make_mesh(data=2, fsdp=4), "batch_size")


def test_shard_batch_splits_examples_over_all_devices():
    mesh = make_mesh(data=2, fsdp=4)
    batch = shard_batch({"labels": np.arange(16)}, mesh)
    assert batch["labels"].sharding == batch_sharding(mesh)
    assert [s.data.tolist() for s in batch["labels"].addressable_shards][:2] == [[0, 1], [2, 3]]
