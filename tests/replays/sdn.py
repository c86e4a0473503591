"""Surrogate dynamic networks: fused, the published one, and in training."""

import jax
import jax.numpy as jnp
import numpy as np
from recordings import meta_of, under

from pspike_jax.functional import neurons
from pspike_jax.interop import load_sdn
from pspike_jax.recipes.sdn import SDNState, sdn_optimizer, sdn_step

# {name here: name there} of the network in training; of norms, scale and shift.
NAMES = {
    "encoder": "encoder.weight",
    "taps": "spatial_layers.0.0.weight",
    "taps_bias": "spatial_layers.0.0.bias",
    "taps_scale": "spatial_layers.0.1.weight",
    "taps_shift": "spatial_layers.0.1.bias",
    "channels": "feature_layers.0.0.weight",
    "channels_bias": "feature_layers.0.0.bias",
    "channels_scale": "feature_layers.0.1.weight",
    "channels_shift": "feature_layers.0.1.bias",
    "decoder": "decoder.weight",
    "decoder_bias": "decoder.bias",
}
RUNNING = {
    "taps_mean": "spatial_layers.0.1.running_mean",
    "taps_var": "spatial_layers.0.1.running_var",
    "channels_mean": "feature_layers.0.1.running_mean",
    "channels_var": "feature_layers.0.1.running_var",
}


def one_feature(array):
    """Return rows (..., L) as examples of one feature, (rows, L, 1)."""
    return jnp.asarray(array).reshape(-1, array.shape[-1], 1)


def replay_fused(arrays):
    membrane = neurons.sdn_membrane(load_sdn(under(arrays, "param/")), one_feature(arrays["input"]))
    return {"output": membrane[..., 0]}


def replay_published(arrays):
    params, currents = load_sdn(under(arrays, "param/")), one_feature(arrays["input"])
    weight = one_feature(arrays["loss_weight"])

    def loss(currents):
        spikes, _ = neurons.sdn_spikes(params, currents)
        return jnp.sum(weight * spikes), (spikes, neurons.sdn_membrane(params, currents))

    bar, (spikes, membrane) = jax.jit(jax.grad(loss, has_aux=True))(currents)
    results = {"output": membrane[..., 0], "spikes/0": spikes[..., 0], "grad_input": bar[..., 0]}
    for key in under(arrays, "output_first/"):
        first = neurons.sdn_membrane(params, currents[:, : int(key)])[..., 0]
        results[f"output_first/{key}"] = first.reshape(arrays[f"output_first/{key}"].shape)
    return results


def replay_training(arrays):
    meta = meta_of(arrays)
    params, stats = read(arrays, "param/")
    currents = jnp.asarray(arrays["input"])
    targets, spikes = jax.jit(neurons.lif_targets)(currents, meta["tau"])
    rows, steps = meta["batch"], meta["steps"]
    gradient = jax.jit(jax.grad(neurons.sdn_loss, has_aux=True))
    bar, (_, first) = gradient(params, stats, currents[:rows], targets[:rows])
    results = {"mem": targets, "spike": spikes.astype(jnp.int8), "train_output/0": first}
    for name, there in NAMES.items():
        results[f"grad/{there}"] = bar[name].reshape(arrays[f"param/{there}"].shape)
    optimizer = sdn_optimizer(steps, steps_per_epoch=steps + 1)
    state, losses = SDNState(params, stats, optimizer.init(params)), []
    step = jax.jit(lambda s, c, t: sdn_step(optimizer, s, c, t))
    for start in range(0, rows * steps, rows):
        few = slice(start, start + rows)
        state, loss = step(state, currents[few], targets[few])
        losses.append(loss)
    fused = neurons.fuse(*read(arrays, "param_after/"))
    found = neurons.sdn_membrane(fused, one_feature(arrays["eval_input"]))
    return results | {"losses": np.asarray(losses), "eval_output": found[..., 0]}


def read(arrays, prefix):
    """Return parameters and running statistics in the shapes that they have here."""
    like = neurons.init_sdn(jax.random.key(0))
    return tuple(
        {k: jnp.asarray(arrays[prefix + n]).reshape(one[k].shape) for k, n in names.items()}
        for one, names in zip(like, (NAMES, RUNNING), strict=True)
    )


SYSTEMS = {
    "sdn": replay_fused,
    "shipped fused SDN": replay_published,
    "SDN training": replay_training,
}
