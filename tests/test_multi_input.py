"""Diagonal state spaces of many inputs: float64 loops, recordings of S5 and Event-SSM."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.functional.event_pooling import (
    mean_over_time,
    pool_events,
    pool_times,
    subsample,
)
from pspike_jax.functional.multi_input import Diagonal, multi_input_ssm
from pspike_jax.functional.s5 import (
    clip_real_part,
    discretize_modes,
    draw_input_map,
    draw_readout,
    hippo_blocks,
)


run = jax.jit(multi_input_ssm, static_argnames="engine")


def peak_error(actual, wanted):
    return np.max(np.abs(np.asarray(actual) - wanted)) / np.max(np.abs(wanted))


def complex_normal(rng, *shape):
    return np.complex64(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def problem(rng, length, P=5, H=3, batch=2, directions=1):
    poles = rng.uniform(0.8, 0.999, P) * np.exp(1j * rng.uniform(0, 3, P))
    C = complex_normal(rng, directions, H, P)
    return (
        np.float32(rng.normal(size=(batch, length, H))),
        Diagonal(np.complex64(poles), complex_normal(rng, P)),
        complex_normal(rng, P, H),
        C if directions == 2 else C[0],
        np.float32(rng.normal(size=H)),
    )


def loop(u, dynamics, B, C, D, state=None, resets=None):
    """Both directions one step at a time; per-step dynamics belong to the time before a step."""
    batch, length, H = u.shape
    P = B.shape[0]
    A, g = (np.broadcast_to(np.asarray(a, complex), (batch, length, P)) for a in dynamics)
    u, B, C = u.astype(np.float64), B.astype(complex), C.astype(complex)
    C = C if C.ndim == 3 else C[None]
    y = D.astype(np.float64) * u
    x = np.zeros((batch, P), complex) if state is None else state.astype(complex)
    for t in range(length):
        if resets is not None:
            x = np.where(resets[:, t, None], 0, x)
        x = A[:, t] * x + g[:, t] * (u[:, t] @ B.T)
        y[:, t] += (x @ C[0].T).real
    if len(C) == 2:
        z = np.zeros((batch, P), complex)
        for t in reversed(range(length)):
            later = min(t + 1, length - 1)
            if resets is not None and t + 1 < length:
                z = np.where(resets[:, t + 1, None], 0, z)
            z = A[:, later] * z + g[:, later] * (u[:, t] @ B.T)
            y[:, t] += (z @ C[1].T).real
    return y, x


@pytest.mark.parametrize("engine", ["sequential", "associative", "chunked"])
@pytest.mark.parametrize("directions", [1, 2])
def test_multi_input_ssm_matches_a_float64_loop(rng, directions, engine):
    arguments = problem(rng, 170, directions=directions)
    state, resets = complex_normal(rng, 2, 5), rng.random((2, 170)) < 0.03
    for given in ({}, {"initial_state": state}, {"initial_state": state, "resets": resets}):
        y, final = run(*arguments, engine=engine, **given)
        wanted, wanted_final = loop(*arguments, *given.values())
        # As the engines of one input; measured here: below 2e-6.
        assert peak_error(y, wanted) < 1e-5
        assert peak_error(final, wanted_final) < 1e-5


def test_per_step_dynamics_match_a_float64_loop_in_both_directions(rng):
    u, _, B, C, D = problem(rng, 40, directions=2)
    Lambda = np.complex64(-rng.uniform(0.1, 1, 5) + 1j * rng.uniform(0, 3, 5))
    step, dt = np.float32(rng.uniform(0.05, 0.2, 5)), np.float32(rng.exponential(size=(2, 40)))
    for rule in ("zoh", "bilinear", "async", "dirac"):
        dynamics = discretize_modes(Lambda, step, rule, dt)
        z = Lambda.astype(complex) * step.astype(float) * dt[..., None].astype(float)
        flow, held = np.exp(z), (np.exp(z) - 1) / Lambda
        if rule == "bilinear":
            flow, held = (1 + z / 2) / (1 - z / 2), (step * dt[..., None]) / (1 - z / 2)
        if rule in ("async", "dirac"):
            held = (np.exp(Lambda.astype(complex) * step) - 1) / Lambda
            held = np.broadcast_to(held if rule == "async" else 1, z.shape)
        np.testing.assert_allclose(dynamics.transition, flow, rtol=2e-6)
        np.testing.assert_allclose(
            np.broadcast_to(dynamics.gain, z.shape), held, rtol=2e-6
        )
        wanted, _ = loop(u, (flow, held), B, C, D)
        for engine in ("sequential", "auto"):
            y, _ = run(u, dynamics, B, C, D, engine=engine)
            assert peak_error(y, wanted) < 1e-5


@pytest.mark.parametrize("directions", [1, 2])
def test_gradients_of_the_engines_agree(rng, directions):
    u, dynamics, B, C, D = problem(rng, 150, directions=directions)
    state, weight = complex_normal(rng, 2, 5), np.float32(rng.normal(size=u.shape))

    def loss(engine, *arguments):
        y, final = multi_input_ssm(*arguments[:-1], initial_state=arguments[-1], engine=engine)
        return jnp.sum(weight * y) + jnp.sum(jnp.real(final * (1 + 2j)))

    arguments = u, dynamics, B, C, D, state
    gradient = jax.jit(jax.grad(loss, argnums=range(1, 7)), static_argnums=0)
    gradients = [
        jax.tree.leaves(gradient(engine, *arguments))
        for engine in ("sequential", "associative", "chunked")
    ]
    for other in gradients[1:]:
        for wanted, actual in zip(gradients[0], other, strict=True):
            assert peak_error(actual, wanted) < 1e-5
    # The engine that all are held against, along a random direction, by central differences in
    # float64 of the loop: the loss is linear in C, D and u, so one parameter that is not will do.
    poles_bar = np.asarray(gradients[0][1])
    along, h = complex_normal(rng, 5), 1e-5

    def value(poles):
        y, final = loop(u, Diagonal(poles, dynamics.gain), B, C, D, state)
        return np.sum(weight * y) + np.sum((final * (1 + 2j)).real)

    poles = dynamics.transition.astype(complex)
    slope = (value(poles + h * along) - value(poles - h * along)) / (2 * h)
    np.testing.assert_allclose(np.sum(poles_bar * along).real, slope, rtol=1e-4)


def test_pooled_events_are_weighted_by_the_time_before_them():
    x = jnp.float32([[[1], [3], [5], [9], [7]]])
    dt = jnp.float32([[1, 3, 2, 2, 4]])
    np.testing.assert_allclose(pool_events(x, dt, 2, "timepool")[0, :, 0], [2.5, 7], rtol=1e-6)
    np.testing.assert_allclose(pool_events(x, dt, 2, "avgpool")[0, :, 0], [2, 7])
    np.testing.assert_allclose(pool_events(x, dt, 2, "last")[0, :, 0], [1, 5])
    np.testing.assert_allclose(pool_times(dt, 2), [[4, 4]])
    with pytest.raises(ValueError, match="unknown pooling"):
        pool_events(x, dt, 2, "first")
    mean = mean_over_time(x, dt, jnp.array([4]))
    np.testing.assert_allclose(mean, [[(1 + 9 + 10 + 18) / 8]], rtol=1e-5)
    np.testing.assert_allclose(mean_over_time(x, dt, jnp.array([4]), whole=True), mean * 8 / 12)
    assert mean_over_time(x, dt, jnp.array([0])) == 0


def test_a_stream_of_single_steps_is_the_sequence(rng):
    u, *system = problem(rng, 30)
    whole, final = run(u, *system)
    state, parts = None, []
    for t in range(30):
        y, state = run(u[:, t: t + 1], *system, initial_state=state)
        parts.append(y)
    assert peak_error(jnp.concatenate(parts, axis=1), whole) < 2e-6
    assert peak_error(state, final) < 2e-6


@pytest.mark.parametrize("conjugate", [True, False])
def test_hippo_blocks_diagonalise_the_normal_part(conjugate):
    Lambda, V = hippo_blocks(12, 3, conjugate)
    size = 8 if conjugate else 4
    root = np.sqrt(np.arange(size) + 0.5)
    skew = np.triu(np.outer(root, root), 1)
    normal = np.kron(np.eye(3), -0.5 * np.eye(size) + skew.T * -1 + skew)
    np.testing.assert_allclose(normal @ V, V * Lambda, atol=1e-12)
    np.testing.assert_allclose(V.conj().T @ V, np.eye(12), atol=1e-12)
    assert np.all(Lambda.imag < 0) == conjugate
    with pytest.raises(ValueError, match="do not divide"):
        hippo_blocks(10, 4)


def test_maps_are_drawn_with_the_variances_of_the_program(key):
    _, V = hippo_blocks(96, 6)
    B = draw_input_map(key(), V, 128)
    # V* is half of a unitary matrix: the variance of an entry is that of the real rows.
    assert abs(np.mean(np.abs(B) ** 2) * 192 - 1) < 0.05
    for kind, variance in [
        ("trunc_standard_normal", 2 / 192), ("lecun_normal", 2 / 192 / 128), ("complex_normal", 1)
    ]:
        C = draw_readout(key(), V, 128, kind)
        assert C.shape == (128, 96)
        # 12,288 entries: 5 standard errors are 4.5 %.
        assert abs(np.mean(np.abs(C) ** 2) / variance - 1) < 0.045
    with pytest.raises(ValueError, match="unknown readout"):
        draw_readout(key(), V, 128, "normal")


# What stands around the state space in the recorded networks.


def norm(x, params, axes, eps):
    mean = jnp.mean(x, axis=axes, keepdims=True)
    var = jnp.mean(jnp.square(x), axis=axes, keepdims=True) - jnp.square(mean)
    return (x - mean) / jnp.sqrt(var + eps) * params["scale"][None, None] + params["bias"][
        None, None
    ]


def dense(x, params):
    return jnp.matmul(x, params["kernel"]) + params["bias"].reshape((1,) * (x.ndim - 1) + (-1,))


def tree_of(arrays, prefix):
    tree = {}
    for name, value in arrays.items():
        if name.startswith(prefix):
            *path, leaf = name[len(prefix):].split(".")
            node = tree
            for part in path:
                node = node.setdefault(part, {})
            node[leaf] = jnp.asarray(value)
    return tree


def pairs(array):
    return jax.lax.complex(array[..., 0], array[..., 1])


def s5_layer(x, params, meta, engine):
    ssm = params["seq"]
    h = norm_of(x, params["norm"], meta) if meta["prenorm"] else x
    Lambda = jax.lax.complex(ssm["Lambda_re"], ssm["Lambda_im"])
    if meta["clip_eigs"]:
        Lambda = clip_real_part(Lambda)
    step = jnp.exp(ssm["log_step"][:, 0])
    C = jnp.stack([pairs(ssm["C1"]), pairs(ssm["C2"])]) if "C1" in ssm else pairs(ssm["C"])
    dynamics = discretize_modes(Lambda, step, meta["discretization"])
    y, _ = multi_input_ssm(h, dynamics, pairs(ssm["B"]), 2 * C, ssm["D"], engine=engine)
    g = jax.nn.gelu(y)
    gate = jax.nn.sigmoid(dense(g, params["out2"]))
    x = x + (g if meta["activation"] == "half_glu1" else y) * gate
    return x if meta["prenorm"] else norm_of(x, params["norm"], meta)


def norm_of(x, params, meta):
    return norm(x, params, (0, 1), 1e-5) if meta["batchnorm"] else norm(x, params, -1, 1e-6)


@pytest.mark.parametrize("engine", ["associative", "chunked"])
@pytest.mark.parametrize("name", ["a", "c"])
def test_s5_networks_reproduce_the_recording(golden, name, engine):
    arrays = golden(f"oscillators/s5_network_{name}.npz")
    meta = json.loads(str(arrays["meta"]))
    lengths = arrays["input/lengths"] if meta["padded"] else np.full(meta["batch"], meta["length"])
    mask = np.float32(np.arange(meta["length"]) < lengths[:, None])[..., None]

    def loss(params, x):
        x = dense(x, params["encoder"]["encoder"])
        for i in range(meta["n_layers"]):
            x = s5_layer(x, params["encoder"][f"layers_{i}"], meta, engine)
        pooled = jnp.sum(mask * x, axis=1) / lengths[:, None].astype(np.float32)
        y = jax.nn.log_softmax(dense(pooled, params["decoder"]))
        return jnp.sum(arrays["loss_weight"] * y), y

    check_network(arrays, loss, arrays["input/x"])


def check_network(arrays, loss, x):
    backward = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, y), (gradients, x_bar) = backward(tree_of(arrays, "param/"), x)
    # The recording's own tolerances; measured here: 3e-7 and 1.5e-5.
    assert peak_error(y, arrays["train/output"]) < 1e-5
    assert peak_error(x_bar, arrays["train/grad_input"]) < 1e-4
    wanted = tree_of(arrays, "train/grad/")
    jax.tree.map_with_path(
        lambda path, a, b: np.testing.assert_array_less(peak_error(a, b), 1e-4, str(path)),
        gradients,
        wanted,
    )


@pytest.mark.parametrize("engine", ["sequential", "associative"])
def test_the_event_network_reproduces_the_recording(golden, engine):
    arrays = golden("oscillators/event_ssm_network_a.npz")
    meta = json.loads(str(arrays["meta"]))
    lengths = arrays["input/lengths"] // meta["pooling_stride"]

    def layer(x, dt, params, stride):
        ssm = params["S5SSM_0"]
        h = norm(x, params["LayerNorm_0"], -1, 1e-6)
        Lambda = jax.lax.complex(ssm["Lambda_re"], ssm["Lambda_im"])
        step = jnp.exp(ssm["log_step"][:, 0])
        dynamics = discretize_modes(Lambda, step, meta["discretization"], dt)
        y, _ = multi_input_ssm(h, dynamics, pairs(ssm["B"]), pairs(ssm["C"]), engine=engine)
        if stride > 1:
            y = subsample(y, stride)
            x, h = (pool_events(a, dt, stride, meta["pooling_mode"]) for a in (x, h))
            dt = pool_times(dt, stride)
        y = y + ssm["D"][None, None] * h
        gate = jax.nn.sigmoid(dense(jax.nn.gelu(y), params["Dense_0"]))
        return x + y * gate, dt

    def loss(params, dt):
        x = params["encoder"]["encoder"]["embedding"][arrays["input/tokens"]]
        stage = params["encoder"]["stages_0"]
        x, dt = layer(x, dt, stage["SequenceLayer_0"], meta["pooling_stride"])
        x, dt = layer(x, dt, stage["SequenceLayer_1"], 1)
        y = dense(mean_over_time(x, dt, lengths, whole=True), params["decoder"])
        return jnp.sum(arrays["loss_weight"] * y), y

    check_network(arrays, loss, arrays["input/timesteps"])
