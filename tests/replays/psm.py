"""Prefix-scannable models: the prefix scan by itself, and with a Transformer."""

import jax
import jax.numpy as jnp
import numpy as np
from recordings import meta_of, under

from pspike_jax.functional.prefix import tree_prefixes
from pspike_jax.interop import export_psm, load_psm


def replay_tree(arrays):
    W, b, leaves = (jnp.float32(arrays[name]) for name in ("param/W", "param/b", "input"))

    def aggregate(u, v):
        return jnp.tanh(jnp.concatenate([u, v], axis=-1) @ W.T + b[None]) + v / 2

    prefixes = tree_prefixes(aggregate, leaves)
    return {
        "output": np.concatenate([np.zeros_like(leaves[:1]), prefixes[:-1]]),
        "total": prefixes[-1],
    }


def replay_transformer(arrays):
    meta, tokens = meta_of(arrays), jnp.asarray(arrays["input"])
    c = meta["chunk_size"]
    module, variables = load_psm(under(arrays, "param/"), heads=meta["heads"], chunk=c)
    labels = tokens.reshape(len(tokens), -1, c)[:, :, 1:]

    @jax.jit
    def gradient(params):
        def loss(params):
            outputs, _ = module.apply({"params": params}, tokens)
            logits = outputs.reshape(*labels.shape[:2], c, -1)[:, :, :-1]
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)
            return -jnp.mean(chosen), logits

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, logits), bar = gradient(variables["params"])
    results = {"output": logits, "loss": loss}
    results["prefix"] = jax.jit(lambda: module.apply(variables, tokens, method="prefixes"))()
    return results | {f"grad/{name}": value for name, value in export_psm(module, bar).items()}


SYSTEMS = {"generic prefix scan": replay_tree, "Transformer-PSM": replay_transformer}
