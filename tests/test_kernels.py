"""Kernels of layers against closed forms: what an impulse leaves, in mixers and in membranes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax.analysis import plots
from pspike_jax.analysis.kernels import listen

LENGTH = 20
WITHOUT = {"s5rf"}  # whose blocks are their own state spaces


def kernels_of(name, run=jax.jit, **fields):
    """Return a tiny model's parameters, unboxed, and the kernels that its layers tell."""
    model = pspike_jax.create_model(name, "tiny", **fields)
    tokens = model.config.vocab_size is not None
    x = jnp.zeros((1, LENGTH), jnp.int32) if tokens else jnp.ones((1, LENGTH, 2))
    keys = {"params": jax.random.key(0), "spikes": jax.random.key(1)}

    def tell(keys):
        variables = nn.meta.unbox(model.init(keys, x))
        with listen(LENGTH, has_poles(model, variables["params"])):
            aux = model.apply(variables, x, rngs=keys)[1]
        return variables["params"], aux.get("kernels", {})

    return run(tell)(keys)


def has_poles(model, params):
    try:
        return jax.eval_shape(model.poles, params) is not None
    except jax.errors.TracerArrayConversionError:  # those of neurons are computed by NumPy
        return True


def test_kernel_of_a_state_space_is_its_sum_of_exponentials():
    params, found = kernels_of("s4d")
    own = params["backbone"]["blocks"]["layer"]["ssm"]
    stored = {name: np.asarray(value, np.float64) for name, value in own.items()}
    rates = -np.exp(stored["A_real"]) + 1j * stored["A_imag"]
    poles = np.exp(rates * np.exp(stored["log_dt"])[..., None])
    C = stored["C"][:, 0, ..., 0] + 1j * stored["C"][:, 0, ..., 1]
    gain = 2 * C * (poles - 1) / rates
    steps = np.arange(LENGTH)
    expected = np.einsum("lhn,lhnk->lhk", gain, poles[..., None] ** steps).real
    expected[..., 0] += stored.get("D", 0)
    (one,) = found.values()
    response = np.array(one["response"])
    features = np.arange(response.shape[1])  # all of four: each hears its own impulse alone
    # Sums of four modes in float32, of numbers about 1.
    np.testing.assert_allclose(response[:, features, :, features].swapaxes(0, 1), expected,
                               rtol=1e-4, atol=1e-5)
    response[:, features, :, features] = 0
    assert not response.any() and not np.asarray(one["start"]).any()


def test_kernel_of_a_neuron_is_what_a_current_leaves_in_its_membrane():
    params, found = kernels_of("lif", norm="none")
    alpha = np.asarray(params["backbone"]["layers_0"]["neurons"]["neuron"]["alpha"], np.float64)
    response = np.asarray(found["neurons"]["response"])[0]
    chosen = np.abs(response).sum(axis=1).argmax(axis=-1)
    expected = (1 - alpha[chosen, None]) * alpha[chosen, None] ** np.arange(LENGTH)
    # Differences of float32 drives of about 1, over a current of 0.01.
    np.testing.assert_allclose(response[np.arange(len(chosen)), :, chosen], expected, atol=5e-5)


@pytest.mark.parametrize("name", pspike_jax.list_models(kind="classifier"))
def test_every_model_with_poles_tells_its_kernels(name):
    params, found = kernels_of(name, run=lambda tell: lambda keys: jax.eval_shape(tell, keys))
    model = pspike_jax.create_model(name, "tiny")
    assert found or not has_poles(model, params) or name in WITHOUT
    for one in found.values():
        layers, features, window, _ = one["response"].shape
        assert window == LENGTH and 1 <= features <= 8 and one["start"].shape == (layers,)


def test_picture_of_kernels_shows_time_and_frequency():
    k = np.arange(64)
    response = np.zeros((2, 2, 64, 2))
    response[:, 0, :, 1] = 0.5**k  # of an impulse at feature 0 output 1 hears all
    response[:, 1, :, 1] = 0.9**k * np.cos(np.pi / 2 * k)
    axes = plots.kernels({"ssm": {"response": response, "start": np.zeros(2, int)}}).axes
    assert len(axes) == 4
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), 0.5**k)
    strength = axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(strength[[0, -1]], [2, 1 / 1.5], rtol=1e-9)  # 1 / (1 -+ 1/2)
    assert len(strength) == 257
    turning = axes[1].lines[1]
    assert turning.get_xdata()[np.argmax(turning.get_ydata())] == 0.25
