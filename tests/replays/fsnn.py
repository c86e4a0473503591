"""Networks and neurons of fractional order, as spikeDE computes them."""

import jax
import jax.numpy as jnp
import numpy as np
from recordings import meta_of, under

from pspike_jax.functional.fractional import fractional_memory
from pspike_jax.functional.fractional_solve import solve
from pspike_jax.functional.fractional_neurons import FractionalNeuron
from pspike_jax.functional.scaled_surrogates import scaled_surrogate
from pspike_jax.interop import export_fsnn, load_fsnn


def surrogate_of(meta):
    name = meta.get("surrogate", "arctan_surrogate").removesuffix("_surrogate")
    name = {"piecewise_linear": "piecewise"}.get(name, name)
    return name, float(meta.get("surrogate_scale", 5.0))


def network(arrays):
    meta = meta_of(arrays)
    surrogate, scale = surrogate_of(meta)
    params = under(arrays, "param/")
    module, variables = load_fsnn(
        params,
        method=meta["method"],
        memory=meta["memory"],
        neurons=tuple(meta["neurons"]),
        train_order=meta["learn_alpha"],
        tau=meta["tau"],
        threshold=meta["threshold"],
        step=meta["step"],
        surrogate=surrogate,
        surrogate_scale=scale,
    )

    def loss(params, inputs):
        outputs, aux = module.apply({"params": params}, inputs.swapaxes(0, 1), capture=True)
        outputs = outputs.swapaxes(0, 1)
        return jnp.sum(arrays["loss_weight"] * outputs), (outputs, aux)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (bar, inputs_bar), (outputs, aux) = gradient(variables["params"], jnp.asarray(arrays["input"]))
    taus = tuple(sorted(name for name in params if name.endswith("tau_param")))
    found = {"output": outputs, "grad_input": inputs_bar}
    # Layers of one width are stacked in one record, others are records of their own.
    records = aux["sites"].values()
    for name, key in (("spike_array", "spikes"), ("membrane_array", "membrane")):
        layers = [layer for record in records for layer in record[name]]
        found |= {f"{key}/{i}": layer.swapaxes(0, 1) for i, layer in enumerate(layers)}
    gradients = export_fsnn(module, bar, taus)
    shaped = {k: v.reshape(params[k].shape) for k, v in gradients.items() if k in params}
    return found | {f"grad/{name}": value for name, value in shaped.items()}


def neuron(arrays):
    """The neuron that resets behind its step."""
    meta = meta_of(arrays)
    length = len(arrays["input"])
    count = length - 1 if meta["memory"] < 0 else min(meta["memory"], length - 1)
    memory = fractional_memory("gl", meta["beta"], count, meta["step"])
    surrogate = scaled_surrogate(*surrogate_of(meta))
    kind = FractionalNeuron("behind", float(meta.get("threshold", 1.0)), surrogate)
    params = under(arrays, "param/")

    def loss(params, inputs):
        tau = jnp.float32(meta["tau"])
        if params:
            tau = tau * (1 + jnp.exp(next(iter(params.values()))))
        rate, settle = kind.steps(tau)
        start = jnp.zeros(inputs.shape[1:], jnp.float32)
        outputs, _ = solve(memory, rate, inputs, start, settle=settle, forget_start=True)
        spikes, membrane, _ = kind.seen(outputs, inputs, tau)
        return jnp.sum(arrays["loss_weight"] * spikes), (spikes, membrane)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    params = {name: jnp.asarray(value) for name, value in params.items()}
    (bar, inputs_bar), (spikes, membrane) = gradient(params, jnp.asarray(arrays["input"]))
    found = {"output": spikes, "spikes/0": spikes, "membrane": membrane, "grad_input": inputs_bar}
    return found | {f"grad/{name}": value for name, value in bar.items()}


def step_responses(arrays):
    """A leaky integrator without spikes, under each rule and order."""
    found, x = {}, jnp.ones((12, 1, 1), jnp.float32)
    relaxation = lambda v, x: ((x - v) / 2, v)
    for key in arrays:
        name, _, order = key.removeprefix("f64/").partition(",")
        if not key.startswith("f64/"):
            continue
        rule = {"trap": "l1", "euler": "gl"}.get(name, name)
        alpha, length = float(order or 1.0), len(arrays[key])
        memory = fractional_memory(rule, alpha, length - 1, zero_power=True)
        values, last = solve(memory, relaxation, jnp.tile(x[:1], (length, 1, 1)), x[0] * 0)
        found[key] = np.append(values[1:, 0, 0], last[0, 0])
    return found


SYSTEMS = {
    "spikeDE f-SNN": network,
    "LIFNeuronFDE": neuron,
    "response of v'=": step_responses,
}
