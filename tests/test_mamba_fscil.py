"""The selective projector beside float64 loops, its start, and sessions of classes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax.functional import simplex
from pspike_jax.nn.selective_map import SelectiveMap
from pspike_jax.objectives import SimplexRegression
from pspike_jax.recipes import incremental

RNG = np.random.default_rng(5)
H, W, E, N, R = 2, 3, 5, 3, 2


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plane_by_loops(x, p):
    """The block `ss2d` on one map (h w, E), in float64."""
    wide = x @ p["in_proj"]
    x, gate = wide[:, :E], wide[:, E:]
    turned = np.zeros_like(x)
    for i in range(H):
        for j in range(W):
            for a in range(3):
                for b in range(3):
                    if 0 <= i + a - 1 < H and 0 <= j + b - 1 < W:
                        place = (i + a - 1) * W + j + b - 1
                        turned[i * W + j] += x[place] * p["conv"][a, b]
    x = turned + p["conv_bias"]
    x = x * sigmoid(x)
    rows = [(i, j) for i in range(H) for j in range(W)]
    columns = [(i, j) for j in range(W) for i in range(H)]
    total = np.zeros_like(x)
    for k, order in enumerate((rows, rows[::-1], columns, columns[::-1])):
        state = np.zeros((E, N))
        for i, j in order:
            u = x[i * W + j]
            told = u @ p["x_proj"][k]
            dt = np.log1p(np.exp(told[:R] @ p["dt_proj"][k] + p["dt_bias"][k]))
            b, c = told[R : R + N], told[R + N :]
            state = np.exp(-dt[:, None] * np.exp(p["A_log"][k])) * state
            state += (dt * u)[:, None] * b
            total[i * W + j] += state @ c + p["D"][k] * u
    mean, var = total.mean(-1, keepdims=True), total.var(-1, keepdims=True)
    total = (total - mean) / np.sqrt(var + 1e-5) * p["out_norm"]["scale"] + p["out_norm"]["bias"]
    return total * gate * sigmoid(gate)


def test_each_order_of_a_plane_has_parameters_of_its_own():
    block = SelectiveMap("ss2d", (H, W), N, R)
    x = RNG.normal(size=(2, H * W, E))
    drawn = nn.meta.unbox(jax.jit(block.init)(jax.random.key(0), jnp.float32(x)))
    moved = lambda a: a + 0.3 * jnp.asarray(RNG.normal(size=a.shape), jnp.float32)
    variables = jax.tree.map(moved, drawn)
    y, parts = jax.jit(block.apply)(variables, jnp.float32(x))
    params = jax.tree.map(np.float64, variables["params"])
    expected = np.stack([plane_by_loops(row, params) for row in x])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert parts["dt"].shape == (2, 4, H * W, R) and parts["b"].shape == (2, 4, H * W, N)


def test_a_new_branch_adds_nothing_at_first_and_then_learns_alone():
    model = pspike_jax.create_model("mamba_fscil", "tiny", detach=True)
    x = jnp.asarray(RNG.normal(size=(3, 4, 5)), jnp.float32)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(1), x))["params"]
    run = functools.partial(model.apply, capture=True)

    def loss(params, x):
        aux = run({"params": params}, x)[1]
        return jnp.sum(jnp.sin(aux["features"])), aux

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (bar, x_bar), aux = gradient(params, x)
    np.testing.assert_array_equal(aux["features"], aux["residual"])
    assert not np.any(x_bar)  # of the features: the new branch sees them behind a wall
    for path, leaf in jax.tree.leaves_with_path(bar):
        learns = path[0].key == "new" and path[-1].key == "in_proj"
        assert np.any(leaf) == learns, jax.tree_util.keystr(path)


def test_prototypes_are_as_far_apart_as_can_be():
    found = simplex.simplex(9, 4, seed=3).astype(np.float64)
    expected = np.full((4, 4), -1 / 3) + np.eye(4) * 4 / 3
    np.testing.assert_allclose(found.T @ found, expected, atol=1e-6)
    with pytest.raises(ValueError, match="expected 2 <= K <= d"):
        simplex.simplex(3, 4)


def test_classes_that_have_not_come_are_not_told():
    scores = jnp.asarray([[0.1, 0.2, 0.9], [0.8, 0.3, 0.9], [0.0, 0.0, 0.0]])
    batch = {"targets": jnp.asarray([1, 1, -1])}
    losses, weights, found = SimplexRegression(3, seen=2)(scores, batch)
    np.testing.assert_allclose(losses[:2], [5 * 0.8**2, 5 * 0.7**2], rtol=1e-6)
    np.testing.assert_array_equal(weights, [1, 1, 0])
    assert float(found["accuracy"]["sum"]) == 1 and float(found["accuracy"]["count"]) == 2


def test_losses_between_kinds_are_norms_and_angles_of_means():
    base = np.array([True, False, True, False])
    shapes = {"gate": (4, 6, 5), "dt": (4, 2, 6, 3), "b": (4, 2, 6, 3), "c": (4, 2, 6, 3)}
    parts = {
        branch: {name: RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        for branch in ("base", "new")
    }
    weights = {"suppress": 3.0, "suppress_novel": 2.0, "separate": 0.5, "separate_new": 0.7}
    found = incremental.class_sensitive(parts, jnp.asarray(base), **weights)
    gate = parts["new"]["gate"]
    assert float(found["suppress_base"]) == pytest.approx(
        3 * np.linalg.norm(gate[base]) / gate[base].size, rel=1e-5
    )
    assert float(found["suppress_novel"]) == pytest.approx(
        -2 * np.linalg.norm(gate[~base]) / gate[~base].size, rel=1e-5
    )
    for branch, weight in (("base", 0.5), ("new", 0.7)):
        u, v = (parts[branch]["b"][rows].mean((0, 1, 2)) for rows in (base, ~base))
        angle = abs(u @ v) / np.linalg.norm(u) / np.linalg.norm(v)
        assert float(found[f"separate_b_{branch}"]) == pytest.approx(weight * angle / 2, rel=1e-4)
    one = incremental.class_sensitive(parts, jnp.ones(4, bool), **weights)
    assert not any(map(float, one.values()))


def test_sessions_hold_their_own_classes_and_means_stand_for_old_ones():
    labels = RNG.permutation(np.repeat(np.arange(7), 8))
    sessions = incremental.few_shot_sessions(labels, base_classes=3, ways=2, shots=5, seed=0)
    assert [sorted(set(labels[rows].tolist())) for rows in sessions] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [len(rows) for rows in sessions] == [24, 10, 10]
    features = np.eye(7)[labels] + 0.1 * RNG.normal(size=(56, 7))
    means, classes = incremental.class_means(features, labels)
    np.testing.assert_array_equal(incremental.nearest_mean(features, means, classes), labels)
