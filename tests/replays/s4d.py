"""The minimal S4D layer."""

import dataclasses

import jax
import jax.numpy as jnp
from recordings import under

from pspike_jax.models.s4d import PRESETS, S4DLayer
from pspike_jax.nn import whole_sequences

# {name there: path here}; products are transposed between them.
PATHS = {
    "kernel.log_A_real": ("ssm", "A_real"),
    "kernel.A_imag": ("ssm", "A_imag"),
    "kernel.C": ("ssm", "C"),
    "kernel.log_dt": ("ssm", "log_dt"),
    "D": ("ssm", "D"),
    "output_linear.0.weight": ("output_linear", "kernel"),
    "output_linear.0.bias": ("output_linear", "bias"),
}


def replay(arrays):
    params = under(arrays, "param/")
    tree = {"ssm": {}, "output_linear": {}}
    for name, (module, field) in PATHS.items():
        value = params[name]
        value = value[None] if field == "C" else value[..., 0].T if field == "kernel" else value
        tree[module][field] = jnp.asarray(value)
    config = dataclasses.replace(
        PRESETS["s4d"],
        d_model=arrays["input"].shape[-1],
        d_state=2 * params["kernel.A_imag"].shape[1],
        initializer="lin",
    )
    u = jnp.asarray(arrays["input"])

    def loss(tree, u):
        y, _ = S4DLayer(config).apply({"params": tree}, u, None, whole_sequences(u))
        return jnp.sum(arrays["loss_weight"] * y), y

    (bar, u_bar), y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(tree, u)
    results = {"output": y, "grad_input": u_bar}
    for name, (module, field) in PATHS.items():
        value = bar[module][field]
        results[f"grad/{name}"] = (
            value[0] if field == "C" else value.T[..., None] if field == "kernel" else value
        )
    return results


SYSTEMS = {"s4d": replay}
