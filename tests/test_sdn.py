"""The surrogate dynamic network: recordings of the authors' programs, and float64 loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.functional import neurons
from pspike_jax.interop.sdn import export_sdn, load_sdn
from pspike_jax.recipes.sdn import SDNState, sdn_optimizer, sdn_step


def under(arrays, prefix):
    """Return the arrays below a prefix, without it."""
    return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}


def batch_last(array):
    """Put (rows, L) where (B, L, H) is expected: rows are examples of one feature."""
    return jnp.asarray(array).reshape(-1, array.shape[-1], 1)


def test_network_equals_the_recorded_one(golden):
    arrays = golden("spiking/sdn_network.npz")
    params = load_sdn(under(arrays, "param/"))
    assert sum(p.size for p in params.values()) == 153
    got = jax.jit(neurons.sdn_membrane)(params, batch_last(arrays["input"]))
    np.testing.assert_allclose(got[..., 0], arrays["output"], rtol=1e-4, atol=1e-5)
    again = export_sdn(params)
    assert all(np.array_equal(again[k], a) for k, a in under(arrays, "param/").items())
    with pytest.raises(ValueError, match="conv2.weight is missing; conv3.bias is float32"):
        del again["conv2.weight"]
        load_sdn(again | {"conv3.bias": np.float32([1, 2])})


def test_published_network_fires_as_recorded_and_streams(golden):
    arrays = golden("spiking/sdn_checkpoint_dev.npz")
    params, currents = load_sdn(under(arrays, "param/")), batch_last(arrays["input"])
    weight = batch_last(arrays["loss_weight"])

    def loss(params, currents):
        spikes, drive = neurons.sdn_spikes(params, currents)
        return jnp.sum(weight * spikes), (spikes, drive)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (params_bar, bar), (spikes, drive) = gradient(params, currents)
    np.testing.assert_array_equal(spikes[..., 0], arrays["spikes/0"])
    membrane = drive + 1 - currents
    # Up to 30, less currents of that size: float32 of both.
    np.testing.assert_allclose(membrane[..., 0], arrays["output"], rtol=1e-4, atol=1e-5)
    limit = 1e-3 * np.abs(arrays["grad_input"]).max() + 1e-6
    np.testing.assert_allclose(bar[..., 0], arrays["grad_input"], rtol=0, atol=limit)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(params_bar))

    found = neurons.agreement(spikes, batch_last(arrays["true_spikes"]).astype(jnp.float32))
    wrong = arrays["spikes/0"] != arrays["true_spikes"]
    np.testing.assert_allclose(found["wrong"], wrong.mean(), rtol=1e-6)
    np.testing.assert_allclose(found["whole"], np.mean(~wrong.any(-1)), rtol=1e-6)

    history, pieces = None, []
    for first, last in ((0, 1), (1, 4), (4, 40)):
        piece = currents[:, first:last]
        pieces.append(neurons.sdn_membrane(params, piece, history))
        history = neurons.sdn_history(piece, history)
        if f"output_first/{last}" in arrays:
            want = arrays[f"output_first/{last}"].reshape(len(piece), -1)
            got = neurons.sdn_membrane(params, currents[:, :last])[..., 0]
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    # Products of other shapes sum in another order.
    np.testing.assert_allclose(
        jnp.concatenate(pieces, 1), membrane[:, :40], rtol=1e-4, atol=1e-5
    )


# {name here: name there} of the network in training; of norms, scale and shift.
NAMES = {
    "encoder": "encoder.weight",
    "taps": "spatial_layers.0.0.weight", "taps_bias": "spatial_layers.0.0.bias",
    "taps_scale": "spatial_layers.0.1.weight", "taps_shift": "spatial_layers.0.1.bias",
    "channels": "feature_layers.0.0.weight", "channels_bias": "feature_layers.0.0.bias",
    "channels_scale": "feature_layers.0.1.weight", "channels_shift": "feature_layers.0.1.bias",
    "decoder": "decoder.weight", "decoder_bias": "decoder.bias",
}
RUNNING = {
    "taps_mean": "spatial_layers.0.1.running_mean", "taps_var": "spatial_layers.0.1.running_var",
    "channels_mean": "feature_layers.0.1.running_mean",
    "channels_var": "feature_layers.0.1.running_var",
}
IN_FRONT_OF_A_NORM = {"taps_bias", "channels_bias"}  # their true gradient is zero


def read(arrays, prefix, names, like):
    """Read arrays into the shapes that they have here."""
    return {k: jnp.asarray(arrays[prefix + n]).reshape(like[k].shape) for k, n in names.items()}


def test_training_follows_the_recorded_program(golden):
    arrays = golden("spiking/sdn_training_dev.npz")
    like, stats_like = neurons.init_sdn(jax.random.key(0))
    params = read(arrays, "param/", NAMES, like)
    stats = read(arrays, "param/", RUNNING, stats_like)
    currents = jnp.asarray(arrays["input"])
    targets, spikes = jax.jit(neurons.lif_targets)(currents, 0.2)
    np.testing.assert_allclose(targets, arrays["mem"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(spikes, arrays["spike"])

    gradient = jax.jit(jax.grad(neurons.sdn_loss, has_aux=True))
    bar, (_, first) = gradient(params, stats, currents[:6], targets[:6])
    np.testing.assert_allclose(first, arrays["train_output/0"], rtol=1e-4, atol=1e-5)
    for name in set(NAMES) - IN_FRONT_OF_A_NORM:
        want = arrays[f"grad/{NAMES[name]}"].reshape(bar[name].shape)
        limit = 1e-3 * np.abs(want).max() + 1e-6
        np.testing.assert_allclose(bar[name], want, rtol=0, atol=limit, err_msg=name)

    optimizer = sdn_optimizer(1000, steps_per_epoch=1000)  # the rate falls once an epoch
    state = SDNState(params, stats, optimizer.init(params))
    step = jax.jit(lambda s, c, t: sdn_step(optimizer, s, c, t))
    losses = []
    for start in range(0, 30, 6):
        rows = slice(start, start + 6)
        state, loss = step(state, currents[rows], targets[rows])
        losses.append(loss)
    np.testing.assert_allclose(losses, arrays["losses"], rtol=1e-4, atol=1e-6)

    after = read(arrays, "param_after/", NAMES, like)
    for name in set(NAMES) - IN_FRONT_OF_A_NORM:
        np.testing.assert_allclose(state.params[name], after[name], rtol=1e-3, atol=2e-4)
    fused = neurons.fuse(after, read(arrays, "param_after/", RUNNING, stats_like))
    for name, want in load_sdn(under(arrays, "fused/")).items():
        np.testing.assert_allclose(fused[name], want, rtol=1e-4, atol=1e-5)
    got = neurons.sdn_membrane(fused, batch_last(arrays["eval_input"]))
    np.testing.assert_allclose(got[..., 0], arrays["eval_output"], rtol=1e-4, atol=1e-5)


def test_running_statistics_follow_the_batch(rng):
    """The first norm sees nine steps beyond the sequence; variances are unbiased."""
    params, stats = neurons.init_sdn(jax.random.key(3))
    currents = jnp.asarray(rng.normal(size=(3, 12)), jnp.float32)
    _, after = neurons.training_membrane(params, stats, currents)
    kernel = np.float64(params["encoder"])[:, None] * np.float64(params["taps"])
    seen = np.pad(np.float64(currents), [(0, 0), (8, 8)])
    steps = np.stack([seen[:, t : t + 8] for t in range(21)], 1)
    hidden = steps @ kernel.T + np.float64(params["taps_bias"])
    mean, var = hidden.mean((0, 1)), hidden.var((0, 1), ddof=1)
    np.testing.assert_allclose(after["taps_mean"], 0.1 * mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(after["taps_var"], 0.9 + 0.1 * var, rtol=1e-5)
