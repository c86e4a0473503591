"""The dense twin's layer against arrays recorded from the published program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.models.s4d import S4DConfig, S4DLayer
from pspike_jax.nn import whole_sequences


@pytest.fixture
def recorded(golden):
    arrays = golden("s4d_layer.npz")
    _, _, features = arrays["input"].shape
    config = S4DConfig(
        d_model=features,
        d_state=2 * arrays["param/kernel.A_imag"].shape[1],
        n_layers=1,
        norm="layer",
        prenorm=True,
        causal=True,
        dropout=0.0,
        shared_dynamics=False,
        initializer="lin",
        dt_min=1e-3,
        dt_max=1e-1,
        engine="auto",
    )
    return arrays, S4DLayer(config)


def pass_of(arrays):
    return whole_sequences(jnp.asarray(arrays["input"]))


def to_tree(arrays, prefix):
    weight = arrays[f"{prefix}/output_linear.0.weight"][..., 0]
    return {
        "ssm": {
            "A_real": arrays[f"{prefix}/kernel.log_A_real"],
            "A_imag": arrays[f"{prefix}/kernel.A_imag"],
            "C": arrays[f"{prefix}/kernel.C"][None],
            "log_dt": arrays[f"{prefix}/kernel.log_dt"],
            "D": arrays[f"{prefix}/D"],
        },
        "output_linear": {"kernel": weight.T, "bias": arrays[f"{prefix}/output_linear.0.bias"]},
    }


def test_layer_reproduces_the_recorded_output(recorded):
    arrays, layer = recorded
    y, _ = layer.apply({"params": to_tree(arrays, "param")}, arrays["input"], None, pass_of(arrays))
    # The tolerance that comes with the recorded float32 values.
    np.testing.assert_allclose(y, arrays["output"], rtol=1e-4, atol=1e-5)


def test_layer_reproduces_the_recorded_gradients(recorded):
    arrays, layer = recorded

    def loss(params, u):
        y, _ = layer.apply({"params": params}, u, None, pass_of(arrays))
        return jnp.sum(arrays["loss_weight"] * y)

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(to_tree(arrays, "param"), arrays["input"])
    expected = (to_tree(arrays, "grad"), arrays["grad_input"])
    for (path, value), wanted in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(expected)
    ):
        # The tolerance that comes with the recorded float32 gradients.
        np.testing.assert_allclose(value, wanted, rtol=1e-3, atol=1e-5, err_msg=str(path))
