"""Prefixes of trees and of counters, with an aggregator that is far from associative."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.functional.prefix import empty_counter, push, tree_prefixes

MOST, SIZE = 70, 3


@pytest.fixture(scope="module")
def system():
    rng = np.random.default_rng(3)
    return rng.normal(size=(SIZE, 2 * SIZE)), rng.normal(size=SIZE), rng.normal(size=(MOST, SIZE))


def by_hand(W, b, leaves):
    """Fold the blocks of each prefix, block by block, in float64."""
    join = lambda u, v: np.tanh(W @ np.concatenate([u, v]) + b) + v / 2

    def tree(first, size):
        if size == 1:
            return leaves[first]
        return join(tree(first, size // 2), tree(first + size // 2, size // 2))

    prefixes = []
    for count in range(1, len(leaves) + 1):
        first, folded = 0, None
        while first < count:
            size = 2 ** ((count - first).bit_length() - 1)
            block = tree(first, size)
            folded = block if folded is None else join(folded, block)
            first += size
        prefixes.append(folded)
    return np.array(prefixes)


def aggregator(W, b):
    W, b = jnp.float32(W), jnp.float32(b)

    def aggregate(u, v):
        both = jnp.concatenate([u, v], axis=-1)
        return jnp.tanh(both @ W.T + jnp.broadcast_to(b, u.shape)) + v / 2

    return aggregate


def test_counter_gives_the_prefixes_of_the_definition(system):
    W, b, leaves = system
    step = jax.jit(functools.partial(push, aggregator(W, b)))
    counter, found = empty_counter(jnp.zeros(SIZE), MOST), []
    for leaf in np.float32(leaves):
        counter, prefix = step(counter, leaf)
        found.append(prefix)
    assert counter.blocks.shape == (7, SIZE)  # digits of 70
    # A tree of depth 7, float32.
    np.testing.assert_allclose(found, by_hand(W, b, leaves), rtol=0, atol=2e-5)


def test_tree_gives_the_prefixes_of_the_definition_for_every_length(system):
    W, b, leaves = system
    expected = by_hand(W, b, leaves)
    for count in range(1, MOST + 1):
        found = tree_prefixes(aggregator(W, b), jnp.float32(leaves[:count]))
        np.testing.assert_allclose(found, expected[:count], rtol=0, atol=2e-5, err_msg=str(count))


def test_tree_calls_its_aggregator_twice_a_level(system):
    calls = []

    def aggregate(u, v):
        calls.append(len(u))
        return u + v

    found = tree_prefixes(aggregate, jnp.float32(system[2]))
    assert len(calls) <= 2 * 7 and sum(calls) < 2 * MOST
    np.testing.assert_allclose(found, np.cumsum(system[2], axis=0), rtol=1e-4, atol=1e-4)


def test_aggregators_see_no_empty_value_and_trees_of_arrays(system):
    def aggregate(u, v):
        assert all(len(a) == len(b) for a, b in zip(jax.tree.leaves(u), jax.tree.leaves(v)))
        return {"x": u["x"] / v["x"], "n": u["n"] + v["n"]}  # NaN where an empty value were 0

    leaves = {"x": jnp.float32(2 + system[2] ** 2), "n": jnp.ones(MOST, jnp.int32)}
    found = tree_prefixes(aggregate, leaves)
    assert np.isfinite(found["x"]).all()
    np.testing.assert_array_equal(found["n"], np.arange(1, MOST + 1))


def test_no_leaves_raise():
    with pytest.raises(ValueError, match="no leaves"):
        tree_prefixes(jnp.add, jnp.zeros((0, 2)))


def test_prefixes_match_the_recorded_tree(golden):
    data = golden("oscillators/psm_tree_a.npz")
    found = tree_prefixes(aggregator(data["param/W"], data["param/b"]), jnp.float32(data["input"]))
    np.testing.assert_allclose(found[:-1], data["output"][1:], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[-1], data["total"], rtol=0, atol=1e-5)
