"""Binary S4D, and S4D with a gated spiking unit."""

import jax
import jax.numpy as jnp
import numpy as np
from recordings import meta_of, under

from pspike_jax.interop import export_binary_s4d, load_binary_s4d


def replay(arrays):
    meta = meta_of(arrays)
    surrogate = meta["surrogate"]
    module, variables = load_binary_s4d(
        under(arrays, "param/"), threshold=meta["threshold"], surrogate=surrogate["name"],
        surrogate_width=surrogate["a"],
    )
    time_first = lambda a: jnp.asarray(a).swapaxes(0, 1)
    x, weight = time_first(arrays["input"]), time_first(arrays["loss_weight"])

    def loss(params, x):
        y, aux = module.apply({"params": params}, x, capture=True)
        return jnp.sum(weight * y), (y, aux["sites"]["output"])

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (bar, x_bar), (y, record) = gradient(variables["params"], x)
    results = {"output": time_first(y), "grad_input": time_first(x_bar)}
    gated = module.config.gate == "gsu"
    for i, spikes in enumerate(record["sign_array" if gated else "spike_array"]):
        results[f"spikes/{i}"] = np.asarray(spikes).transpose((1, 0, 2) if gated else (0, 2, 1))
    return results | {f"grad/{k}": v for k, v in export_binary_s4d(module, bar).items()}


SYSTEMS = {"Binary S4D": replay, "S4D + GSU": replay}
