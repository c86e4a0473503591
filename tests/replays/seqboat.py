"""SeqBoat's published module: a model, and its first layer with padding."""

import jax
import jax.numpy as jnp
from recordings import meta_of, under

from pspike_jax.interop import export_seqboat, load_seqboat
from pspike_jax.models.seqboat import SeqBoatBlock
from pspike_jax.nn import whole_sequences


def replay(arrays):
    meta = meta_of(arrays)
    module, variables = load_seqboat(
        under(arrays, "param/"),
        bidirectional=meta["bidirectional"],
        prenorm=meta["prenorm"],
        norm=meta["norm"],
        attention=meta["attention"],
        window=meta["window"],
    )

    def loss(params, inputs):
        given = variables | {"params": params}
        (output, aux), state = module.apply(
            given, inputs, train=meta["train"], capture=True, mutable=["batch_stats"]
        )
        return jnp.sum(arrays["loss_weight"] * output), (output, aux, state)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    bars, (output, aux, state) = gradient(variables["params"], jnp.asarray(arrays["input"]))
    found = {"output": output, "grad_input": bars[1]}
    found |= {f"grad/{k}": v for k, v in export_seqboat(module, bars[0]).items()}
    router = aux["sites"]["router"]
    for i, block in enumerate(aux["block_output"]):
        found[f"layer_output/{i}"] = block
        p = router["probability_array"][i]
        found[f"router/{i}"] = jnp.concatenate([1 - p, p], axis=-1)
        found[f"active/{i}"] = router["spike_array"][i, ..., 0] > 0
    if state.get("batch_stats"):
        named = export_seqboat(module, variables["params"], state["batch_stats"])
        found |= {f"after/{k}": v for k, v in named.items() if "running" in k}
    if "padded/input" in arrays:
        found |= padded(arrays, module, variables, meta["train"])
    return found


def padded(arrays, module, variables, train):
    """The first layer alone, some of its steps padding."""
    x = jnp.asarray(arrays["padded/input"])
    mask = jnp.asarray(arrays["padded/mask"]) == 0
    ctx = whole_sequences(x, train=train, capture=True).replace(mask=mask)
    first = jax.tree.map(
        lambda a: a[0], {name: tree["backbone"]["blocks"] for name, tree in variables.items()}
    )
    block = SeqBoatBlock(module.config)
    (out, _, aux), _ = block.apply(first, x, None, ctx, mutable=["batch_stats"])
    p = aux["sites"]["router"]["probability_array"]
    return {"padded/output": out, "padded/router": jnp.concatenate([1 - p, p], axis=-1)}


SYSTEMS = {"SeqBoat": replay}
