"""Keyed uniforms: their construction, what they do not depend on, and their statistics.

Statistical tests state alpha, the chance that a correct generator fails under a key drawn at
random, and the smallest effect that they catch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pspike_jax.functional import uniforms
from pspike_jax.functional.noise import threefry_2x32, threefry_key, uniform_from_bits

B, L, H = 8, 16, 24
WHERE = {"layer": 2, "sampler": 1}
IDS, STEPS = np.arange(B), np.arange(L)
LARGE = (64, 128, 128)  # 2^20 draws
ALPHA = 1e-6
Z = 5.6  # two-sided normal quantile of ALPHA / 64: up to 64 comparisons in a test


def draw(key, example_ids=IDS, steps=STEPS, features=H, layer=2, sampler=1):
    """Return the uniforms as NumPy; jit so that calls of one shape compile once."""
    return np.asarray(_draw(key, np.asarray(layer, np.int32), np.asarray(sampler, np.int32),
                            np.asarray(example_ids), np.asarray(steps), features))


def _uniforms(key, layer, sampler, example_ids, steps, features):
    return uniforms(key, layer=layer, sampler=sampler, example_ids=example_ids, steps=steps,
                    features=features)


_draw = jax.jit(_uniforms, static_argnames="features")


def large(key, **where):
    return draw(key, np.arange(LARGE[0]), np.arange(LARGE[1]), LARGE[2], **where)


# Construction.


def numpy_threefry(key, block, groups=5, more=0):
    """Threefry-2x32 from Salmon et al. 2011, figure 2 and table 2, word by word.

    It has 4 * groups rounds, and up to 4 more.
    """
    mask, rotations = 0xFFFFFFFF, ((13, 15, 26, 6), (17, 29, 16, 24))
    keys = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x, y = (block[0] + keys[0]) & mask, (block[1] + keys[1]) & mask
    for group in range(groups + 1):
        for rotation in rotations[group % 2][: more if group == groups else 4]:
            x = (x + y) & mask
            y = ((y << rotation | y >> (32 - rotation)) & mask) ^ x
        if group == groups:
            return x, y
        x = (x + keys[(group + 1) % 3]) & mask
        y = (y + keys[(group + 2) % 3] + group + 1) & mask


@pytest.mark.parametrize("key, block, expected", [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
])
def test_threefry_gives_the_known_answers(key, block, expected):
    """The three known answers that the authors of Threefry publish with Random123."""
    words = threefry_2x32(tuple(map(jnp.uint32, key)), tuple(map(jnp.uint32, block)))
    assert tuple(map(int, words)) == expected == numpy_threefry(key, block)


def test_uniforms_follow_their_documented_construction(key):
    """Pins the draw of each element, so that a trained model's noise never changes."""
    draw_key = key()
    words = tuple(int(word) for word in jax.random.key_data(draw_key))
    examples, steps, features = (0, 3, 2**31 - 1), (0, 1, 100_000), (0, 1, 23)
    u = draw(draw_key, examples, steps)
    sampler_key = numpy_threefry(words, (2, 1))

    def word(example, step, feature):
        row_key = numpy_threefry(sampler_key, (example, step))
        return numpy_threefry(row_key, (feature // 2, 0), groups=3, more=1)[feature % 2]

    expected = [
        [[(word(example, step, feature) >> 8) / 2**24 for feature in features] for step in steps]
        for example in examples
    ]
    np.testing.assert_array_equal(u[..., features], expected)


def test_uniform_from_bits_never_rounds_to_one():
    words = np.uint32([0, 1, 255, 256, 2**31, 2**32 - 257, 2**32 - 128, 2**32 - 1])
    u = np.asarray(uniform_from_bits(words))
    assert u.dtype == np.float32 and np.all(u < 1)
    np.testing.assert_array_equal(u, (words >> 8) / 2**24)


# What a draw does not depend on.


def test_uniforms_are_float32_of_shape_batch_length_features(key):
    u = _draw(key(), *WHERE.values(), IDS, STEPS, H)
    assert u.dtype == jnp.float32 and u.shape == (B, L, H)


def test_uniforms_do_not_depend_on_the_batch(key):
    draw_key = key()
    together = draw(draw_key)
    one_by_one = np.concatenate([draw(draw_key, [i]) for i in IDS])
    np.testing.assert_array_equal(together, one_by_one)


def test_uniforms_follow_the_order_of_examples(key, rng):
    draw_key, order = key(), rng.permutation(B)
    np.testing.assert_array_equal(draw(draw_key)[order], draw(draw_key, IDS[order]))


def test_uniforms_do_not_depend_on_the_length(key):
    draw_key = key()
    np.testing.assert_array_equal(draw(draw_key)[:, :5], draw(draw_key, steps=np.arange(5)))


def test_uniforms_do_not_depend_on_chunking(key):
    draw_key = key()
    chunks = [draw(draw_key, steps=np.arange(start, start + 4)) for start in range(0, L, 4)]
    np.testing.assert_array_equal(draw(draw_key), np.concatenate(chunks, axis=1))


def test_uniforms_are_the_same_step_by_step_in_a_scan(key):
    draw_key = key()

    def step(t, _):
        return t + 1, _uniforms(draw_key, *WHERE.values(), IDS, t[None], H)[:, 0]

    _, u = jax.lax.scan(step, jnp.int32(0), length=L)
    np.testing.assert_array_equal(draw(draw_key), np.swapaxes(u, 0, 1))


def test_uniforms_are_the_same_with_a_layer_that_is_traced(key):
    draw_key = key()
    u = jax.lax.map(lambda layer: _uniforms(draw_key, layer, 1, IDS, STEPS, H), jnp.arange(3))
    np.testing.assert_array_equal(u, [draw(draw_key, layer=layer) for layer in range(3)])


def test_uniforms_are_the_same_outside_jit(key):
    draw_key = key()
    np.testing.assert_array_equal(draw(draw_key),
                                  _uniforms(draw_key, *WHERE.values(), IDS, STEPS, H))


def test_uniforms_are_the_same_where_the_backward_pass_draws_them_again(key):
    draw_key = key()

    @jax.checkpoint
    def loss(weights):
        return jnp.sum(weights * _uniforms(draw_key, *WHERE.values(), IDS, STEPS, H))

    # The gradient of a weighted sum is what was weighted, drawn again as nothing was kept.
    again = jax.jit(jax.grad(loss))(jnp.ones((B, L, H)))
    np.testing.assert_array_equal(again, draw(draw_key))


def test_uniforms_are_the_same_under_vmap(key):
    draw_key = key()
    u = jax.vmap(lambda i: _uniforms(draw_key, *WHERE.values(), i[None], STEPS, H)[0])(IDS)
    np.testing.assert_array_equal(draw(draw_key), u)


@pytest.mark.parametrize("spec", [PartitionSpec("devices"), PartitionSpec(None, "devices"),
                                  PartitionSpec(None, None, "devices")], ids=str)
def test_uniforms_are_the_same_on_a_mesh_of_eight_devices(spec, key):
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(AxisType.Auto,))
    draw_key = key()

    def place(array, spec):
        return jax.device_put(array, NamedSharding(mesh, spec))

    by_batch, by_length, _ = tuple(spec) + (None,) * (3 - len(spec))
    u = jax.jit(_uniforms, static_argnames="features", out_shardings=NamedSharding(mesh, spec))(
        place(draw_key, PartitionSpec()), *WHERE.values(), place(IDS, PartitionSpec(by_batch)),
        place(STEPS, PartitionSpec(by_length)), H)
    assert len(u.addressable_shards) == 8 and u.addressable_shards[0].data.size == u.size // 8
    np.testing.assert_array_equal(draw(draw_key), u)


def test_uniforms_take_ids_and_steps_for_each_element(key, rng):
    """Packed rows: example_ids and steps (B, L) name each element by itself."""
    draw_key = key()
    ids, steps = rng.integers(0, B, (3, 10)), rng.integers(0, L, (3, 10))
    expected = draw(draw_key)[ids, steps]
    np.testing.assert_array_equal(draw(draw_key, ids, steps), expected)


def test_uniforms_take_ids_or_steps_for_each_element(key, rng):
    draw_key = key()
    ids, steps = rng.integers(0, B, (3, L)), rng.integers(0, L, (B, 10))
    u = draw(draw_key)
    np.testing.assert_array_equal(draw(draw_key, ids, STEPS), u[ids, STEPS])
    np.testing.assert_array_equal(draw(draw_key, IDS, steps), u[IDS[:, None], steps])


def test_uniforms_of_a_raw_key_equal_those_of_the_typed_key(key):
    typed = key()
    np.testing.assert_array_equal(draw(typed), draw(jax.random.key_data(typed)))


# What a draw does depend on.


def test_uniforms_are_distinct_for_every_coordinate(key):
    """Neighbours, far steps and ids, and swapped coordinates never share a row of draws."""
    keys = (key(), key())
    numbers = (0, 1, 2, 3, 255, 256, 65_535, 65_536, 2**24, 2**31 - 1)
    rows = [draw(k, numbers, numbers, 4, layer, sampler).reshape(-1, 4)
            for k in keys for layer in (0, 1, 2, 3, 256) for sampler in (0, 1, 2, 3, 256)]
    rows = np.concatenate(rows)  # 5000 rows of 96 bits: a chance match has probability 2e-22
    assert len(np.unique(rows, axis=0)) == len(rows)


# Statistics.


def test_uniforms_have_the_mean_and_variance_of_a_uniform(key):
    """n = 2^20, alpha = 1e-6: catches 1.6e-3 in the mean and 4.1e-4 in the variance.

    The variance of u is 1/12, that of (u - 1/2)^2 is 1/180.
    """
    u = large(key()).astype(np.float64) - 0.5
    assert abs(u.mean()) < Z * np.sqrt(1 / 12 / u.size)
    assert abs(np.mean(u**2) - 1 / 12) < Z * np.sqrt(1 / 180 / u.size)


def test_uniforms_fill_the_unit_interval_evenly(key):
    """Kolmogorov-Smirnov with the DKW bound, n = 2^20, alpha = 1e-6: catches 2.6e-3."""
    u = np.sort(large(key()).ravel()).astype(np.float64)
    n = u.size
    assert u[0] >= 0 and u[-1] < 1
    distance = max(np.max(np.arange(1, n + 1) / n - u), np.max(u - np.arange(n) / n))
    assert distance < np.sqrt(np.log(2 / ALPHA) / (2 * n))


def test_uniforms_use_each_of_their_24_bits(key):
    """A fair coin for each bit, n = 2^20, m = 24, alpha = 1e-6: catches a bias of 2.7e-3."""
    words = large(key()) * np.float32(2**24)
    integers = words.astype(np.int64)
    np.testing.assert_array_equal(integers, words)
    rates = [np.mean(integers >> bit & 1) for bit in range(24)]
    np.testing.assert_allclose(rates, 0.5, rtol=0, atol=Z * 0.5 / 2**10)


def assert_independent(a, b):
    """Compare pairs of uniforms: correlation, equality, and a table of 16 x 16 cells.

    With 2^20 pairs and alpha = 1e-6 this catches a correlation of 5.5e-3. The chi-squared bound
    is Laurent and Massart's: P(X > d + 2 sqrt(d t) + 2 t) <= exp(-t).
    """
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    n = a.size
    correlation = 12 * np.mean((a - 0.5) * (b - 0.5))
    assert abs(correlation) < Z / np.sqrt(n)
    assert np.count_nonzero(a == b) < 10  # expected n / 2^24 = 0.06
    cells = np.bincount((np.floor(a * 16) * 16 + np.floor(b * 16)).astype(np.int64),
                        minlength=256)
    t, freedom = np.log(64 / ALPHA), 255
    chi_squared = np.sum((cells - n / 256)**2) / (n / 256)
    assert chi_squared < freedom + 2 * np.sqrt(freedom * t) + 2 * t


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["examples", "steps", "features"])
def test_uniforms_of_neighbours_are_independent(axis, key):
    u = np.moveaxis(large(key()), axis, 0)
    assert_independent(u[1:], u[:-1])


def test_uniforms_of_swapped_examples_and_steps_are_independent(key):
    u = large(key())[:, :LARGE[0]]
    above = np.triu_indices(LARGE[0], 1)
    assert_independent(u[above], np.swapaxes(u, 0, 1)[above])


@pytest.mark.parametrize("other", [{"sampler": 2}, {"layer": 3}, {"layer": 1, "sampler": 2}],
                         ids=["samplers", "layers", "swapped"])
def test_uniforms_of_other_samplers_and_layers_are_independent(other, key):
    draw_key = key()
    assert_independent(large(draw_key), large(draw_key, **other))


@pytest.mark.parametrize("derive", [lambda k: jax.random.key(1), jax.random.split,
                                    lambda k: jax.random.fold_in(k, 1)],
                         ids=["neighbour", "split", "fold_in"])
def test_uniforms_of_other_keys_are_independent(derive):
    draw_key = jax.random.key(0)
    other = derive(draw_key)
    assert_independent(large(draw_key), large(other if other.ndim == 0 else other[0]))


def test_uniforms_are_independent_of_draws_by_jax_random():
    """A model's dropout may draw from the key that its noise was folded from."""
    draw_key = jax.random.key(5)
    for other in (draw_key, jax.random.fold_in(draw_key, 2)):
        assert_independent(large(draw_key), np.asarray(jax.random.uniform(other, LARGE)))


# Keys of other generators.


def test_threefry_key_returns_a_threefry_key_as_it_is(key):
    given = key()
    assert threefry_key(given) == given


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_threefry_key_encrypts_the_later_words_under_the_first(kind):
    given = jax.random.fold_in(jax.random.key(3, impl=kind), 5)
    words = [int(word) for word in jax.random.key_data(given)]
    with jax.default_prng_impl(kind):
        found = threefry_key(given)
    assert str(jax.random.key_impl(found)) == "threefry2x32"
    assert tuple(map(int, jax.random.key_data(found))) == numpy_threefry(words[:2], words[2:])


def test_uniforms_of_another_generators_key_are_those_of_its_threefry_key():
    given = jax.random.key(3, impl="rbg")
    expected = _uniforms(threefry_key(given), *WHERE.values(), IDS, STEPS, H)
    for one in (given, jax.random.key_data(given)):
        np.testing.assert_array_equal(_uniforms(one, *WHERE.values(), IDS, STEPS, H), expected)


# Bad input.


@pytest.mark.parametrize("bad_key", [
    lambda: jax.random.split(jax.random.key(0), 2),
    lambda: np.zeros((3,), np.uint32),
    lambda: np.zeros((2, 2), np.uint32),
    lambda: np.zeros((2,), np.int32),
    lambda: 7,
], ids=["two keys", "three words", "two raw keys", "int32", "a seed"])
def test_uniforms_reject_what_is_not_one_key(bad_key):
    with pytest.raises((ValueError, TypeError), match="spikes need"):
        _uniforms(bad_key(), *WHERE.values(), IDS, STEPS, H)


@pytest.mark.parametrize("ids, steps", [
    (IDS.astype(np.float32), STEPS),
    (IDS, STEPS.astype(np.float32)),
    (0, STEPS),
    (IDS, 0),
    (np.zeros((B, L + 1), np.int32), STEPS),
    (IDS, np.zeros((B + 1, L), np.int32)),
    (np.zeros((1, B, L), np.int32), STEPS),
], ids=["float ids", "float steps", "one id", "one step", "ids of another length",
        "steps of another batch", "ids of rank 3"])
def test_uniforms_reject_ids_and_steps_that_do_not_fit(ids, steps, key):
    with pytest.raises((ValueError, TypeError), match="example_ids|steps"):
        _uniforms(key(), *WHERE.values(), ids, steps, H)
