"""Work of programs, against closed forms: loops, branches and devices are multiplied out."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from pspike_jax.training import make_mesh
from pspike_jax.training.cost import Cost, count

B, H, LAYERS = 3, 4, 5
X = jax.ShapeDtypeStruct((B, H), jnp.float32)
W = jax.ShapeDtypeStruct((LAYERS, H, H), jnp.float32)


def work(function, *arguments, platform="cpu"):
    return count(jax.make_jaxpr(function)(*arguments).jaxpr, platform)


def product(x, w):
    return x @ w


def test_count_of_a_product():
    # A multiplication and an addition for each of B H H; three arrays of four-byte numbers.
    traffic = 4 * (B * H + H * H + B * H)
    assert work(product, X, jax.ShapeDtypeStruct((H, H), jnp.float32)) == Cost(
        2 * B * H * H, 0, traffic
    )


def test_count_of_a_complex_product_has_four_real_ones():
    x, w = (jax.ShapeDtypeStruct(shape, jnp.complex64) for shape in ((B, H), (H, H)))
    assert work(product, x, w).products == 8 * B * H * H


def layers(x, weights):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]


def test_count_of_a_loop_is_that_of_all_its_passes():
    found = work(layers, X, W)
    one = 4 * (2 * B * H + H * H)
    assert found == Cost(LAYERS * 2 * B * H * H, LAYERS * B * H, LAYERS * (one + 4 * H * H))


def test_count_goes_into_derivatives_and_what_is_recomputed():
    # Backward: two products for each forward one; and the forward one again where it is not kept.
    total = lambda layers: jax.grad(lambda w, x: jnp.sum(layers(x, w)))
    assert work(total(layers), W, X).products == 3 * LAYERS * 2 * B * H * H

    def recomputed(x, weights):
        step = jax.checkpoint(lambda x, w: (jnp.tanh(x @ w), None))
        return jax.lax.scan(step, x, weights)[0]

    assert work(total(recomputed), W, X).products == 4 * LAYERS * 2 * B * H * H


def test_count_takes_the_branch_of_the_platform():
    def run(x, w):
        once = lambda x, w: x @ w[0]
        return jax.lax.platform_dependent(x, w, cpu=once, cuda=layers, default=layers)

    assert work(run, X, W).products == 2 * B * H * H
    for platform in ("cuda", "tpu"):
        assert work(run, X, W, platform=platform).products == LAYERS * 2 * B * H * H


def test_count_takes_the_dearer_branch_of_a_choice():
    run = lambda x, w: jax.lax.cond(x[0, 0] > 0, layers, lambda x, w: x, x, w)
    assert work(run, X, W).products == LAYERS * 2 * B * H * H


@pytest.mark.parametrize(("dtype", "factor"), [(jnp.complex64, 5), (jnp.float32, 2.5)])
def test_count_of_a_fourier_transform(dtype, factor):
    transform = jnp.fft.fft if dtype == jnp.complex64 else jnp.fft.rfft
    found = work(transform, jax.ShapeDtypeStruct((B, 64), dtype))
    assert found.products == factor * B * 64 * math.log2(64)


def test_count_of_what_one_device_does_is_that_of_all():
    spec = PartitionSpec("data")
    mesh = make_mesh(devices=jax.devices()[:2])
    run = jax.shard_map(
        lambda x, w: x @ w[0], mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=spec
    )
    x = jax.ShapeDtypeStruct((4, H), jnp.float32)
    assert work(run, x, W).products == 2 * 4 * H * H
