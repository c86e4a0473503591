"""Train a surrogate dynamic network for a leak, and say how well it agrees with the true neuron.

  python -m experiments.train_sdn --tau=0.125 --output=tau_0.125.json

Currents are drawn from N(0, 1); the network learns tau u_{t-1} of the hard-reset neuron with
threshold 1 before each current comes in, by smooth L1, AdamW at 0.01 and a cosine that moves once
an epoch. A tenth of the sequences is held out, and the epoch with the best loss on them is kept.
The authors take 100 epochs of batches of 64, of 50,000 sequences of 1,024 steps.

The card holds the 153 numbers, how they were made, and on new currents what is wrong beside what is
wrong without any membrane, m = 0, which alone makes 98.4 % of the spikes right at tau 0.125.
`spikingssm` takes the card's path as its field `network`.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.analysis.files import atomic_write
from pspike_jax.functional import neurons
from pspike_jax.functional.neurons.neuron import Params
from pspike_jax.recipes.sdn import SDNState, sdn_optimizer, sdn_step

TEST_ROWS, TEST_LENGTH = 1000, 1024


class Sizes(NamedTuple):
    """How much training there is.

    Attributes:
      sequences: drawn, the held-out tenth among them.
      length: steps of each.
      epochs: passes over the others.
      batch: sequences of a training step.
    """

    sequences: int = 3000
    length: int = 256
    epochs: int = 60
    batch: int = 32


def train(key: jax.Array, tau: float, sizes: Sizes) -> tuple[Params, dict[str, Any]]:
    """Train a network.

    Args:
      key: of weights, currents and order; consumed.
      tau: the leak.
      sizes: how much training there is.

    Returns:
      The 153 numbers, and {"epoch": the one kept, "validation": its loss, "losses": of all}.

    Raises:
      ValueError: a leak outside (0, 1), or too few sequences for a batch and a held-out one.
    """
    if not 0 < tau < 1:
        raise ValueError(f"tau is {tau}; expected a leak in (0, 1)")
    held_out = sizes.sequences // 10
    steps = (sizes.sequences - held_out) // sizes.batch
    if not held_out or not steps or sizes.epochs < 1:
        raise ValueError(f"{sizes}: expected ten sequences, a batch among them, and an epoch")
    weights_key, data_key, order_key = jax.random.split(key, 3)
    currents = jax.random.normal(data_key, (sizes.sequences, sizes.length), jnp.float32)
    targets = jax.jit(neurons.lif_targets)(currents, tau)[0]
    optimizer = sdn_optimizer(steps * sizes.epochs, steps)
    params, stats = neurons.init_sdn(weights_key)
    state = SDNState(params, stats, optimizer.init(params))

    # Data are arguments: a compiler would fold constants of their size for minutes.
    @jax.jit
    def epoch(state, key, currents, targets):
        rows = held_out + jax.random.permutation(key, sizes.sequences - held_out)
        rows = rows[: steps * sizes.batch].reshape(steps, sizes.batch)
        step = lambda state, few: sdn_step(optimizer, state, currents[few], targets[few])
        state, losses = jax.lax.scan(step, state, rows)
        network = neurons.fuse(state.params, state.stats)
        found = neurons.sdn_membrane(network, currents[:held_out, :, None])[..., 0]
        return state, network, jnp.mean(losses), smooth_l1(found, targets[:held_out])

    best, kept, losses = np.inf, None, []
    for number in range(sizes.epochs):
        order = jax.random.fold_in(order_key, number)
        state, network, loss, validation = epoch(state, order, currents, targets)
        losses.append(float(loss))
        if float(validation) < best:
            best, kept, chosen = float(validation), network, number
    if kept is None:
        raise ValueError(f"training diverged: losses {losses}")
    return kept, {"epoch": chosen, "validation": best, "losses": losses}


def smooth_l1(found: jax.Array, wanted: jax.Array) -> jax.Array:
    """Return the mean smooth L1 distance, beta 1."""
    error = jnp.abs(found - wanted)
    return jnp.mean(jnp.where(error < 1, 0.5 * jnp.square(error), error - 0.5))


def report(
    network: Params, tau: float, key: jax.Array, rows: int = TEST_ROWS, length: int = TEST_LENGTH
) -> dict[str, Any]:
    """Compare a network with the true neuron on new currents; the key is consumed.

    Args:
      network: the 153 numbers.
      tau: leak of the true neuron.
      key: of the currents.
      rows: number of sequences.
      length: their steps.

    Returns:
      "network" and "no_membrane": what `neurons.agreement` gives, "wrong" and "whole" among it;
      "mean_error" and "largest_error" of the membrane; "sequences" and "length".
    """
    currents = jax.random.normal(key, (rows, length), jnp.float32)
    membrane, true = jax.jit(neurons.lif_targets)(currents, tau)
    spikes, drive = jax.jit(neurons.sdn_spikes)(network, currents[..., None])
    error = jnp.abs(drive[..., 0] + 1 - currents - membrane)
    silent = (currents >= 1).astype(jnp.float32)
    numbers = lambda found: {k: float(v) for k, v in found.items()}
    return {
        "sequences": rows,
        "length": length,
        "network": numbers(neurons.agreement(spikes[..., 0], true)),
        "no_membrane": numbers(neurons.agreement(silent, true)),
        "mean_error": float(jnp.mean(error)),
        "largest_error": float(jnp.max(error)),
    }


def make_card(tau: float, seed: int, sizes: Sizes) -> dict[str, Any]:
    """Train, compare, and return a card of JSON types."""
    training_key, test_key = jax.random.split(jax.random.key(seed))
    network, training = train(training_key, tau, sizes)
    return {
        "kind": "surrogate dynamic network",
        "tau": tau,
        "threshold": 1.0,
        "training": {"seed": seed, **sizes._asdict(), **training},
        "agreement": report(network, tau, test_key),
        "limits": [
            "It guesses from eight steps, and is never exact: whole sequences differ from the true "
            "neuron's, see agreement.",
            "It is meant for this leak, for threshold 1 and for currents like N(0, 1): divide "
            "currents by another threshold.",
        ],
        "weights": {name: np.asarray(array).tolist() for name, array in network.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the network that the command line names, and write its card."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.train_sdn", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--tau", type=float, required=True, help="leak of the neuron, in (0, 1)")
    made.add_argument("--output", type=pathlib.Path, help="file of the card; tau_TAU.json")
    made.add_argument("--seed", type=int, default=0)
    for name, default in Sizes()._asdict().items():
        made.add_argument(f"--{name}", type=int, default=default)
    given = made.parse_args(arguments)
    sizes = Sizes(*(getattr(given, name) for name in Sizes._fields))
    output = given.output or pathlib.Path(f"tau_{given.tau:g}.json")
    try:
        card = make_card(given.tau, given.seed, sizes)
    except ValueError as error:
        made.error(str(error))
    atomic_write(output, json.dumps(card, indent=1) + "\n")
    found, none = (card["agreement"][name] for name in ("network", "no_membrane"))
    print(
        f"{output}: wrong {found['wrong']:.3%}, without a membrane {none['wrong']:.3%}; "
        f"whole sequences right {found['whole']:.1%}, without {none['whole']:.1%}"
    )


if __name__ == "__main__":
    main()
