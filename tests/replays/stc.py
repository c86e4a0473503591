"""Cells with an autaptic circuit, and their models, as STC's authors compute them."""

import flax
import jax
import jax.numpy as jnp
from recordings import meta_of, under

from pspike_jax.interop import export_stc, load_stc
from pspike_jax.interop.stc import cell_entries
from pspike_jax.nn.autapse import AutapticCell

FIRST, LAST = (0, 1, 3, 4, 2), (0, 1, 4, 2, 3)  # channels last here, behind the batch there
KINDS = {"STCLIF": "lif", "STCPLIF": "plif", "STCLMH": "lmh"}


def kind_of(meta):
    return KINDS[meta["system"].removesuffix("Cell").removesuffix("_Model")]


def cell(arrays):
    meta = meta_of(arrays)
    kind, params = kind_of(meta), under(arrays, "param/cell.")
    module = AutapticCell(
        kind, meta["hidden"], meta["filter"], meta["groups"], bool(meta["gradient_detach"])
    )
    names = dict(cell_entries(kind))
    here = lambda a: jnp.asarray(a.transpose(2, 3, 1, 0) if a.ndim == 4 else a)
    there = lambda a: a.transpose(3, 2, 0, 1) if a.ndim == 4 else a
    tree = flax.traverse_util.unflatten_dict({p: here(params[n]) for p, n in names.items()})
    inputs = jnp.asarray(arrays["input"]).transpose(FIRST)

    def loss(tree, inputs):
        def step(state, x):
            state = module.apply({"params": tree}, x, state)
            return state, (state.spikes, state.membrane)

        _, seen = jax.lax.scan(step, module.zero_state(*inputs.shape[1:4]), inputs)
        spikes, membrane = (a.transpose(LAST) for a in seen)
        output = spikes + 0.25 * membrane
        return jnp.sum(arrays["loss_weight"] * output), (output, spikes, membrane)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (bar, inputs_bar), (output, spikes, membrane) = gradient(tree, inputs)
    flat = flax.traverse_util.flatten_dict(bar)
    found = {f"grad/cell.{name}": there(flat[path]) for path, name in names.items()}
    found |= {"output": output, "spikes/0": spikes, "membrane": membrane}
    return found | {"grad_input": inputs_bar.transpose(LAST)}


def model(arrays):
    meta = meta_of(arrays)
    module, variables = load_stc(
        under(arrays, "param/"), cell=kind_of(meta), detach=bool(meta["gradient_detach"])
    )
    frames = jnp.asarray(arrays["input"])
    steps, seen = frames.shape[1] - 1, meta["pre"]
    ones = jnp.ones((frames.shape[0], seen, *frames.shape[2:]), jnp.float32)
    share = jnp.concatenate([ones, jnp.asarray(arrays["mask_true"])], axis=1)[:, :steps]

    def loss(params, frames):
        output, aux = module.apply({"params": params}, frames, share=share, capture=True)
        return jnp.sum(arrays["loss_weight"] * output), (output, aux)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (bar, frames_bar), (output, aux) = gradient(variables["params"], frames)
    spikes = [layer for site in aux["sites"].values() for layer in site["spike_array"]]
    found = {f"spikes/{i}": a.transpose(1, 0, 4, 2, 3) for i, a in enumerate(spikes)}
    found |= {f"grad/{name}": value for name, value in export_stc(module, bar).items()}
    found["mse"] = jnp.mean(jnp.square(output - frames[:, 1:]))
    return found | {"output": output, "grad_input": frames_bar}


SYSTEMS = {
    f"{name}{end}": run for name in KINDS for end, run in (("Cell", cell), ("_Model", model))
}
