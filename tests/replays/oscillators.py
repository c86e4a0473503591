"""LinOSS and D-LinOSS: their layers, and networks in training and in evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
from recordings import meta_of, under

import pspike_jax
from pspike_jax.nn.mixers.oscillator import OscillatorSSM, effective

STATISTICS = {"batch": "debiased", "ema": "running"}
# {name there: path here}, in a block, and around the blocks. Steps are "dt" or "steps" there.
LAYER = {
    "A_diag": ("oscillators", "A"),
    "G_diag": ("oscillators", "G"),
    "dt": ("oscillators", "step"),
    "steps": ("oscillators", "step"),
    "B": ("B",),
    "C": ("C",),
    "D": ("D",),
}
DENSE = {"weight": "kernel", "bias": "bias"}


def replay_layers(arrays):
    results, u = {}, jnp.asarray(arrays["input"])
    for name in meta_of(arrays)["layers"]:
        named = under(arrays, f"{name}/param/")
        tree = {}
        for there, value in named.items():
            put(tree, LAYER[there], value[None] if there == "C" else value)
        scheme = scheme_of(name)
        layer = OscillatorSSM(u.shape[-1], len(named["A_diag"]), scheme, start="uniform")

        def loss(tree, u, layer=layer):
            y, _ = layer.apply({"params": tree}, u)
            return jnp.sum(arrays["loss_weight"] * y), y

        (bar, u_bar), y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(tree, u)
        results |= {f"{name}/output": y, f"{name}/grad_input": u_bar}
        for there in named:
            value = get(bar, LAYER[there])
            results[f"{name}/grad/{there}"] = value[0] if there == "C" else value
        kept = effective(tree["oscillators"], scheme)
        results |= {f"{name}/effective/A": kept.A, f"{name}/effective/dt": kept.step}
        results[f"{name}/effective/G"] = kept.G
    return results


def replay_network(arrays):
    meta = meta_of(arrays)
    named = under(arrays, "param/")
    classes = meta["classification"]
    model = pspike_jax.create_model(
        "dlinoss",
        num_outputs=meta["output_dim"],
        d_model=meta["hidden"],
        d_state=meta["state"],
        n_layers=meta["blocks"],
        scheme=scheme_of(meta["discretisation"]),
        start="uniform",
        norm=STATISTICS[meta["batch_norm_mode"]],
        pool="mean" if classes else "none",
        activation="tanh" if meta["tanh_output"] else "identity",
        dropout=0.0,
    )
    paths = {name: path_of(name) for name in named}
    params, results = {}, {}
    for layer in reversed(range(meta["blocks"])):  # stacked from the last to the first
        for name, (path, index) in paths.items():
            if index in (None, layer):
                value = jnp.asarray(there_and_back(name, named[name]))
                if index is not None:
                    before = [] if layer == meta["blocks"] - 1 else [get(params, path)]
                    value = jnp.concatenate([value[None], *before])
                put(params, path, value)
    shapes = jax.eval_shape(model.init, jax.random.key(0), arrays["input1"])
    stats = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes["batch_stats"])
    norm = stats["backbone"]["blocks"]["norm"]["batch"]
    norm["var"] = jnp.ones_like(norm["var"])

    def loss(params, stats, x, train):
        variables = {"params": params, "batch_stats": stats}
        (y, _), new = model.apply(variables, x, train=train, mutable=["batch_stats"])
        y = jax.nn.softmax(y) if classes else y[:, meta["output_step"] - 1 :: meta["output_step"]]
        return jnp.sum(arrays["loss_weight"] * y), (y, new["batch_stats"])

    gradient = jax.jit(jax.grad(loss, argnums=(0, 2), has_aux=True), static_argnums=3)
    for phase, x in (("train1", "input1"), ("train2", "input2"), ("eval", "input1")):
        x = jnp.asarray(arrays[x])
        (bar, x_bar), (y, stats) = gradient(params, stats, x, phase != "eval")
        results |= {f"{phase}/output": y, f"{phase}/grad_input": x_bar}
        for name, (path, index) in paths.items():
            value = get(bar, path)
            value = value if index is None else value[index]
            results[f"{phase}/grad/{name}"] = there_and_back(name, value, back=True)
        for key, value in stats["backbone"]["blocks"]["norm"]["batch"].items():
            for i, one in enumerate(value):
                results[f"{phase}/state/blocks.{i}.norm.{key}"] = one
    return results


def scheme_of(name):
    return name.removeprefix("TK_").lower().replace("damped", "damped_")


def path_of(name):
    """Return (path here, block or None) of a name there."""
    first, *rest = name.split(".")
    if first != "blocks":
        module = "encoder" if first == "linear_encoder" else "head"
        return (module, "linear", DENSE[rest[0]]), None
    index, module, *rest = rest
    blocks = ("backbone", "blocks")
    if module == "glu":
        return (*blocks, {"w1": "value", "w2": "gate"}[rest[0]], DENSE[rest[1]]), int(index)
    return (*blocks, "ssm", *LAYER[rest[0]]), int(index)


def there_and_back(name, value, back=False):
    """Transpose a product; give C its axis of directions, or take it."""
    if name.endswith(".weight"):
        return value.T
    if name.endswith(".C"):
        return value[0] if back else value[None]
    return value


def put(tree, path, value):
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = np.asarray(value)


def get(tree, path):
    for part in path:
        tree = tree[part]
    return tree


SYSTEMS = {"LinOSS / D-LinOSS layers": replay_layers, "D-LinOSS network": replay_network}
