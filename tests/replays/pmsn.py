"""PMSN: neurons alone, and networks."""

import re

import jax
import jax.numpy as jnp
from recordings import meta_of, under

from pspike_jax.functional import ssm_kernel
from pspike_jax.interop import export_pmsn, load_pmsn
from pspike_jax.models.pmsn import make_mixer


def replay(arrays):
    meta, params = meta_of(arrays), under(arrays, "param/")
    alone = "D" in params
    if alone:  # a neuron's names are those of a network's first layer
        params = {f"spk.0.{name}": value for name, value in params.items()}
    module, variables = load_pmsn(params, threshold=meta["threshold"], pool="none")
    time_first = lambda a: jnp.asarray(a).swapaxes(0, 1)
    x, weight = time_first(arrays["input"]), time_first(arrays["loss_weight"])

    def loss(params, x):
        (y, aux), updated = module.apply(
            variables | {"params": params}, x, train=meta["train"], capture=True,
            mutable=["batch_stats"],
        )
        return jnp.sum(weight * y), (y, aux["sites"]["hidden"], updated)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (bar, x_bar), (y, record, updated) = gradient(variables["params"], x)
    results = {"output": time_first(y), "grad_input": time_first(x_bar)}
    results |= {f"spikes/{i}": time_first(s) for i, s in enumerate(record["spike_array"])}
    exported = {f"grad/{name}": value for name, value in export_pmsn(module, bar).items()}
    if meta["train"]:
        # A batch norm takes off what a bias in front of it adds: its gradient is rounding noise.
        exported = {k: v for k, v in exported.items() if not re.fullmatch(r"grad/fc.*bias", k)}
        after = export_pmsn(module, {}, updated["batch_stats"])
        exported |= {f"param_after/{name}": value for name, value in after.items()}
    if alone:
        exported = {name.replace("spk.0.", ""): value for name, value in exported.items()}
        results["kernel"] = kernel(module, variables["params"]["backbone"]["layers_0"], x.shape[1])
    return results | exported


def kernel(module, layer, length):
    system = make_mixer(module.config).apply({"params": layer["compartments"]}, method="system")
    return ssm_kernel(system.Lambda_bar, system.C * system.B_bar, length)


SYSTEMS = {"PMSN": replay}
