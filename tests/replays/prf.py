"""PRF: neurons, SD-TCM blocks and networks."""

import jax
import jax.numpy as jnp
import numpy as np
from recordings import meta_of, under

from pspike_jax.functional.neurons import SoftResetLIF
from pspike_jax.functional.resonators import ResettingResonator
from pspike_jax.interop import export_prf, load_prf
from pspike_jax.models.prf import SpatialMixer, TemporalMixer
from pspike_jax.nn import NeuronSite, whole_sequences
from pspike_jax.nn.resonators import ResonatorSite

SPATIAL = {"Binary": "binary", "Binary_vec": "binary_vec", "GSU": "gsu", "identity": "identity"}


def batch_first(array):
    return jnp.asarray(array).swapaxes(0, 1)


def neuron_site(system, settings, features):
    """Return the site of a recorded neuron."""
    tau, threshold = settings["tau"], settings.get("v_th", 1.0)
    if system in ("PRFNeuron", "PRFNeuronTrain"):
        trained = system == "PRFNeuronTrain"
        return ResonatorSite(features, 1, tau=tau, threshold=threshold, trained_rate=trained)
    if system == "PRFNeuronReset":
        neuron = ResettingResonator(tau=tau, threshold=threshold)
    else:
        neuron = SoftResetLIF(1 - 1 / tau, threshold=threshold)
    return NeuronSite(neuron, features, "arctan", 1, affine=False, detach_reset=True)


def replay_neuron(arrays):
    meta, x = meta_of(arrays), batch_first(arrays["input"])
    site = neuron_site(meta["system"], meta["settings"], x.shape[-1])
    params = {"neuron": {k: jnp.asarray(v) for k, v in under(arrays, "param/").items()}}

    def loss(params, x):
        ctx = whole_sequences(x, capture=True)
        spikes, _, record = site.apply({"params": params}, x, None, ctx)
        return jnp.sum(batch_first(arrays["loss_weight"]) * spikes), (spikes, record)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (bar, x_bar), (spikes, record) = gradient(params, x)
    results = {"output": spikes, "spikes/0": spikes, "grad_input": x_bar}
    if "membrane_array" in record:
        results["membrane"] = record["membrane_array"]
    results = {name: value.swapaxes(0, 1) for name, value in results.items()}
    return results | {f"grad/{name}": value for name, value in bar["neuron"].items()}


def model_fields(meta):
    """Return the fields that weights do not tell."""
    settings = meta["settings"]
    fields = {"tau": settings["tau"], "threshold": settings.get("v_th", 1.0)}
    neuron = str(settings.get("neuron", "")).lower()
    if "reset" in neuron:
        fields["neuron"] = "decoupled_reset" if "lif" in neuron or "dec" in neuron else "prf_reset"
    return fields


def recorded_spikes(sites, layer):
    """Return the spikes of a layer in the order of the recordings, time first."""
    arrays = {name: np.asarray(record["spike_array"]) for name, record in sites.items()}
    arrays = {name: array if layer is None else array[layer] for name, array in arrays.items()}
    directions = [arrays[n] for n in ("temporal", "temporal_reverse") if n in arrays]
    found = [np.concatenate(directions, axis=-1)]
    # Ternary spikes are not among the recorded ones.
    if "spatial" in arrays and "sign_array" not in sites["spatial"]:
        found.append(arrays["spatial"])
    return [array.swapaxes(0, 1) for array in found]


def replay_block(arrays):
    meta, x = meta_of(arrays), jnp.asarray(arrays["input"])
    # The loader reads networks: a block is the one layer of a network with norms of its own.
    names = {f"layers.0.layer.{k}": v for k, v in under(arrays, "param/").items()}
    names |= {f"layers.0.norm.{k}": np.ones(x.shape[-1]) for k in ("weight", "bias")}
    module, variables = load_prf(names, **model_fields(meta))
    parts = ("time", "space")
    params = {name: variables["params"]["backbone"]["blocks"].get(name, {}) for name in parts}
    params = jax.tree.map(lambda a: a[0], params)

    def loss(params, x):
        ctx = whole_sequences(x, capture=True)
        v, _, sites = TemporalMixer(module.config).apply({"params": params["time"]}, x, None, ctx)
        y, spatial, _ = SpatialMixer(module.config).apply({"params": params["space"]}, v, ctx)
        return jnp.sum(arrays["loss_weight"] * y), (y, sites | spatial)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (bar, x_bar), (y, sites) = gradient(params, x)
    whole = {**variables["params"]}
    stacked = jax.tree.map(lambda a: a[None], bar)
    whole["backbone"] = {"blocks": variables["params"]["backbone"]["blocks"] | stacked}
    exported = under(export_prf(module, whole), "layers.0.layer.")
    results = {"output": y, "grad_input": x_bar}
    results |= {f"spikes/{i}": s for i, s in enumerate(recorded_spikes(sites, None))}
    return results | {f"grad/{name}": value for name, value in exported.items()}


def replay_network(arrays):
    meta, x = meta_of(arrays), jnp.asarray(arrays["input"])
    given = under(arrays, "param/")
    module, variables = load_prf(given, prenorm=meta["prenorm"], **model_fields(meta))
    real = jnp.issubdtype(x.dtype, jnp.floating)

    def loss(params, x):
        (y, aux), updated = module.apply(
            variables | {"params": params}, x, train=meta["train"], capture=True,
            mutable=["batch_stats"],
        )
        return jnp.sum(arrays["loss_weight"] * y), (y, aux["sites"], updated)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1) if real else (0,), has_aux=True))
    bars, (y, sites, updated) = gradient(variables["params"], x)
    results = {"output": y} | ({"grad_input": bars[1]} if real else {})
    layers = [recorded_spikes(sites, i) for i in range(module.config.n_layers)]
    results |= {f"spikes/{i}": s for i, s in enumerate(s for layer in layers for s in layer)}
    exported = export_prf(module, bars[0], like=given)
    results |= {f"grad/{name}": value for name, value in exported.items()}
    if meta["train"]:
        stats = export_prf(module, {}, updated["batch_stats"], like=given) if updated else {}
        results |= {f"param_after/{name}": value for name, value in stats.items()}
    return results


SYSTEMS = {
    "PRFNeuron": replay_neuron,
    "DecoupledResetLIF": replay_neuron,
    "SD-TCM block": replay_block,
    "PRF classification network": replay_network,
}
