"""Time of neurons that reset: scanned, exactly in parallel, and guessed by an SDN.

  python -m benchmarks.reset_neurons

One layer, forward, of hard, soft and refractory resets at SpikingSSM's leak of 0.125 and at 0.9, on
N(0, 1) currents and, for the hard reset, on a constant drift, where rounds are at their worst.
"spikes wrong" is the share of steps that differ from the scan; "rounds", "open" and "ties" are
those of `neurons.evaluate`; "depth" is the number of dependent passes over the layer: L by scan,
2 log2 L for each round. The SDN's weights are random here: its time does not depend on them, and
its share of wrong spikes, which does, is in the card of the weights.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from pspike_jax.functional import neurons

KINDS = {
    "hard": neurons.HardResetLIF,
    "soft": neurons.SoftResetLIF,
    "refractory": neurons.RefractoryLIF,
}
LENGTHS = (1024, 2048, 4096, 8192)
CASES = (
    ("hard", 0.125, "normal"), ("hard", 0.9, "normal"), ("hard", 0.9, "drift"),
    ("soft", 0.125, "normal"), ("soft", 0.9, "normal"), ("refractory", 0.125, "normal"),
)


def layer(kind, leak, drive, length, batch, features):
    """Check and time the ways to run one layer."""
    rng = np.random.default_rng(0)
    mean = 1.0 if drive == "drift" else 0.0
    currents = jnp.asarray(mean + rng.normal(size=(batch, length, features)), jnp.float32)
    neuron = KINDS[kind](leak)
    coefficients = neuron.coefficients({})
    state = neurons.initial_state(neuron, batch, features)

    def run(evaluation, currents):
        return neurons.evaluate(neuron, coefficients, currents, state, evaluation=evaluation)

    spikes = {
        name: functools.partial(lambda way, given: run(way, given).spikes, name)
        for name in ("scan", "parallel")
    }
    programs = [timing.compile_program(n, way, currents) for n, way in spikes.items()]
    found = jax.jit(functools.partial(run, "parallel"))(currents)
    differences = {"parallel": float(jnp.mean(programs[0].run() != found.spikes))}
    if kind == "hard":
        drawn, stats = neurons.init_sdn(jax.random.key(0))
        params = neurons.fuse(drawn, stats)
        guess = lambda params, given: neurons.sdn_spikes(params, given)[0]
        programs.append(timing.compile_program("sdn", guess, params, currents))
    rounds = int(found.rounds)
    setting = {
        "program": "layer", "reset": kind, "leak": leak, "currents": drive, "L": length,
        "H": features, "batch": batch, "firing": round(float(jnp.mean(found.spikes)), 3),
        "rounds": rounds, "open": round(float(found.open_share), 3), "ties": int(found.ties),
        "depth": rounds * 2 * math.ceil(math.log2(length)),
    }
    return timing.measure(programs, setting=setting, differences=differences)


def measure(quick: bool) -> list[timing.Record]:
    """Time every case at every length."""
    lengths, batch, features = ((32,), 2, 4) if quick else (LENGTHS, 8, 128)
    cases = CASES[:1] if quick else CASES
    return [r for case in cases for n in lengths for r in layer(*case, n, batch, features)]


if __name__ == "__main__":
    timing.main("reset_neurons", measure)
