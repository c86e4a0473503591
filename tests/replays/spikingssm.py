"""SpikingSSM and LongSpike: networks, backbones and kernels, as their authors compute them."""

import jax
import jax.numpy as jnp
import numpy as np
from recordings import meta_of, under

from pspike_jax.interop import export_spikingssm, load_spikingssm
from pspike_jax.nn.mixers import DiagonalSSM, ExponentialSumSSM


def replay(arrays):
    given = under(arrays, "param/")
    return replay_kernel(arrays) if "C" in given else replay_network(arrays)


def replay_network(arrays):
    meta = meta_of(arrays)
    meta = meta | meta.get("layer", {})
    given = under(arrays, "param/")
    module, variables = load_spikingssm(
        given, neuron=meta.get("neuron"), prenorm=meta.get("prenorm", True)
    )
    if meta.get("encoder") == "embedding":
        assert module.config.vocab_size == meta["vocab"]
    x = jnp.asarray(arrays["input"])
    tokens = jnp.issubdtype(x.dtype, jnp.integer)
    x = x.astype(jnp.int32 if tokens else jnp.float32)
    lengths = arrays["lengths"] if "lengths" in arrays else meta.get("lengths")
    lengths = None if lengths is None else jnp.asarray(lengths, jnp.int32)

    def loss(params, x):
        (y, aux), after = module.apply(
            variables | {"params": params},
            x,
            lengths,
            train=meta.get("train", False),
            capture=True,
            mutable=["batch_stats"],
        )
        spikes = aux["sites"]["neurons"]["spike_array"]
        return jnp.sum(arrays["loss_weight"] * y), (y, spikes, after)

    argnums = 0 if tokens else (0, 1)
    bars, (y, spikes, after) = jax.jit(jax.grad(loss, argnums, has_aux=True))(
        variables["params"], x
    )
    params_bar = bars if tokens else bars[0]
    results = {"output": y} | ({} if tokens else {"grad_input": bars[1]})
    results |= {f"spikes/{i}": s.swapaxes(1, 2) for i, s in enumerate(spikes)}
    outer = "backbone." if "encoder.weight" in given else ""
    named = export_spikingssm(module, params_bar, backbone=outer)
    results |= {f"grad/{name}": value for name, value in named.items()}
    if meta.get("train"):
        stats = after["batch_stats"]
        moved = export_spikingssm(module, params_bar, stats, backbone=outer)
        results |= {f"param_after/{n}": v for n, v in moved.items() if "running_" in n}
    return results


def replay_kernel(arrays):
    given = under(arrays, "param/")
    train_B, sums = "B" in given, "omega_logit" in given
    channels, features, pairs, _ = given["C"].shape
    how = {
        "features": features, "d_state": 2 * pairs, "initializer": "lin", "shared": False,
        "skip": False, "train_B": train_B, "dt_min": 1e-3, "dt_max": 0.1,
    }
    kind = ExponentialSumSSM if sums else DiagonalSSM
    if sums:
        how["terms"] = given["omega_logit"].size
    mixer = kind(two_sided=False, engine="sequential", **how)
    length = arrays["loss_weight"].shape[-1]
    impulse = jnp.zeros((1, length, features), jnp.float32).at[:, 0].set(1)

    def kernels(given):
        sign = -1 if train_B else 1
        params = {
            "A_real": given["A_real" if train_B else "log_A_real"],
            "A_imag": sign * given["A_imag"],
            "log_dt": given["inv_dt"][:, 0] if train_B else given["log_dt"],
        }
        if train_B:
            params["B"] = given["B"][0]
        params |= {n: given[n] for n in ("omega_logit", "eta_logit") if n in given}
        found = []
        for channel in range(channels):
            one = params | {"C": given["C"][channel : channel + 1]}
            y, _ = mixer.apply({"params": one}, impulse)
            found.append(y[0].T)
        k = jnp.stack(found)
        return jnp.sum(arrays["loss_weight"] * k), k

    given = {name: jnp.asarray(value) for name, value in given.items()}
    bar, k = jax.jit(jax.grad(kernels, has_aux=True))(given)
    results = {"output": np.asarray(k), "kernel": np.asarray(k)}
    return results | {f"grad/{name}": value for name, value in bar.items()}


SYSTEMS = {
    "SpikingSSM": replay,
    "spikingssm": replay_network,
    "LongSpike": replay,
    "LoongSpike": replay,
    "SSMKernelFrac": replay,
}
