"""Networks of neurons that reset, as SiLIF's authors compute them."""

import jax
import jax.numpy as jnp
import numpy as np
from recordings import meta_of, under

from pspike_jax.interop import authors_activity, export_silif, load_silif

# The recorded names of neurons, and the models' names.
MODELS = {
    "LIF": "lif",
    "adLIF": "adlif",
    "CadLIF": "cadlif",
    "SiLIF": "silif",
    "CSiLIF": "csilif",
    "ResonateFire": "resonate_and_fire",
    "RLIF": "rlif",
    "RadLIF": "radlif",
}


def replay(arrays):
    meta = meta_of(arrays)
    module, variables = load_silif(
        under(arrays, "param/"), neuron=MODELS[meta["neuron"]], normalization=meta["normalization"]
    )
    states = under(arrays, "initial_state/")
    states = [states[str(number)] for number in range(len(states))]
    state = given_state(module, states, len(arrays["input"])) if states else None

    def loss(params, inputs):
        (output, aux), _ = module.apply(
            variables | {"params": params},
            inputs,
            train=meta["train"],
            state=state,
            capture=True,
            mutable=["batch_stats"],
        )
        return jnp.sum(arrays["loss_weight"] * output), (output, aux)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    inputs = jnp.asarray(arrays["input"])
    (params_bar, inputs_bar), (output, aux) = gradient(variables["params"], inputs)
    spikes = [array for site in aux["sites"].values() for array in site["spike_array"]]
    if meta.get("pretrained"):
        spikes = [np.packbits(np.asarray(array).astype(bool)) for array in spikes]
    activity = authors_activity(module, inputs, aux)
    results = {f"spikes/{i}": array for i, array in enumerate(spikes)}
    results |= {f"grad/{name}": value for name, value in export_silif(module, params_bar).items()}
    return results | {
        "output": output,
        "grad_input": inputs_bar,
        "firing_rates": activity.firing_rates,
        "synops": activity.synops,
    }


def given_state(module, states, batch):
    """Return a model's state with recorded arrays, in the order in which they were drawn."""
    state = module.resting_state(batch)
    wanted, tree = jax.tree.flatten((state["layers"], state["head"]["u"]))
    parts = [jnp.asarray(part, zero.dtype) for part, zero in zip(states, wanted, strict=True)]
    layers, u = jax.tree.unflatten(tree, parts)
    return state | {"layers": layers, "head": state["head"] | {"u": u}}


SYSTEMS = {"silif": replay}
