"""LangevinFlow: one pass with given noise, its potential, and steps of the program's training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from recordings import meta_of, under

from pspike_jax.functional import langevin
from pspike_jax.interop import export_langevinflow, load_langevinflow
from pspike_jax.nn.latent_path import Draws
from pspike_jax.objectives import SpikeRates

CORNER = 12  # rows and columns that the file keeps of the decoder's large weights


def replay(arrays):
    meta = meta_of(arrays)
    fields = {
        "friction": meta["gamma"], "step": meta["step"], "keep_rate": meta["keep_rate"],
        "heads": meta["heads"], "dropout": meta["dropout"],
        "forward_steps": meta["forward_steps"] or None,
        "kl_weight": meta["kl_weight"], "kl_ramp": meta["kl_ramp_epochs"],
    }
    model, variables = load_langevinflow(under(arrays, "param/"), **fields)
    variables = variables | {"batch_stats": {"passes": jnp.float32(meta["epoch"])}}
    noise = Draws(*(jnp.asarray(arrays[f"noise/{name}"]) for name in ("z0", "v0", "v")))
    params, x = variables["params"], jnp.asarray(arrays["input"])

    def loss(params, x):
        y, aux = model.apply(variables | {"params": params}, x, noise=noise, capture=True)
        return jnp.sum(arrays["loss_weight"] * y) + 0.01 * aux["kl"], (y, aux)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (bar, x_bar), (y, aux) = gradient(params, x)
    results = {"output": y, "latents": aux["latents"], "kl": aux["kl"], "grad_input": x_bar}
    named = export_langevinflow(model, bar)
    results |= {f"grad/{name}": value for name, value in named.items()}
    results |= {
        f"grad_part/{name}": named[name][:CORNER]
        for name in under({key: 0 for key in arrays}, "grad_part/") or ["decoder.linear2.weight"]
    }
    results |= potential(params, arrays) | training(model, variables, x, noise, arrays, meta)
    results["validation/loss_mean"] = validation(y, arrays, meta)
    return results


def potential(params, arrays):
    z, kernel = jnp.asarray(arrays["potential/z"]), params["latent"]["potential"]
    kernel = langevin.unit_kernels(kernel)
    energy, pull = jax.jit(lambda z, k: (langevin.potential(z, k), langevin.force(z, k)))(z, kernel)
    return {"potential/energy": energy, "potential/force": pull}


def poisson(outputs, counts):
    """The program's loss: without the constant of the counts."""
    counts = jnp.asarray(counts)
    losses, weights, _ = SpikeRates(counts.shape[-1])(
        outputs, {"targets": counts, "lengths": jnp.full(len(counts), counts.shape[1], jnp.int32)}
    )
    constant = jnp.mean(jax.scipy.special.gammaln(counts + 1))
    return jnp.sum(losses * weights) / jnp.sum(weights) - constant


def training(model, variables, x, noise, arrays, meta):
    noise = noise.replace(keep=arrays["mask/keep"], through=arrays["mask/pass"])

    def loss(params):
        (y, aux), _ = model.apply(
            variables | {"params": params}, x, noise=noise, train=True, mutable=["batch_stats"]
        )
        return poisson(y, arrays["target"]) + aux["losses"]["kl"]

    run, params = jax.jit(jax.value_and_grad(loss)), variables["params"]
    first, bar = run(params)
    results = {"train/loss": first}
    results |= {f"train/grad/{name}": a for name, a in corners(model, bar).items()}
    results |= steps(model, run, params, meta)
    kernel = jnp.zeros_like(params["latent"]["potential"])
    flat = params | {"latent": params["latent"] | {"potential": kernel}}
    value, bar = run(flat)
    return results | {
        "zero_potential/loss": value, "zero_potential/grad": bar["latent"]["potential"]
    }


def steps(model, run, params, meta):
    """Adam, with the decay inside the gradient, as torch.optim.Adam has it."""
    decay = meta["weight_decay"] * min(meta["epoch"] / meta["kl_ramp_epochs"], 1)
    rule = optax.chain(optax.add_decayed_weights(decay), optax.adam(meta["learning_rate"]))
    state, losses = rule.init(params), []
    for _ in range(3):
        value, bar = run(params)
        updates, state = rule.update(bar, state, params)
        params, losses = optax.apply_updates(params, updates), [*losses, value]
    named = corners(model, params)
    # No gradient but rounding reaches the bias of the keys, which Adam makes steps of full size.
    named.pop("decoder.self_attn.in_proj_bias")
    return {"steps/losses": np.stack(losses)} | {f"steps/param/{k}": a for k, a in named.items()}


def corners(model, tree):
    named = export_langevinflow(model, tree)
    for name in ("self_attn.in_proj_weight", "linear1.weight", "linear2.weight"):
        named[f"decoder.{name}"] = named[f"decoder.{name}"][:CORNER, :CORNER]
    return named


def validation(outputs, arrays, meta):
    counts, shown = np.array(arrays["target"]), meta["held_in"]
    counts[:, meta["length"] :, shown:] *= arrays["mask/validation"] / meta["validation_keep"]
    return poisson(outputs, counts)


SYSTEMS = {"LangevinFlow": replay}
