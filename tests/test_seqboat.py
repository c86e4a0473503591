"""SeqBoat: averages, slots and windows against loops; outputs that do not depend on neighbours."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax.functional.sparse_activation import choose_slots, pack, unpack
from pspike_jax.functional.window_attention import SCORES, Keys, window_attention
from pspike_jax.nn import whole_sequences
from pspike_jax.nn.mixers.ema import EMA


def test_averages_are_sums_over_both_directions(rng):
    u = jnp.asarray(rng.normal(size=(2, 9, 3)), jnp.float32)
    module = EMA(3, 4, two_sided=True)
    params = nn.meta.unbox(module.init(jax.random.key(0), u, None, whole_sequences(u)))
    y, _ = module.apply(params, u, None, whole_sequences(u, jnp.array([9, 6])))
    p = {name: np.asarray(value, np.float64) for name, value in params["params"].items()}
    gain = 1 / (1 + np.exp(-p["delta"]))
    q = 1 - gain / (1 + np.exp(-p["alpha"]))
    given = np.asarray(u, np.float64).copy()
    wanted = given * p["omega"]
    given[1, 6:] = 0  # padding counts as nothing, but for the skip
    for t in range(9):
        for s in range(9):
            for way in ([0] if s < t else [1] if s > t else [0, 1]):
                weight = gain * p["beta"] * p["gamma"] / 2 * q ** abs(t - s)
                wanted[:, t] += weight[way].sum(-1) * given[:, s]
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_that_of_a_loop_over_the_window(rng, score, causal):
    B, C, E, V, w = 2, 11, 3, 4, 4
    q, k = (rng.normal(size=(B, C, E)) for _ in range(2))
    v, bias = rng.normal(size=(B, C, V)), rng.normal(size=9)
    position = np.sort(rng.integers(0, 30, size=(B, C)), axis=1)
    valid, segment = rng.random((B, C)) < 0.8, np.arange(C)[None] // 6 + np.zeros((B, 1))
    wanted, seen = np.zeros((B, C, V)), np.zeros((B, C), bool)
    for b, i in np.ndindex(B, C):
        near = [
            j
            for j in range(max(0, i - w), min(C, i + 1 if causal else i + w + 1))
            if valid[b, j] and segment[b, i] == segment[b, j]
        ]
        if not near:
            continue
        apart = np.clip(position[b, near] - position[b, i], -4, 4) + 4
        raw, seen[b, i] = k[b, near] @ q[b, i], True
        if score == "softmax":
            weights = np.exp(raw / np.sqrt(E) + bias[apart])
            weights /= weights.sum()
        else:
            weights = np.maximum(raw / (w if causal else 2 * w) + bias[apart], 0) ** 2
        wanted[b, i] = weights @ v[b, near]
    f32, i32 = (lambda a: jnp.asarray(a, jnp.float32)), (lambda a: jnp.asarray(a, jnp.int32))
    keys = Keys(f32(k), f32(v), i32(position), jnp.asarray(valid), i32(segment))
    found = window_attention(f32(q), keys, f32(bias), window=w, causal=causal, score=score)
    np.testing.assert_allclose(found[seen], wanted[seen], rtol=1e-5, atol=1e-6)


def test_packing_keeps_the_order_and_the_capacity(rng):
    active = rng.random((5, 12)) < 0.5
    x = jnp.asarray(rng.normal(size=(5, 12, 2)), jnp.float32)
    priority = rng.random((5, 12)).astype(np.float32)
    for capacity, chosen in ((None, None), (3, None), (3, priority)):
        count = capacity or 12
        slots = choose_slots(jnp.asarray(active), count, capacity=capacity, priority=chosen)
        for b in range(5):
            steps = np.flatnonzero(active[b])
            if capacity is not None and chosen is not None:
                steps = np.sort(steps[np.argsort(-priority[b, steps])[:capacity]])
            steps = steps[:capacity]
            np.testing.assert_array_equal(np.flatnonzero(slots.kept[b]), steps)
            np.testing.assert_array_equal(slots.source[b][np.asarray(slots.filled[b])], steps)
        there_and_back = np.where(np.asarray(slots.kept)[..., None], x, 0)
        np.testing.assert_array_equal(unpack(pack(x, slots), slots), there_and_back)


def compiled(model):
    return jax.jit(model.apply, static_argnames=("capture", "method"))


def spread_model(rng, **fields):
    """A small model whose parameters are all well away from zero."""
    model = pspike_jax.create_model("seqboat", "tiny", **fields)
    x = jnp.asarray(rng.normal(size=(3, 10, 2)), jnp.float32)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), x))["params"]
    noise = lambda a: a + 0.5 * jnp.asarray(rng.normal(size=a.shape), jnp.float32)
    return model, {"params": jax.tree.map(noise, params)}, x


def test_an_output_does_not_depend_on_the_other_examples(rng):
    model, variables, x = spread_model(rng, causal=False, capacity=4)
    run = compiled(model)
    together, aux = run(variables, x)
    alone = [run(variables, row[None])[0][0] for row in x]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    assert float(aux["sites"]["router"]["neuron_spikes"].max()) <= 3 * 4
    # As the program has it, an example that attends throughout changes the windows of the others.
    with pytest.raises(ValueError, match="has no capacity"):
        model.replace(packing="batch")


def test_controls_attend_always_and_never(rng):
    shares = {}
    for attend in ("learnt", "always", "never"):
        model, variables, x = spread_model(np.random.default_rng(2), attend=attend)
        outputs, aux = compiled(model)(variables, x, jnp.array([10, 4, 7]))
        record = aux["sites"]["router"]
        shares[attend] = float(record["spikes"].sum() / record["steps"].sum())
        assert np.isfinite(outputs).all()
    assert shares["always"] == 1 and shares["never"] == 0 and 0 < shares["learnt"] < 1


def test_streams_of_a_full_capacity_stop_attending(rng):
    model, variables, x = spread_model(rng, capacity=2, window=2, attend="always")
    run = compiled(model)
    whole, aux = run(variables, x, capture=True)
    np.testing.assert_array_equal(aux["sites"]["router"]["neuron_spikes"], 3 * 2)
    state = model.initial_state(3)
    for t in range(10):
        state, (outputs, _) = run(variables, state, x[:, t], method="step")
    np.testing.assert_allclose(outputs, whole, rtol=1e-5, atol=1e-5)
