"""Meshes: sizes that fit, parameters split by one table, and results that do not depend on it."""

import functools
import math
import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tiny import TinySpiking, one_device, tiny, tiny_settings, tiny_task

import pspike_jax
from pspike_jax.data import from_arrays, train_batch
from pspike_jax.functional.noise import uniforms
from pspike_jax.training import OptimizerSettings, create_state, make_mesh
from pspike_jax.training.sharding import (
    batch_sharding,
    check_batch_size,
    local_rows,
    partition,
    shard_batch,
)
from pspike_jax.training.state import compile_train_step

STEPS = 20


def test_make_mesh_takes_all_devices_as_data():
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1, "model": 1, "sequence": 1}
    assert make_mesh(fsdp=2, sequence=2).shape["data"] == 2


@pytest.mark.parametrize(
    ("sizes", "proposal"),
    [
        ({"data": 3}, "data=8, fsdp=1, model=1, sequence=1"),
        ({"fsdp": 3}, "data=8, fsdp=1, model=1, sequence=1"),
        ({"data": 16, "fsdp": 2}, "data=4, fsdp=2, model=1, sequence=1"),
        ({"fsdp": 16}, "data=1, fsdp=8, model=1, sequence=1"),
        ({"data": 4, "fsdp": 2, "model": 6}, "data=2, fsdp=2, model=2, sequence=1"),
    ],
)
def test_make_mesh_proposes_sizes_near_those_that_do_not_fit(sizes, proposal):
    with pytest.raises(ValueError, match=f"there are 8; for example {proposal} fits"):
        make_mesh(**sizes)


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ({"model": 0}, ValueError, "mesh axis model is 0, expected at least 1"),
        ({"data": "2"}, TypeError, "mesh axis data is '2', expected a whole number"),
        ({"fsdp": None}, TypeError, "mesh axis fsdp is None, expected a whole number"),
    ],
)
def test_make_mesh_refuses_what_is_no_size(sizes, error, message):
    with pytest.raises(error, match=message):
        make_mesh(**sizes)


KERNEL, POLES, PARTS = ("inputs", "features"), ("features", "state"), ("features", "state", "parts")


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        (("layers", *KERNEL), (2, 16, 32), PartitionSpec(None, "fsdp", "model")),
        (("layers", *KERNEL), (2, 3, 32), PartitionSpec(None, None, ("model", "fsdp"))),
        (("layers", "features"), (4, 32), PartitionSpec(None, ("model", "fsdp"))),
        (("layers", "features"), (4, 6), PartitionSpec(None, "model")),
        (("tokens", "features"), (20, 6), PartitionSpec("fsdp", "model")),
        ((None, None, *PARTS), (2, 2, 16, 8, 2), PartitionSpec(None, None, ("model", "fsdp"))),
        ((None, None, *PARTS), (2, 2, 6, 8, 2), PartitionSpec(None, None, "model", "fsdp")),
        (("layers", *POLES), (2, 1, 8), PartitionSpec(None, None, "fsdp")),
        (("layers", "features"), (2, 5), PartitionSpec()),
        ((None, None), (16, 16), PartitionSpec()),
        ((), (), PartitionSpec()),
    ],
)
def test_partition_splits_by_the_rules(axes, shape, expected):
    mesh = {"data": 1, "fsdp": 4, "model": 2, "sequence": 1}
    assert partition(axes, shape, mesh) == expected


@pytest.mark.parametrize(
    "optimizer",
    [optax.adam(1e-3), optax.sgd(0.1, momentum=0.9), optax.chain(optax.clip(1.0), optax.lion(1e-3)),
     optax.adafactor(1e-3), optax.MultiSteps(optax.adam(1e-3), 2).gradient_transformation()],
)
def test_what_an_optimizer_keeps_lies_where_its_parameter_lies(optimizer):
    mesh = make_mesh(data=2, fsdp=2, model=2)
    state = create_state(tiny(), tiny_task(), tiny_settings(), mesh, optimizer=optimizer)
    kernels = [x for x in jax.tree.leaves(state.opt_state) if x.shape == (2, 8)]
    assert {x.sharding.spec for x in kernels} <= {PartitionSpec("fsdp", "model")}
    assert {x.sharding.mesh for x in jax.tree.leaves(state)} == {mesh}


def test_parameters_without_a_role_are_whole_everywhere():
    class Foreign(nn.Module):
        """A model from elsewhere, whose parameters say nothing."""

        @nn.compact
        def __call__(self, inputs, lengths=None, train=False, **options):
            """Follow the call of the models of the zoo."""
            sites = {"sites": {}, "losses": {}, "macs": {}}
            return nn.Dense(3)(nn.Dense(8)(inputs).mean(axis=1)), sites

    state = create_state(Foreign(), tiny_task(), tiny_settings(), make_mesh(fsdp=4, model=2))
    assert {x.sharding.spec for x in jax.tree.leaves(state.params)} == {PartitionSpec()}
    assert set(state.optimizer.groups) == {"decay"}


def test_check_batch_size_proposes_one_that_fits():
    with pytest.raises(ValueError, match="batch_size is 30, expected a multiple of 8, .* 32"):
        check_batch_size(30, make_mesh(data=2, fsdp=4), "batch_size")


def test_shard_batch_splits_examples_over_all_devices():
    mesh = make_mesh(data=2, fsdp=4)
    batch = shard_batch({"targets": np.arange(16)}, mesh)
    assert batch["targets"].sharding == batch_sharding(mesh)
    assert [s.data.tolist() for s in batch["targets"].addressable_shards][:2] == [[0, 1], [2, 3]]


def test_shard_batch_holds_each_example_once_where_other_axes_hold_copies():
    mesh = make_mesh(data=2, model=2, sequence=2)
    np.testing.assert_array_equal(local_rows(6, mesh), np.arange(6))
    batch = shard_batch({"targets": np.arange(6)}, mesh)
    np.testing.assert_array_equal(batch["targets"], np.arange(6))


def test_uniforms_have_the_same_bits_on_every_mesh(key):
    ids, steps, root = jnp.arange(8), jnp.arange(16), key()

    def draw(spec, **sizes):
        sharding = NamedSharding(make_mesh(**sizes), spec)
        function = lambda key, ids, steps: uniforms(
            key, layer=1, sampler=2, example_ids=ids, steps=steps, features=4
        )
        return np.asarray(jax.jit(function, out_shardings=sharding)(root, ids, steps))

    expected = uniforms(root, layer=1, sampler=2, example_ids=ids, steps=steps, features=4)
    for spec, sizes in (
        (PartitionSpec(("data", "fsdp")), {"data": 4, "fsdp": 2}),
        (PartitionSpec("data", "sequence", "model"), {"data": 2, "sequence": 2, "model": 2}),
    ):
        np.testing.assert_array_equal(draw(spec, **sizes), expected)


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 80)
    inputs = np.float32(rng.normal(size=(80, 8, 2)) + labels[:, None, None])
    return from_arrays(inputs, labels, validation=0.2, test=0.0, seed=0)


SETTINGS = tiny_settings(optimizer=OptimizerSettings(learning_rate=0.01, warmup_steps=2))


@functools.cache
def model():
    """Return a small model of the zoo."""
    return pspike_jax.create_model(
        "pspikessm", num_outputs=3, vocab_size=None, d_model=4, d_state=4, n_layers=2,
        norm="batch", engine="associative",
    )


@functools.cache
def begin(task, mesh):
    """Return a state of step 0 of a model of the zoo, and its compiled step."""
    state = create_state(model(), task, SETTINGS, mesh)
    batch = shard_batch(train_batch(task.train, seed=0, step=0, batch_size=16), mesh)
    return state, compile_train_step(state, mesh).lower(state, batch).compile()


def run(task, mesh, seed=0, steps=STEPS):
    """Train; return each step's sums, and the first batch statistics."""
    state, advance = begin(task, mesh)
    key = jax.device_put(jax.random.key(seed), state.key.sharding)
    state = jax.tree.map(jnp.copy, state).replace(key=key)
    measured, statistics = [], None
    for step in range(steps):
        batch = train_batch(task.train, seed=seed, step=step, batch_size=16)
        state, metrics = advance(state, shard_batch(batch, mesh))
        measured.append(jax.device_get(metrics))
        statistics = statistics or jax.device_get(state.batch_stats)
    return measured, statistics


@pytest.fixture(scope="module")
def one(task):
    return run(task, one_device())


EIGHT = {"data": 2, "fsdp": 2, "model": 2}


@pytest.mark.parametrize(
    ("devices", "sizes"), [(2, {"fsdp": 2}), (4, {"data": 2, "model": 2}), (8, EIGHT)]
)
def test_training_does_not_depend_on_the_mesh(task, one, devices, sizes):
    measured, statistics = run(task, make_mesh(**sizes, devices=jax.devices()[:devices]))
    agreed = 0
    for found, expected in zip(measured, one[0]):
        # Spikes are compared with the same bits; from the first tie |p - u| ~ 1e-7 on runs part.
        if found["firing_rate"]["sum"] != expected["firing_rate"]["sum"]:
            break
        np.testing.assert_allclose(found["loss"]["sum"], expected["loss"]["sum"], rtol=1e-5)
        agreed += 1
    # 2,000 draws a step against drives that differ by about 1e-6 after some steps of Adam: a tie
    # in the first half of the steps has a probability near 0.02.
    assert agreed >= STEPS // 2
    # Of the whole batch, not of a device's part; sums over 512 numbers near 1 in another order.
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, statistics, one[1])


def test_training_on_one_mesh_repeats_to_the_last_bit(task):
    (first, _), (second, _) = (run(task, make_mesh(**EIGHT), steps=5) for _ in range(2))
    chex.assert_trees_all_equal(first, second)


def test_final_accuracy_does_not_depend_on_the_mesh(task):
    """Beyond the first tie runs part, and have to come to the same all the same."""

    def accuracy(mesh):
        last = [run(task, mesh, seed, SETTINGS.steps)[0][-10:] for seed in (1, 2, 3)]
        sums = [step["accuracy"]["sum"] for steps in last for step in steps]
        return np.sum(sums) / (16 * len(sums))

    one, eight = accuracy(one_device()), accuracy(make_mesh(**EIGHT))
    # 480 examples each, as if they were independent: 3 standard errors of the difference, 0.095
    # at most. Chance is 1/3, and 40 steps lead to about 0.7.
    error = np.sqrt(2 * one * (1 - one) / 480)
    assert abs(one - eight) < 3 * error and one > 0.5


def test_state_is_split_over_model_and_fsdp(task):
    mesh = make_mesh(data=2, fsdp=2, model=2)
    state = create_state(TinySpiking(), tiny_task(), tiny_settings(), mesh)
    kernel = state.params["encoder"]["kernel"]  # (2, 8)
    assert kernel.sharding.spec == PartitionSpec("fsdp", "model")
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(1, 4)}
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.shape == (2, 8)]
    assert len(moments) == 2 and {m.sharding.spec for m in moments} == {kernel.sharding.spec}
    assert state.batch_stats["norm"]["mean"].sharding.spec == PartitionSpec(("model", "fsdp"))


def test_fsdp_sends_parameters_and_no_activations(task):
    _, advance = begin(task, make_mesh(fsdp=2, devices=jax.devices()[:2]))
    program = advance.as_text()
    sent = re.findall(r"= \w+\[([\d,]*)\]\S* all-(?:gather|to-all)\(", program)
    sizes = {math.prod(map(int, shape.split(","))) for shape in sent if shape}
    # The largest stack of parameters, C of both layers, has 2 x 4 x 2 x 2 numbers; mixers 2 x 4 x
    # 4; an activation of half the batch has 8 x 8 x 4.
    assert sizes and max(sizes) <= 32
