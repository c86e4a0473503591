"""Mamba-FSCIL: the projector, its losses, and three steps of the program's training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from recordings import meta_of, under

from pspike_jax.functional.simplex import directions, dot_regression
from pspike_jax.interop import export_mamba_fscil, load_mamba_fscil
from pspike_jax.recipes.incremental import class_sensitive

PARTS = {"dts": "dt", "Bs": "b", "Cs": "c"}


def replay(arrays):
    meta = meta_of(arrays)
    x = jnp.asarray(arrays["input"])
    size = x.shape[2:]
    model, variables = load_mamba_fscil(
        under(arrays, "param/"), size=size, rank=meta["d_rank"], num_outputs=meta["classes"],
        detach=meta["detach_residual"],
    )
    params = variables["params"]
    tokens = lambda x: x.reshape(*x.shape[:2], -1).swapaxes(1, 2)
    run = jax.jit(lambda params, x: model.apply({"params": params}, tokens(x), capture=True)[1])

    def weighted(params, x):
        aux = run(params, x)
        return jnp.sum(arrays["loss_weight"] * aux["features"]), aux

    gradient = jax.jit(jax.grad(weighted, argnums=(0, 1), has_aux=True))
    (bar, x_bar), aux = gradient(params, x)
    losses = losses_of(arrays, meta)
    total = jax.jit(jax.value_and_grad(lambda params: losses(run(params, x))["total"]))
    results = {"output": aux["features"], "grad_input": x_bar}
    results |= necks(aux) if meta["version"] == "ssm" else {}
    unit, base = directions(aux["features"]), meta["base_classes"]
    results |= {"normalised": unit, "scores": unit @ arrays["prototypes"][:, :base]}
    results |= {f"losses/{name}": value for name, value in jax.jit(losses)(aux).items()}
    results |= steps(model, total, params, meta, lambda params: run(params, x)["features"])
    named = {"grad": bar, "losses_grad": total(params)[1]}
    for part, tree in named.items():
        exported = export_mamba_fscil(model, tree).items()
        results |= {f"{part}/{name}": value for name, value in exported}
    return results


def necks(aux):
    parts, last = aux["parts"], "new" if "new" in aux["parts"] else "base"
    results = {"neck/main": parts[last]["gate"].swapaxes(1, 2), "neck/residual": aux["residual"]}
    for branch, suffix in (("base", ""), ("new", "_new")):
        for there, here in PARTS.items():
            if branch in parts:
                results[f"neck/{there}{suffix}"] = parts[branch][here].swapaxes(2, 3)
    return results


def losses_of(arrays, meta):
    labels = jnp.asarray(arrays["labels"])
    E, base = jnp.asarray(arrays["prototypes"]), labels < meta["base_classes"]
    head = lambda f, labels: jnp.mean(dot_regression(directions(f) @ E, labels))
    order = arrays["permutation"]

    def losses(aux):
        f = aux["features"]
        found = class_sensitive(
            aux["parts"], base,
            suppress=meta["loss_weight_supp"], suppress_novel=meta["loss_weight_supp_novel"],
            separate=meta["loss_weight_sep"], separate_new=meta["loss_weight_sep_new"],
        )
        named = {"loss_supp_base": found.pop("suppress_base"),
                 "loss_supp_novel": found.pop("suppress_novel")}
        for there, here in PARTS.items():
            for branch in ("base", "new"):
                if f"separate_{here}_{branch}" in found:
                    named[f"loss_sep_{there}_{branch}"] = found[f"separate_{here}_{branch}"]
        named["loss"] = head(f, labels)
        mixed = (f + f[order]) / 2
        return named | {
            "total": sum(named.values()),
            "mixup": (head(mixed, labels) + head(mixed, labels[order])) / 2,
        }

    return losses


def steps(model, total, params, meta, features):
    """SGD with momentum and decay; parameters of the base branch have a smaller rate."""
    new = lambda path, _: "new" in jax.tree_util.keystr(path)
    labels = jax.tree_util.tree_map_with_path(new, params)
    rate = meta["learning_rate"]
    sgd = lambda rate: optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(rate, 0.9))
    rule = optax.multi_transform({True: sgd(rate), False: sgd(rate * meta["lr_mult_old"])}, labels)
    state, losses = rule.init(params), []
    for _ in range(3):
        value, bar = total(params)
        updates, state = rule.update(bar, state, params)
        params, losses = optax.apply_updates(params, updates), [*losses, value]
    exported = export_mamba_fscil(model, params)
    after = {f"steps/param/{name}": value for name, value in exported.items()}
    return after | {"steps/losses": np.stack(losses), "steps/output": features(params)}


SYSTEMS = {"Mamba-FSCIL": replay}
