"""S5-RF against loops in float64: every rule, both activations, skips, and where it starts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax.functional.s5 import hippo_blocks
from pspike_jax.functional.surrogates import multi_gaussian
from pspike_jax.models.s5rf import _input_map


def pairs(a):
    return a[..., 0] + 1j * a[..., 1]


def layer(x, params, rule, V, polar, keep_imag):
    """Return spikes of x (L, F), in float64, and how near a threshold was."""
    lam = -np.exp(params["Lambda"][:, 0]) + 1j * params["Lambda"][:, 1]
    step = np.exp(params["log_step"])
    if rule == "bilinear":
        decay, gain = (1 + lam * step / 2) / (1 - lam * step / 2), step / (1 - lam * step / 2)
    else:
        decay = np.exp(lam * step)
        gain = step if rule == "dirac" else (decay - 1) / lam
    h, drives = 0, []
    for x_t in x:
        u = pairs(params["B"]) @ x_t
        h = decay * h + gain * (u if keep_imag else u.real)
        o = V @ h
        drives.append((np.abs(o) if polar else o.real) - 1)
    drives = np.stack(drives)
    return (drives > 0).astype(float), np.abs(drives).min()


@pytest.mark.parametrize("rule, activation, keep_imag, skip", [
    ("dirac", "polar", True, True), ("zoh", "cartesian", False, True),
    ("bilinear", "polar", True, False),
])
def test_network_fires_as_a_float64_loop(rule, activation, keep_imag, skip, rng, key):
    model = pspike_jax.create_model(
        "s5rf", "tiny", widths=(6, 6, 6), rule=rule, activation=activation, keep_imag=keep_imag,
        skip=skip, readout="modes" if rule == "dirac" else "eigenvectors",
    )
    x = rng.normal(0, 1, (1, 20, 3)).astype(np.float32)
    variables = nn.meta.unbox(jax.jit(model.init)(key(), x))
    grow = lambda path, a: 3 * a if path[-1].key == "B" else a
    params = jax.tree.map_with_path(grow, variables["params"])
    apply = jax.jit(lambda v, x: model.apply(v, x, capture=True))
    y, aux = apply(variables | {"params": params}, x)
    params = jax.tree.map(np.float64, params)
    V = np.eye(6) if rule == "dirac" else hippo_blocks(6, 2, conjugate=False)[1]
    z = np.float64(x[0])
    for i in range(3):
        spikes, nearest = layer(
            z, params["backbone"][f"layers_{i}"], "dirac" if i else rule, np.eye(6) if i else V,
            activation == "polar", keep_imag,
        )
        assert nearest > 1e-5 and 0 < spikes.mean() < 1
        np.testing.assert_array_equal(aux["sites"]["hidden"]["spike_array"][i, 0], spikes)
        z = spikes + z if skip and i == 1 else spikes
    head, h, total = params["head"], 0, 0
    for z_t in z:
        h = h / (1 + np.exp(-head["tau"])) + head["B"][..., 0] @ z_t
        total = total + h / len(z)
    expected = total - np.log(np.exp(total).sum())
    np.testing.assert_allclose(y[0], expected, rtol=1e-4, atol=1e-5)


def test_input_maps_start_lecun_normal_in_real_coordinates(key):
    _, V = hippo_blocks(8, 2, conjugate=False)
    B = np.asarray(jax.jit(lambda k: _input_map(k, V, 500))(key()))
    real = V @ pairs(B)
    assert abs(np.var(real.real) * 500 - 1) < 0.1 and abs(np.var(real.imag) * 500 - 1) < 0.1
    assert abs(np.mean(real.real * real.imag)) * 500 < 0.1  # independent; 4 sigma are 0.06


def test_surrogate_is_a_sum_of_three_bells():
    v = np.array([-2.0, -0.3, 0.0, 0.7])
    bell = lambda m, w: np.exp(-(((v - m) / w) ** 2) / 2)
    expected = 1.15 * bell(0, 0.5) - 0.15 * bell(0.5, 3) - 0.15 * bell(-0.5, 3)
    np.testing.assert_allclose(multi_gaussian(jnp.float32(v)), expected, rtol=1e-5)
