"""Prefix-scannable models: streams at every length, causality, and the first chunk."""

import functools

import jax
import numpy as np
import pytest

import pspike_jax
from pspike_jax.models.psm import PrefixScan

LENGTH, CHUNK = 31, 2
# Float32 through some Transformer blocks.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(scope="module")
def case():
    model = pspike_jax.create_model("psm", "tiny", pool="none", chunk=CHUNK, l_max=64)
    x = np.float32(np.random.default_rng(2).normal(size=(2, LENGTH, 3)))
    boxed = jax.jit(model.init)(jax.random.key(1), x)
    rng = np.random.default_rng(5)
    variables = jax.tree.map(
        lambda box: box.value + np.float32(0.3 * rng.normal(size=box.value.shape)),
        boxed, is_leaf=lambda leaf: hasattr(leaf, "axes"),
    )
    apply = jax.jit(model.apply, static_argnames="method")
    return model, variables, x, apply, apply(variables, x)[0]


def test_a_counter_in_a_stream_is_the_tree_of_training_at_every_length(case):
    model, variables, x, apply, whole = case
    step = functools.partial(apply, variables, method="step")
    state = model.initial_state(2)
    for t in range(LENGTH):
        state, (outputs, _) = step(state, x[:, t])
        np.testing.assert_allclose(outputs, whole[:, t], **CLOSE, err_msg=str(t))


def test_prefixes_reach_outputs_far_away_and_nothing_reads_the_future(case):
    model, variables, x, apply, whole = case
    changed, _ = apply(variables, np.concatenate([x[:, :1] + 1, x[:, 1:]], axis=1))
    assert np.abs(changed - whole)[:, -1].max() > 1e-4
    changed, _ = apply(variables, np.concatenate([x[:, :20], x[:, 20:] + 1], axis=1))
    np.testing.assert_allclose(changed[:, :20], whole[:, :20], **CLOSE)


def test_what_stands_for_the_empty_prefix_is_not_read(case, monkeypatch):
    model, variables, x, _, whole = case
    prefixes = PrefixScan.prefixes

    def spoiled(self, x, train=False):
        found, chunks = prefixes(self, x, train)
        return found.at[0].set(100.0), chunks

    monkeypatch.setattr(PrefixScan, "prefixes", spoiled)
    outputs, _ = jax.jit(lambda: model.apply(variables, x[:, :5]))()
    np.testing.assert_allclose(outputs, whole[:, :5], **CLOSE)


def test_a_state_grows_with_the_logarithm_of_the_longest_length():
    sizes = []
    for l_max in (64, 64 * 1024):
        model = pspike_jax.create_model("psm", "tiny", l_max=l_max)
        state = jax.eval_shape(lambda model=model: model.initial_state(1))
        sizes.append(sum(leaf.size for leaf in jax.tree.leaves(state["layers"]["counter"])))
    # 5 and 15 digits; a leaf is 4 by 8, twice for each digit.
    assert sizes == [1 + 5 * 64, 1 + 15 * 64]


def test_longer_sequences_than_positions_are_refused(case):
    model, variables, x, _, _ = case
    with pytest.raises(ValueError, match="65 steps; l_max is 64"):
        model.apply(variables, np.zeros((1, 65, 3), np.float32))
