"""S5-RF classifiers, one sample at a time."""

import jax
import jax.numpy as jnp
import numpy as np
from recordings import meta_of, under

from pspike_jax.interop import export_s5rf, load_s5rf


def replay(arrays):
    meta = meta_of(arrays)
    module, variables = load_s5rf(
        under(arrays, "param/"),
        rule=meta["discretization"],
        activation=meta["activation"].removesuffix("_spike"),
        keep_imag=meta["keep_imag"],
        skip=meta["skip"],
    )

    def loss(params, x):
        y, aux = module.apply(variables | {"params": params}, x[None], capture=True)
        return jnp.sum(arrays["loss_weight"] * y[0]), (y[0], aux["sites"])

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (bar, x_bar), (y, sites) = gradient(variables["params"], jnp.asarray(arrays["input"]))
    results = {"output": y, "grad_input": x_bar}
    # Layers of one width are stacked, others have records of their own.
    layers = [np.asarray(s[0]) for record in sites.values() for s in record["spike_array"]]
    results |= {f"spikes/{i}": spikes for i, spikes in enumerate(layers)}
    return results | {f"grad/{name}": value for name, value in export_s5rf(module, bar).items()}


SYSTEMS = {"S5-RF": replay}
