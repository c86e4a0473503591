"""S5 and Event-SSM: networks in training and in evaluation."""

import jax
import jax.numpy as jnp
from recordings import meta_of, under

from pspike_jax.interop import export_event_ssm, export_s5, load_event_ssm, load_s5

NORMS = {True: "batch", False: "layer"}


def replay_s5(arrays):
    meta = meta_of(arrays)
    module, variables = load_s5(
        under(arrays, "param/"),
        gate=meta["activation"],
        norm=NORMS[meta["batchnorm"]],
        momentum=meta["bn_momentum"],
        prenorm=meta["prenorm"],
        rule=meta["discretization"],
        clip=meta["clip_eigs"],
        conjugate=meta["conj_sym"],
        pool="last" if meta["mode"] == "last" else "mean",
        sees_padding=True,
    )
    lengths = arrays["input/lengths"] if meta["padded"] else None

    def call(variables, x, train):
        (y, _), new = module.apply(variables, x, lengths, train, mutable=["batch_stats"])
        return jax.nn.log_softmax(y), new

    x = jnp.asarray(arrays["input/x"])
    return phases(arrays, call, variables, x, lambda *trees: export_s5(module, *trees))


def replay_events(arrays):
    meta = meta_of(arrays)
    module, variables = load_event_ssm(
        under(arrays, "param/"),
        stride=meta["pooling_stride"],
        pooling=meta["pooling_mode"],
        pool="last" if meta["classification_mode"] == "last" else "mean",
        pool_by="time" if meta["classification_mode"] == "timepool" else "events",
        rule=meta["discretization"],
        norm=NORMS[meta["batchnorm"]],
        momentum=meta["bn_momentum"],
        prenorm=meta["prenorm"],
        conjugate=meta["conj_sym"],
        clip=meta.get("clip_eigs", False),
        sees_padding=True,
    )
    tokens, lengths = jnp.asarray(arrays["input/tokens"]), arrays["input/lengths"]

    def call(variables, dt, train):
        (y, _), new = module.apply(
            variables, tokens, lengths, train, dt=dt, mutable=["batch_stats"]
        )
        return y, new

    dt = jnp.asarray(arrays["input/timesteps"])
    return phases(arrays, call, variables, dt, lambda *trees: export_event_ssm(module, *trees))


def phases(arrays, call, variables, x, export):
    results, given = {}, variables
    for phase in ("train", "eval"):

        def loss(params, x, given=given, phase=phase):
            y, new = call(given | {"params": params}, x, phase == "train")
            return jnp.sum(arrays["loss_weight"] * y), (y, new)

        gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
        (bar, x_bar), (y, new) = gradient(variables["params"], x)
        results |= {f"{phase}/output": y, f"{phase}/grad_input": x_bar}
        results |= {f"{phase}/grad/{name}": array for name, array in export(bar).items()}
        if new.get("batch_stats"):
            given = given | {"batch_stats": new["batch_stats"]}
            named = export(bar, new["batch_stats"])
            moments = {name for name in named if name.endswith((".mean", ".var"))}
            results |= {f"{phase}/state/{name}": named[name] for name in moments}
    return results


SYSTEMS = {"S5 classification network": replay_s5, "Event-SSM network": replay_events}
