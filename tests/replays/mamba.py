"""Mamba, Mamba-2 and gated linear attention: scans by themselves, and blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from recordings import meta_of, under

from pspike_jax.functional import gated_recurrence
from pspike_jax.functional.selective import selective_scan, ssd_scan, step_sizes
from pspike_jax.interop import export_mamba, load_mamba, load_mamba2


def differentiate(run, inputs, weight):
    """Return (output, final state, gradients of sum(weight output))."""

    @jax.jit
    def gradient(inputs):
        def loss(inputs):
            y, final = run(**inputs)
            return jnp.sum(weight * y), (y, final)

        return jax.grad(loss, has_aux=True)(inputs)

    bar, (y, final) = gradient({name: jnp.asarray(value) for name, value in inputs.items()})
    return y, final, bar


def scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, *, softplus):
    steps_second = lambda a: a.swapaxes(1, 2) if a.ndim == 3 else jnp.moveaxis(a, 3, 1)
    u, delta, B, C = (steps_second(a) for a in (u, delta, B, C))
    if softplus:
        bias = jnp.zeros(delta.shape[-1:]) if delta_bias is None else delta_bias
        delta = step_sizes(delta, bias)
    elif delta_bias is not None:
        delta = delta + delta_bias[None, None]
    z = None if z is None else z.swapaxes(1, 2)
    y, final = selective_scan(u, delta, A, B, C, D=D, z=z)
    return y.swapaxes(1, 2), final


def replay_scan(arrays):
    results = {}
    for case, settings in meta_of(arrays)["cases"].items():
        run = functools.partial(scan, softplus=settings["delta_softplus"])
        inputs = under(arrays, f"{case}/input/")
        y, final, bar = differentiate(run, inputs, arrays["loss_weight"])
        results |= {f"{case}/output": y, f"{case}/last_state": final}
        results |= {f"{case}/grad/{name}": value for name, value in bar.items()}
    return results


def minimal(X, A, B, C, initial_states=None):
    start = None if initial_states is None else initial_states[:, 0].swapaxes(2, 3)
    y, final = gated_recurrence(X, B, C, A, initial_state=start)
    return y, final.swapaxes(2, 3)


def combined(x, dt, A, B, C, D=None, z=None, dt_bias=None):
    dt = step_sizes(dt, jnp.zeros(dt.shape[-1:]) if dt_bias is None else dt_bias)
    return ssd_scan(x, dt, A, B, C, D=D, z=z)


def replay_ssd(arrays):
    results = {}
    for case, run in (("minimal", minimal), ("combined", combined)):
        inputs = under(arrays, f"{case}/input/")
        y, final, bar = differentiate(run, inputs, arrays["loss_weight"])
        results[f"{case}/output"] = y
        results |= {f"{case}/grad/{name}": value for name, value in bar.items()}
        if case == "minimal":
            results["minimal/final_state"] = final
            rest = {name: value for name, value in inputs.items() if name != "initial_states"}
            results["minimal/output_zero_state"] = run(**rest)[0]
    return results


def attention(q, k, v, gk, initial_state=None):
    return gated_recurrence(v, k, q * q.shape[-1] ** -0.5, gk, initial_state=initial_state)


def replay_attention(arrays):
    inputs = under(arrays, "input/")
    y, final, bar = differentiate(attention, inputs, arrays["loss_weight"])
    rest = {name: value for name, value in inputs.items() if name != "initial_state"}
    results = {"output": y, "final_state": final, "output_zero_state": attention(**rest)[0]}
    return results | {f"grad/{name}": value for name, value in bar.items()}


def replay_block(load, arrays):
    module, variables = load(under(arrays, "param/"))

    def run(params, u):
        return module.apply({"params": params}, u)

    inputs = {"params": variables["params"], "u": jnp.asarray(arrays["input"])}

    @jax.jit
    def gradient(inputs):
        def loss(inputs):
            y, final = run(**inputs)
            return jnp.sum(arrays["loss_weight"] * y), y

        return jax.grad(loss, has_aux=True)(inputs)

    bar, y = gradient(inputs)
    results = {"output": y, "grad_input": bar["u"]}
    exported = export_mamba(module, bar["params"])
    return results | {f"grad/{name}": value for name, value in exported.items()} | stream(
        module, variables, inputs["u"]
    )


def stream(module, variables, u):
    """Run a mixer token by token."""
    step = jax.jit(module.apply)
    state, outputs = module.zero_state(len(u)), []
    for t in range(u.shape[1]):
        y, state = step(variables, u[:, t : t + 1], state)
        outputs.append(np.asarray(y))
    ssm = state["ssm"] if state["ssm"].ndim == 3 else state["ssm"].swapaxes(2, 3)
    return {
        "step_output": np.concatenate(outputs, axis=1),
        "step_conv_state": state["conv"].swapaxes(1, 2),
        "step_ssm_state": ssm,
    }


def replay_mamba2(arrays):
    groups = meta_of(arrays)["settings"].get("ngroups", 1)
    return replay_block(functools.partial(load_mamba2, groups=groups), arrays)


SYSTEMS = {
    "Mamba (": functools.partial(replay_block, load_mamba),
    "Mamba selective scan": replay_scan,
    "Mamba2Simple": replay_mamba2,
    "SSD": replay_ssd,
    "gated linear attention": replay_attention,
}
