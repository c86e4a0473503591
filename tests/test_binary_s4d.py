"""Binary S4D: its surrogates, and gates that no gradient passes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

import pspike_jax
from pspike_jax.functional.surrogates import Rectangle, Triangle


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_surrogates_have_their_widths(width):
    step = 1e-4
    v = step * (np.arange(-30_000, 30_000) + 0.5)  # between the ends, where float32 decides
    single = jnp.float32(v)
    triangle, rectangle = np.asarray(Triangle(width)(single)), np.asarray(Rectangle(width)(single))
    np.testing.assert_allclose(triangle, np.maximum(0, width - np.abs(v)) / width**2, atol=2e-6)
    np.testing.assert_array_equal(rectangle, np.abs(v) < width / 2)
    assert Triangle(width) == Triangle(width) and hash(Rectangle(width)) == hash(Rectangle(width))
    assert step * triangle.sum(dtype=np.float64) == pytest.approx(1, abs=1e-3)


def test_gated_unit_is_that_of_a_float64_loop_and_no_gradient_passes_its_gates(rng, key):
    model = pspike_jax.create_model(
        "gsu_s4d", "tiny", n_layers=1, d_model=4, encoder="none", head="none", pool="none"
    )
    x = jnp.asarray(rng.normal(0, 1, (2, 6, 4)), jnp.float32)
    variables = nn.meta.unbox(jax.jit(model.init)(key(), x))
    block = jax.tree.map(lambda a: np.float64(a[0]), variables["params"]["backbone"]["blocks"])

    def share(a, axis=None):
        return np.sign(a) * (np.abs(a) >= 0.15 * np.abs(a).max(axis, keepdims=True))

    ssm = block["ssm"]
    poles, dt = -np.exp(ssm["A_real"]) + 1j * ssm["A_imag"], np.exp(ssm["log_dt"])[:, None]
    state, y = np.zeros((2, 4, 2), complex), []
    for t in range(6):
        held = np.expm1(poles * dt) / poles * np.float64(x)[:, t, :, None]
        state = np.exp(poles * dt) * state + held
        C = ssm["C"][0, ..., 0] + 1j * ssm["C"][0, ..., 1]
        y.append(2 * (C * state).real.sum(-1) + ssm["D"] * np.float64(x)[:, t])
    y = np.stack(y, axis=1)
    z = (share(y, -1) @ block["w"] + block["b"]) * (y @ share(block["w"]) + block["c"])
    norm = block["norm"]["layer"]
    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
    z = z * norm["scale"] + norm["bias"]
    expected = np.float64(x) + 0.5 * z * (1 + erf(z / np.sqrt(2)))

    out, aux = jax.jit(lambda v, x: model.apply(v, x, capture=True))(variables, x)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(aux["sites"]["output"]["sign_array"][0], share(y, -1))
