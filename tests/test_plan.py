"""Plans of runs: operations are what the model counts, memory is what the compiler says."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import pspike_jax
from pspike_jax.command.plan import device_memory, forward_macs, plan
from pspike_jax.data import from_arrays
from pspike_jax.training import OptimizerSettings, TrainSettings, make_mesh
from pspike_jax.training.creation import abstract_batch, state_shapes

WIDTH, BATCH, LENGTH = 4096, 8, 5


class Counting(nn.Module):
    """A model of one large product, that counts it over the valid steps."""

    @nn.compact
    def __call__(self, inputs, lengths=None, train=False, **unused):
        hidden = nn.Dense(WIDTH, use_bias=False)(inputs)
        steps = jnp.sum(lengths, dtype=jnp.float32)
        macs = {"encoder": steps * inputs.shape[-1] * WIDTH, "head": jnp.float32(7)}
        outputs = nn.Dense(3)(jnp.mean(hidden, axis=1))
        layers = lambda value: jnp.stack([jnp.float32(value)] * 2)
        site = {"steps": layers(steps), "neurons": layers(4), "fan_out": layers(10)}
        return outputs, {"sites": {"input": site}, "losses": {}, "macs": macs}


@pytest.fixture(scope="module")
def settings():
    return TrainSettings(
        steps=20, batch_size=BATCH, optimizer=OptimizerSettings(learning_rate=1e-2)
    )


@pytest.fixture(scope="module")
def task():
    inputs = jax.random.normal(jax.random.key(0), (40, LENGTH, 2))
    labels = jnp.arange(40) % 3
    arrays = (jax.device_get(inputs), jax.device_get(labels))
    return from_arrays(*arrays, validation=0.25, test=0.0, seed=0)


def test_forward_macs_are_those_of_a_full_batch_and_make_no_parameters(task, settings):
    mesh = make_mesh(devices=jax.devices()[:2])
    state = state_shapes(Counting(), task, settings, mesh)
    expected = {"encoder": BATCH * LENGTH * 2 * WIDTH, "head": 7,
                "synapses": 2 * BATCH * LENGTH * 4 * 10}
    assert forward_macs(state, task, settings, mesh) == expected


def test_plan_tells_memory_work_engines_and_steps(task, settings):
    model = pspike_jax.create_model("pspikessm", num_outputs=3, d_model=8, d_state=4, n_layers=2)
    text = plan(model, task, settings, make_mesh(devices=jax.devices()[:2]))
    for part in (
        "mesh: data=2, fsdp=1, model=1, sequence=1; 2 devices",
        "memory of a device in a step: ",
        "work",
        "the compiler counts, on each device",
        "all-reduce",
        "engine: auto; on cpu ",
        "30 examples in batches of 8: 6.7 epochs",
    ):
        assert part in text, text


def test_device_memory_holds_arguments_and_results():
    compiled = jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((1000,), jnp.float32)).compile()
    assert 8000 <= device_memory(compiled) <= 8200


def test_abstract_batch_has_the_arrays_of_a_split(task, settings):
    batch = abstract_batch(task, settings, make_mesh(devices=jax.devices()[:2]))
    assert batch["inputs"].shape == (BATCH, LENGTH, 2) and batch["inputs"].dtype == jnp.float32
    assert batch["lengths"].shape == (BATCH,) and batch["lengths"].dtype == jnp.int32
