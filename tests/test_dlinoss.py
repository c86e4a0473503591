"""D-LinOSS: what its recordings and the contract do not see."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax.nn.block import whole_sequences
from pspike_jax.nn.mixers.oscillator import OscillatorSSM
from pspike_jax.nn.norm import Normalization


@pytest.mark.parametrize("scheme", ["damped_imex1", "damped_imex2", "damped_im", "damped_ex"])
def test_ring_starts_have_their_poles_on_the_ring(scheme):
    model = pspike_jax.create_model(
        "dlinoss", "tiny", scheme=scheme, d_state=64, r_min=0.95, r_max=0.97
    )
    x = jnp.zeros((1, 3, 2))
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), x))["params"]
    poles = np.asarray(pspike_jax.models.poles(model, {"params": params}))
    assert poles.shape == (2, 1, 64)
    # float32 rounding of a trace near 2 moves a modulus by about 1e-6.
    np.testing.assert_array_less(np.abs(poles), 0.97 + 1e-5)
    np.testing.assert_array_less(0.95 - 1e-5, np.abs(poles))
    assert (poles[0] != poles[1]).all()


def test_overdamped_imex2_is_refused_in_words():
    model = pspike_jax.create_model("dlinoss", "tiny", scheme="damped_imex2")
    x = jnp.zeros((1, 3, 2))
    variables = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), x))
    stored = variables["params"]["backbone"]["blocks"]["ssm"]["oscillators"]
    stored["G"] = stored["G"].at[1, 2].set(30.0)
    with pytest.raises(ValueError, match="no stable stiffness where step . G is above 1"):
        model.apply(variables, x)


@pytest.mark.parametrize("kind", ["batch", "running", "debiased"])
def test_batch_norms_follow_their_statistics_over_two_batches(rng, kind):
    norm = Normalization(kind, 0.9, affine=False, unbiased=False)
    batches = [np.float32(rng.normal(size=(3, 4, 2)) * 2 + 1) for _ in range(2)]
    variables = norm.init(jax.random.key(0), batches[0])
    mean, var = np.zeros(2), np.ones(2)
    for i, x in enumerate(batches):
        y, variables = norm.apply(variables, x, train=True, mutable=["batch_stats"])
        wide = x.astype(np.float64)
        found = wide.mean((0, 1)), wide.var((0, 1))
        old = 0 if kind == "running" and i == 0 else 0.9
        mean, var = old * mean + (1 - old) * found[0], old * var + (1 - old) * found[1]
        used = (mean, var) if kind == "running" else found
        # A few float32 operations.
        np.testing.assert_allclose(y, (wide - used[0]) / np.sqrt(used[1] + 1e-5), atol=2e-6)
    share = 1 - 0.9**2 if kind == "debiased" else 1
    expected = (batches[0] - mean / share) / np.sqrt(var / share + 1e-5)
    np.testing.assert_allclose(norm.apply(variables, batches[0]), expected, atol=5e-6)
    # A model that saw no batch yet computes, too.
    fresh = norm.apply(norm.init(jax.random.key(0), batches[0]), batches[0])
    np.testing.assert_allclose(fresh, batches[0] / np.sqrt(1 + 1e-5), atol=1e-6)


def test_unevenly_sampled_drives_give_the_solution_of_the_equation(rng):
    """Constant drives over steps of any length, against the matrix exponential in float64."""
    from scipy.linalg import expm

    length, layer = 20, OscillatorSSM(2, 3, "zoh", start="uniform", skip=False)
    u = np.float32(rng.normal(size=(1, length, 2)))
    dt = np.float32(rng.uniform(0.1, 4, (1, length)))
    params = nn.meta.unbox(layer.init(jax.random.key(1), u))["params"]
    ctx = whole_sequences(u, dt=jnp.asarray(dt))
    y, _ = layer.apply({"params": params}, u, None, ctx)
    A, G, step = (np.asarray(params["oscillators"][k], np.float64) for k in ("A", "G", "step"))
    step = 1 / (1 + np.exp(-step))
    B, C = (np.asarray(params[k], np.float64) @ [1, 1j] for k in ("B", "C"))
    expected = np.zeros((length, 2))
    for p in range(3):
        state = np.zeros(2, complex)
        for t in range(length):
            force = B[p] @ u[0, t]
            whole = np.array([[-G[p], -A[p], 1], [1, 0, 0], [0, 0, 0]])
            state = (expm(whole * step[p] * dt[0, t]) @ [*state, force])[:2]
            expected[t] += (C[0, :, p] * state[1]).real
    # 20 float32 steps of states near 1.
    np.testing.assert_allclose(y[0], expected, atol=2e-5)
