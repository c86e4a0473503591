"""LinOSS and D-LinOSS: their layers, and networks in training and in evaluation."""

import jax
import jax.numpy as jnp
from recordings import meta_of, under

from pspike_jax.interop import export_linoss, load_linoss
from pspike_jax.nn.mixers.oscillator import OscillatorSSM, effective

STATISTICS = {"batch": "debiased", "ema": "running"}
STORED = {"A_diag": "A", "G_diag": "G", "dt": "step", "steps": "step"}


def replay_layers(arrays):
    results, u = {}, jnp.asarray(arrays["input"])
    for name in meta_of(arrays)["layers"]:
        named = under(arrays, f"{name}/param/")
        stored = {STORED[key]: jnp.asarray(named[key]) for key in named if key in STORED}
        tree = {"oscillators": stored, "B": named["B"], "C": named["C"][None], "D": named["D"]}
        scheme = scheme_of(name)
        layer = OscillatorSSM(u.shape[-1], len(named["A_diag"]), scheme, start="uniform")

        def loss(tree, u, layer=layer):
            y, _ = layer.apply({"params": tree}, u)
            return jnp.sum(arrays["loss_weight"] * y), y

        (bar, u_bar), y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(tree, u)
        results |= {f"{name}/output": y, f"{name}/grad_input": u_bar}
        named_bar = {"B": bar["B"], "C": bar["C"][0], "D": bar["D"]}
        named_bar |= {key: bar["oscillators"][STORED[key]] for key in named if key in STORED}
        results |= {f"{name}/grad/{key}": value for key, value in named_bar.items()}
        kept = effective(stored, scheme)
        results |= {f"{name}/effective/A": kept.A, f"{name}/effective/dt": kept.step}
        results[f"{name}/effective/G"] = kept.G
    return results


def replay_network(arrays):
    meta = meta_of(arrays)
    classes, every = meta["classification"], meta["output_step"]
    module, variables = load_linoss(
        under(arrays, "param/"),
        scheme=scheme_of(meta["discretisation"]),
        norm=STATISTICS[meta["batch_norm_mode"]],
        pool="mean" if classes else "none",
        activation="tanh" if meta["tanh_output"] and not classes else "identity",
        dropout=0.0,
    )

    def loss(params, stats, x, train):
        given = {"params": params, "batch_stats": stats}
        (y, _), new = module.apply(given, x, train=train, mutable=["batch_stats"])
        y = jax.nn.softmax(y) if classes else y[:, every - 1 :: every]
        return jnp.sum(arrays["loss_weight"] * y), (y, new["batch_stats"])

    gradient = jax.jit(jax.grad(loss, argnums=(0, 2), has_aux=True), static_argnums=3)
    params, stats, results = variables["params"], variables["batch_stats"], {}
    for phase, x in (("train1", "input1"), ("train2", "input2"), ("eval", "input1")):
        x = jnp.asarray(arrays[x])
        (bar, x_bar), (y, stats) = gradient(params, stats, x, phase != "eval")
        results |= {f"{phase}/output": y, f"{phase}/grad_input": x_bar}
        for name, value in export_linoss(module, bar, stats).items():
            part = "state" if ".norm." in name else "grad"
            results[f"{phase}/{part}/{name}"] = value
    return results


def scheme_of(name):
    return name.removeprefix("TK_").lower().replace("damped", "damped_")


SYSTEMS = {
    "LinOSS / D-LinOSS layers": replay_layers,
    "D-LinOSS network": replay_network,
    "LinOSS network": replay_network,
}
