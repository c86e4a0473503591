"""Time split over devices: the numbers of one device, and traffic that does not grow with time."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.sharding import PartitionSpec
from tiny import one_device, tiny_settings

import pspike_jax
from pspike_jax.data import from_arrays, train_batch
from pspike_jax.functional.sequence_parallel import sequence_parallel_ssm
from pspike_jax.nn import S5SSM, DiagonalSSM, DPLRSSM, OscillatorSSM
from pspike_jax.training import OptimizerSettings, create_state, evaluate, fit, make_mesh
from pspike_jax.training.creation import abstract_batch, state_shapes
from pspike_jax.training.sharding import shard_batch
from pspike_jax.training.state import compile_train_step

BATCH = ("data", "fsdp")


def mesh_of(**sizes):
    """Return a mesh of as many devices as its sizes need."""
    sizes = {"data": 1} | sizes
    return make_mesh(**sizes, devices=jax.devices()[: int(np.prod(list(sizes.values())))])


def split_ssm(mesh, reverse=False):
    """Return a function of the arguments of an SSM by name, run with time split over the mesh."""
    steps, of_state = PartitionSpec(BATCH, "sequence", "model"), PartitionSpec(BATCH, "model")

    def run(arguments):
        specs = dict.fromkeys(arguments, PartitionSpec()) | {"u": steps, "initial_state": of_state}
        function = functools.partial(sequence_parallel_ssm, axis_name="sequence", reverse=reverse)
        return jax.shard_map(
            lambda arguments: function(**arguments),
            mesh=mesh, in_specs=(specs,), out_specs=(steps, of_state), check_vma=False,
        )(arguments)

    return run


def problem(rng, length, sides):
    """Return arguments of an SSM of 3 features and 2 states, and cotangents of its results."""
    normal = lambda *shape: np.float32(rng.normal(size=shape))
    parts = lambda *shape: np.complex64(rng.normal(size=shape) + 1j * rng.normal(size=shape))
    # Slow enough that a state is felt in all parts.
    radius, angle = rng.uniform(0.99, 0.9999, (3, 2)), rng.uniform(-np.pi, np.pi, (3, 2))
    arguments = {
        "u": normal(4, length, 3),
        "Lambda_bar": np.complex64(radius * np.exp(1j * angle)),
        "B_bar": parts(3, 2),
        "C": parts(2, 3, 2) if sides == 2 else parts(3, 2),
        "D": normal(3),
        "initial_state": 3 * parts(4, 3, 2),
    }
    return arguments, (normal(4, length, 3), parts(4, 3, 2))


def assert_close(actual, expected, name, tolerance=1e-5):
    """Compare to within a fraction of the largest expected magnitude; 1e-5 is the stated one."""
    peak = np.max(np.abs(expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * peak, err_msg=name)


@pytest.mark.parametrize(
    ("sizes", "length", "sides", "reverse"),
    [
        ({"sequence": 8}, 24, 2, False),
        # Parts of three chunks, the last of them not full; batches split over two more axes.
        ({"data": 2, "fsdp": 2, "sequence": 2}, 300, 2, False),
        ({"sequence": 3}, 390, 1, True),
    ],
)
def test_sequence_parallel_ssm_matches_a_float64_loop(rng, sizes, length, sides, reverse):
    arguments, cotangents = problem(rng, length, sides)
    run = split_ssm(mesh_of(**sizes), reverse)

    @jax.jit
    def outputs_and_gradients(arguments, cotangents):
        outputs, pull_back = jax.vjp(run, arguments)
        return outputs, pull_back(cotangents)[0]

    (y, final), gradients = outputs_and_gradients(arguments, cotangents)
    turned = lambda x: x[:, ::-1] if reverse else x
    arguments |= {"u": turned(arguments["u"])}
    expected_y, expected_final = oracles.linear_ssm(**arguments)
    assert_close(turned(y), expected_y, "y")
    assert_close(final, expected_final, "final_state")
    y_bar, final_bar = cotangents
    expected = oracles.linear_ssm_gradients(turned(y_bar), final_bar, **arguments)
    gradients["u"] = turned(gradients["u"])
    for name, gradient in expected.items():
        assert_close(gradients[name], gradient, name)


def collectives(program):
    """Return what a compiled program sends between devices: sorted shapes with their operations."""
    text = re.sub(r"\{[\d,]*\}|/\*.*?\*/", "", program.as_text())  # layouts, comments
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    return sorted(re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text))


def test_what_parts_send_does_not_grow_with_time(rng):
    def sent(length):
        arguments, cotangents = problem(rng, length, sides=2)
        pull_back = lambda a, c: jax.vjp(split_ssm(mesh_of(sequence=4)), a)[1](c)
        program = jax.jit(pull_back).lower(arguments, cotangents)
        return collectives(program.compile())

    short = sent(4 * 150)
    # Two directions, two passes, one hop and two rounds of the prefix each: 12 states of 3 x 4 x 4.
    permuted = [shape for shape, kind in short if kind == "collective-permute"]
    assert len(permuted) == 12 and {np.prod(_sizes(shape)) for shape in permuted} == {48}
    assert sent(4 * 1500) == short


def _sizes(shape):
    return [int(size) for size in re.search(r"\[([\d,]*)\]", shape).group(1).split(",")]


LAYERS = {
    "diagonal": DiagonalSSM(
        features=4, d_state=4, initializer="legs", shared=False, two_sided=False, skip=True,
        train_B=True, dt_min=0.01, dt_max=0.1,
    ),
    "dplr": DPLRSSM(
        features=4, d_state=4, shared=True, two_sided=True, skip=True, dt_min=0.01, dt_max=0.1,
        length=96, engine="fft",
    ),
    "oscillator": OscillatorSSM(features=4, oscillators=3, ring=(0.9, 0.99, 0.3, 2.5)),
    "s5": S5SSM(features=4, modes=3, dt_min=0.01, dt_max=0.1, two_sided=True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_on_a_mesh_are_those_of_one_device(rng, name):
    layer, reverse = LAYERS[name], name in ("diagonal", "oscillator")
    u = jnp.float32(rng.normal(size=(4, 80, 4)))
    variables = nn.meta.unbox(jax.jit(layer.init)(jax.random.key(0), u))
    mesh = mesh_of(data=2, model=2, sequence=2)

    def loss(variables, u):
        y, _ = layer.apply(variables, u, reverse=reverse)
        return jnp.sum(jnp.sin(y)), y

    def on_the_mesh(variables, u):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return loss(variables, u)

    both = (0, 1)
    run = lambda f: jax.jit(jax.grad(f, argnums=both, has_aux=True))
    u_split = jax.device_put(u, jax.NamedSharding(mesh, PartitionSpec(BATCH, "sequence", "model")))
    (found, found_u), y = run(on_the_mesh)(variables, u_split)
    (expected, expected_u), expected_y = run(loss)(variables, u)
    # The split one runs in chunks. The convolution's own error is within 1e-4 in its gradients.
    tolerance = 1e-4 if name == "dplr" else 1e-5
    assert_close(y, expected_y, "y")
    assert_close(found_u, expected_u, "u", tolerance)
    leaves = jax.tree.leaves_with_path(expected["params"])
    for (path, leaf), other in zip(leaves, jax.tree.leaves(found["params"]), strict=True):
        assert_close(other, leaf, jax.tree_util.keystr(path), tolerance)


SETTINGS = tiny_settings(optimizer=OptimizerSettings(learning_rate=0.01))
MODEL = pspike_jax.create_model(
    "pspikessm", num_outputs=3, vocab_size=None, d_model=4, d_state=4, n_layers=2, norm="batch",
    causal=False, pool="last", engine="chunked",
)


def make_task(length, **changes):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 40)
    inputs = np.float32(rng.normal(size=(40, length, 2)) + labels[:, None, None])
    lengths = rng.integers(length // 2, length + 1, 40)
    return from_arrays(
        inputs, labels, lengths=lengths, validation=0.2, test=0.2, seed=0, **changes
    )


def compile_step(task, mesh):
    state, batch = state_shapes(MODEL, task, SETTINGS, mesh), abstract_batch(task, SETTINGS, mesh)
    return compile_train_step(state, mesh).lower(state, batch).compile()


SPLIT = {"data": 2, "sequence": 4}


@pytest.fixture(scope="module")
def split_step():
    return compile_step(make_task(16), mesh_of(**SPLIT))


def test_training_with_split_time_has_the_losses_of_one_device(split_step):
    task = make_task(16)

    def run(mesh, step):
        state, measured = create_state(MODEL, task, SETTINGS, mesh), []
        for number in range(4):
            batch = train_batch(task.train, seed=0, step=number, batch_size=16)
            state, metrics = step(state, shard_batch(batch, mesh))
            measured.append(jax.device_get(metrics))
        return measured

    found = run(mesh_of(**SPLIT), split_step)
    expected = run(one_device(), compile_step(task, one_device()))
    for a, b in zip(found, expected):
        # The same noise bits and the same spikes, some hundreds of them in each step.
        assert a["firing_rate"] == b["firing_rate"] and b["firing_rate"]["sum"] > 300
        for name in ("loss", "gradient_norm"):
            np.testing.assert_allclose(a[name]["sum"], b[name]["sum"], rtol=1e-5)


def test_what_a_training_step_sends_does_not_grow_with_time(split_step):
    longer = compile_step(make_task(512), mesh_of(**SPLIT))
    assert collectives(longer) == collectives(split_step) != []


def test_batches_are_split_in_time():
    mesh = mesh_of(data=2, sequence=4)
    lengths = np.full(6, 8, np.int32)
    one = shard_batch({"inputs": np.zeros((6, 8, 3)), "lengths": lengths}, mesh)
    assert {shard.data.shape for shard in one["inputs"].addressable_shards} == {(3, 2, 3)}
    assert {shard.data.shape for shard in one["lengths"].addressable_shards} == {(3,)}
    pairs = shard_batch(
        {"inputs": np.zeros((6, 2, 8)), "lengths": np.stack([lengths, lengths], 1)}, mesh
    )
    assert {shard.data.shape for shard in pairs["inputs"].addressable_shards} == {(3, 2, 2)}


def test_sizes_that_do_not_divide_time_are_refused_before_anything_is_written(tmp_path):
    message = "sequence is 4, expected a divisor of the 10 steps .* sequence=2, or .* to 12 steps"
    task, mesh = make_task(10), mesh_of(sequence=4)
    with pytest.raises(ValueError, match=message):
        fit(MODEL, task, SETTINGS, workdir=tmp_path / "run", mesh=mesh)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=message):
        variables = {"params": {}}
        evaluate(MODEL, variables, task, key=jax.random.key(0), draws=2, batch_size=4, mesh=mesh)
    with pytest.raises(ValueError, match=message):  # a model that is called without the trainer
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            jax.eval_shape(LAYERS["diagonal"].init, jax.random.key(0), jnp.zeros((2, 10, 4)))


@pytest.mark.parametrize("name", ["silif", "lif_ssm"])
def test_neurons_that_reset_are_refused_before_anything_is_written(tmp_path, name):
    model = pspike_jax.create_model(name, num_outputs=3)
    with pytest.raises(ValueError, match="mesh axis sequence is 2, expected 1: .* step by step"):
        fit(model, make_task(8), SETTINGS, workdir=tmp_path / "run", mesh=mesh_of(sequence=2))
    assert not (tmp_path / "run").exists()
