"""Modes of JAX in which functional/ must give what it gives without them.

Derivatives are judged by each other: with J the Jacobian, <c, J v> of forward mode is <J^T c, v> of
reverse mode, whose values test_linear_ssm.py and others compare with float64.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pspike_jax import functional
from pspike_jax.functional import Engine, cpu, linear_recurrence, linear_ssm
from pspike_jax.functional.dplr_chunked import chunked_dplr, real_bilinear_dplr, unattuned
from pspike_jax.functional.dropout import dropout
from pspike_jax.functional.packed_spikes import spike_product

B, L, H, N = 4, 37, 4, 2
KEY = jax.random.key(0, impl="threefry2x32")


def diagonal(engine, resets=False):
    def run(u, Lambda_bar, B_bar, C, D, state):
        cut = u[..., 0] > 1 if resets else None
        return linear_ssm(
            u, Lambda_bar, B_bar, C, D, initial_state=state, resets=cut, engine=engine
        )

    return run


def recurrence(engine, blocks):
    def run(u, Lambda_bar, B_bar, C, D, state):
        if blocks:
            turn = jnp.float32([[0.6, -0.7], [0.7, 0.6]]) * D[0]
            return linear_recurrence(turn[None, None, None], jnp.stack([u, u], -1), engine=engine)
        start = state[..., 0]  # complex, where decay and drive are real
        return linear_recurrence(jnp.sin(u), u, initial_state=start, engine=engine)

    return run


def dense(u, Lambda_bar, B_bar, C, D, state):
    step = 0.1 * jnp.abs(D) + np.float32(0.01)
    system = real_bilinear_dplr(Lambda_bar - 1.5, B_bar, B_bar.conj(), B_bar, C, step)
    return chunked_dplr(u, unattuned(system, 64))


def kernel(u, Lambda_bar, B_bar, C, D, state):
    step = 0.1 * jnp.abs(D) + np.float32(0.01)
    poles = Lambda_bar - 1.5
    return functional.convolve(
        u, functional.dplr_kernel(poles, B_bar, B_bar.conj(), B_bar, C, step, 16)
    )


def discretized(u, Lambda_bar, B_bar, C, D, state):
    step, poles = 0.1 * jnp.abs(D) + np.float32(0.01), Lambda_bar - 1.5
    return (
        functional.discretize_zoh(poles, step[None, None] * jnp.abs(u)),
        functional.discretize_bilinear(poles, step),
        functional.discretize_bilinear_dplr(poles, B_bar, B_bar.conj(), B_bar, step),
    )


def spikes(u, *_):
    noise = functional.uniforms(
        KEY, layer=0, sampler=1, example_ids=jnp.arange(u.shape[0]), steps=jnp.arange(u.shape[1]),
        features=u.shape[2],
    )
    draws = [
        functional.sample_spikes(u, noise=noise, surrogate=surrogate)
        for surrogate in functional.SURROGATES.values()
    ]
    return draws, functional.expected_firing(u), functional.sample_spikes(u, noise=0.5)


def packed(u, Lambda_bar, B_bar, C, D, state):
    fired = functional.heaviside(u, 0.0, functional.triangular)
    return spike_product(fired, D[:, None] * jnp.ones((1, 3), jnp.float32))


ENGINES = [engine.value for engine in Engine]
SCANS = ["sequential", "associative"]
FUNCTIONS = {
    **{engine: diagonal(engine) for engine in ENGINES},
    **{f"{engine}, resets": diagonal(engine, True) for engine in (*SCANS, "chunked")},
    **{f"{engine} recurrence": recurrence(engine, False) for engine in SCANS},
    **{f"{engine} recurrence of blocks": recurrence(engine, True) for engine in SCANS},
    "dense": dense,
    "kernel": kernel,
    "discretized": discretized,
    "spikes": spikes,
    "packed": packed,
    "dropout": lambda u, *_: dropout(u, KEY, 0.3),
}
# The engines for features that never meet have backward passes of their own on CPUs.
REVERSE_ONLY = ["chunked", "chunked, resets", "dense", "packed"]
FORWARD = sorted(set(FUNCTIONS) - {*REVERSE_ONLY, "auto"})


def problem(batch=B, length=L, seed=0):
    rng = np.random.default_rng(seed)
    pairs = lambda *shape: np.complex64(rng.normal(size=(*shape, 2)) @ np.array([1, 1j]))
    radius, angle = rng.uniform(0.5, 0.95, (H, N)), rng.uniform(0, 3, (H, N))
    return (
        np.float32(rng.normal(size=(batch, length, H))), np.complex64(radius * np.exp(1j * angle)),
        pairs(H, N), pairs(2, H, N), np.float32(rng.uniform(0.5, 1, H)), pairs(batch, H, N),
    )


def symbolic(batch=B, length=L):
    """Shapes of the arguments, with dimensions that have no number."""
    shapes = (batch, length, H), (H, N), (H, N), (2, H, N), (H,), (batch, H, N)
    kinds = (jnp.float32, jnp.complex64, jnp.complex64, jnp.complex64, jnp.float32, jnp.complex64)
    return [jax.ShapeDtypeStruct(shape, kind) for shape, kind in zip(shapes, kinds)]


def value_and_gradient(function):
    """Return a function to the sum of sines of all results, and its gradient."""

    def total(*arguments):
        results = jax.tree.leaves(function(*arguments))
        return sum(jnp.sum(jnp.sin(result.real) + result.imag) for result in results)

    return jax.value_and_grad(total, argnums=tuple(range(6)))


def inner(a, b):
    """Return Re(sum(a * b)) over all leaves in float64."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(np.sum(np.complex128(x) * np.complex128(y)).real for x, y in pairs)


def check_close(actual, expected, tolerance=2e-5):
    """Raise where leaves differ by more than a share of their peak: sums in another order."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1e-3, np.max(np.abs(b))))


@functools.cache
def expected(name):
    return jax.device_get(jax.jit(value_and_gradient(FUNCTIONS[name]))(*problem()))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_number_has_64_bits_under_x64(name):
    with jax.enable_x64(True):
        program = str(jax.make_jaxpr(value_and_gradient(FUNCTIONS[name]))(*problem()))
    assert "f32" in program and "f64" not in program and "c128" not in program


def test_step_sizes_drawn_under_x64_have_32_bits():
    draw = lambda: functional.log_uniform_dt(KEY, (3,), 0.01, 0.1)
    with jax.enable_x64(True):
        assert "f64" not in str(jax.make_jaxpr(draw)())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_dtype_is_promoted(name):
    with jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(value_and_gradient(FUNCTIONS[name]), *problem())


# A mesh whose axis splits the batch; parameters are on all devices.
ROWS, WHOLE = PartitionSpec("data"), PartitionSpec()
PLACES = (ROWS, WHOLE, WHOLE, WHOLE, WHOLE, ROWS)
OF_ROWS = sorted(set(FUNCTIONS) - {"discretized", "spikes", "dropout"})  # example ids are local


def of_rows(function):
    """Return the function without final states, whose axes lead with the batch or do not."""
    return lambda *arguments: jax.tree.leaves(function(*arguments))[0]


@pytest.mark.parametrize("name", OF_ROWS)
def test_shard_map_with_its_check_gives_the_same_gradients(name):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.shard_map(of_rows(FUNCTIONS[name]), mesh=mesh, in_specs=PLACES, out_specs=ROWS)
    actual = jax.jit(value_and_gradient(split))(*problem())
    check_close(actual, jax.jit(value_and_gradient(of_rows(FUNCTIONS[name])))(*problem()))


@pytest.mark.parametrize("name", ["spikes", "dropout"])
def test_draws_run_in_shard_map_with_its_check(name):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    function = lambda *arguments: jax.tree.leaves(FUNCTIONS[name](*arguments))
    split = jax.shard_map(function, mesh=mesh, in_specs=PLACES, out_specs=ROWS)
    first = jax.jit(value_and_gradient(split))(*problem())[1][0][:1]
    alone = expected(name)[1][0][:1]  # each device numbers its examples from 0
    np.testing.assert_array_equal(first, alone)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_explicit_axes_give_the_same_gradients(name):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        placed = [jax.device_put(a, NamedSharding(mesh, s)) for a, s in zip(problem(), PLACES)]
        actual = jax.device_get(jax.jit(value_and_gradient(FUNCTIONS[name]))(*placed))
    check_close(actual, expected(name))


@pytest.mark.parametrize("name", ["chunked", "dense"])
def test_blocks_of_features_run_in_shard_map(name, monkeypatch):
    monkeypatch.setattr(cpu, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(cpu, "LEAST_FEATURES", 2)
    test_shard_map_with_its_check_gives_the_same_gradients(name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_export_leaves_the_batch_open(name):
    batch, = export.symbolic_shape("batch")
    program = export.export(jax.jit(value_and_gradient(FUNCTIONS[name])))(*symbolic(batch))
    check_close(jax.jit(program.call)(*problem()), expected(name))


OPEN = ["sequential", "auto", "sequential, resets", "sequential recurrence",
        "sequential recurrence of blocks", "spikes", "dropout", "packed"]


@pytest.mark.parametrize("name", OPEN)
def test_export_leaves_the_length_open(name):
    length, = export.symbolic_shape("length")
    program = export.export(jax.jit(value_and_gradient(FUNCTIONS[name])))(*symbolic(B, length))
    check_close(jax.jit(program.call)(*problem()), expected(name))


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {*OPEN, "kernel", "discretized"}))
def test_a_length_without_a_number_is_refused_in_words(name):
    length, = export.symbolic_shape("length")
    with pytest.raises(ValueError, match="number of steps, got length"):
        export.export(jax.jit(FUNCTIONS[name]))(*symbolic(B, length))


@functools.cache
def forward_and_reverse(name):
    """Return <c, J v> and <J^T c, v> for a direction v and cotangents c, and |J v| |c|."""
    function, arguments, direction = FUNCTIONS[name], problem(), problem(seed=1)
    values = jax.eval_shape(function, *arguments)
    rng = np.random.default_rng(2)
    cotangent = jax.tree.map(
        lambda v: jnp.asarray(rng.normal(size=v.shape), v.dtype), values
    )
    moved = jax.jit(lambda a, v: jax.jvp(function, a, v)[1])(arguments, direction)
    pulled = jax.jit(lambda a, c: jax.vjp(function, *a)[1](c))(arguments, cotangent)
    size = np.sqrt(inner(moved, jax.tree.map(np.conj, moved)) * inner(cotangent, cotangent))
    return inner(cotangent, moved), inner(pulled, direction), size


@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode_is_the_transpose_of_reverse_mode(name):
    forward, reverse, size = forward_and_reverse(name)
    assert size > 0
    np.testing.assert_allclose(forward, reverse, rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize("name", REVERSE_ONLY)
def test_what_has_no_forward_mode_says_so(name):
    with pytest.raises(TypeError, match="forward-mode.* custom_vjp"):
        jax.jit(lambda *a: jax.jvp(FUNCTIONS[name], a, a)).lower(*problem())


def second_order(function, over):
    """Return a function to the Hessian of the sum of sines, times a direction of u."""

    def run(arguments, direction):
        gradient = lambda u: value_and_gradient(function)(u, *arguments[1:])[1][0]
        if over == "forward":
            return jax.jvp(gradient, arguments[:1], (direction,))[1]
        return jax.grad(lambda u: jnp.sum(gradient(u) * direction))(arguments[0])

    return jax.jit(run)(problem(length=20), problem(length=20, seed=1)[0])


@functools.cache
def sequential_second_order(resets):
    return second_order(diagonal("sequential", resets), "reverse")


@pytest.mark.parametrize("name, over", [
    *((engine, "reverse") for engine in ENGINES),
    *((engine, "forward") for engine in (*SCANS, "fft")),
    *((f"{engine}, resets", "reverse") for engine in ("associative", "chunked")),
])
def test_gradient_of_a_gradient_is_the_same_for_all_engines(name, over, monkeypatch):
    monkeypatch.setattr(cpu, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(cpu, "LEAST_FEATURES", 2)
    wanted = sequential_second_order("resets" in name)
    check_close(second_order(FUNCTIONS[name], over), wanted, 1e-4)
