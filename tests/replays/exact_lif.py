"""Spikes of leaky neurons that reset, from float64 loops; evaluated here in parallel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from recordings import meta_of

from pspike_jax.functional import neurons


def replay(arrays):
    meta, results = meta_of(arrays), {}
    V = {"threshold": meta["V"]}
    trace = {"magnitude": meta["kappa"], "refractory_decay": meta["rho"]}
    kinds = {
        "soft": neurons.SoftResetLIF(**V),
        "hard": neurons.HardResetLIF(**V),
        "refractory": neurons.RefractoryLIF(**V, **trace),
    }
    # Leaks are arguments: one program a kind.
    programs = {kind: jax.jit(functools.partial(run, neuron)) for kind, neuron in kinds.items()}
    for key in (key for key in arrays if key.endswith("/currents")):
        case = key.removesuffix("/currents")
        tau = jnp.full((1,), float(case.split("/")[-1]), jnp.float32)
        currents = jnp.asarray(arrays[key], jnp.float32)[..., None]
        for kind, program in programs.items():
            spikes = program(tau, currents)
            results[f"{case}/{kind}"] = np.packbits(np.asarray(spikes[..., 0]) > 0, axis=-1)
    return results


def run(neuron, tau, currents):
    """Return the spikes of neurons with a given leak."""
    state = neurons.initial_state(neuron, currents.shape[0], currents.shape[2])
    coefficients = (tau, *neuron.coefficients({})[1:])
    return neurons.evaluate(neuron, coefficients, currents, state, evaluation="parallel").spikes


SYSTEMS = {"exact spikes": replay}
