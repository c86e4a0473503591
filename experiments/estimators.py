"""How stochastic spikes learn: bias and variance of estimators, against all spikes enumerated.

  python -m experiments.estimators            # record, page and picture in experiments/results

The network is a P-SpikeSSM of two layers of two neurons over three steps: sampled spikes, a leaky
memory, sampled spikes, a linear readout of their mean. Its 12 spikes can be 4,096 things, so that
the expected loss and its gradient are sums. An estimator's single draws are compared with that
gradient, at several random parameters; then each trains the network, one draw an update.
"""

import argparse
import functools
import importlib.metadata
import itertools
import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from experiments.families import table
from experiments.record import hardware
from pspike_jax.analysis.canvas import PALETTE, WIDTH, save_figure
from pspike_jax.analysis.files import atomic_write
from pspike_jax.functional.estimators import ESTIMATORS, score_loss, stochastic_spikes
from pspike_jax.training.workdir import source_commit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORD = pathlib.Path(__file__).resolve().parent / "results" / "estimators.json"
STEPS, WIDTH_OF_LAYER, LEAK = 3, 2, 0.7
SEEDS, DRAWS, UPDATES, RATE = range(8), 20_000, 400, 0.05
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
LEFT_OUT = ("none",)  # no gradient at all
NOTES = """\
Two layers of two neurons over three steps, p = clamp(W x + b), a memory that keeps 0.7 of itself,
squared error of a linear readout of the mean spikes; gradients are those of W, b and the readout.
**Bias:** the distance of the mean of {draws:,} draws from the exact gradient, over the length of
that; **spread:** the standard deviation of a draw, over the same; both mean and range over {seeds}
random parameters. A bias below spread / √{draws:,} is none that could be seen. **After training:**
the exact expected loss after {updates} updates of one draw each by plain descent at rate {rate},
mean and standard error; it was {start:.3f} before. The baseline of `reinforce` is the exact
expected loss, which nobody has in practice. Other losses, depths and sizes may rank estimators
otherwise.
"""


def initial(seed: int) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
    """Draw parameters whose probabilities lie inside [0, 1], inputs and a target."""
    w, v, x, y = jax.random.split(jax.random.key(seed), 4)
    n = WIDTH_OF_LAYER
    params = {
        "W": 0.15 * jax.random.normal(w, (2, n, n)), "b": jnp.full((2, n), 0.4),
        "v": 1.0 + jax.random.normal(v, (n,)),
    }
    return params, jax.random.normal(x, (STEPS, n)), jax.random.normal(y, ())


def probabilities(params: dict[str, jax.Array], layer: int, x: jax.Array) -> jax.Array:
    """Return the probabilities (T, n) of a layer that is given x (T, n)."""
    return x @ params["W"][layer] + params["b"][layer][None]


def memory(spikes: jax.Array) -> jax.Array:
    """Return leaky sums (T, n) of spikes."""
    state, states = jnp.zeros_like(spikes[0]), []
    for step in range(STEPS):
        state = LEAK * state + spikes[step]
        states.append(state)
    return jnp.stack(states)


def squared_error(params, spikes, target):
    """Return the loss of the second layer's spikes."""
    return jnp.square(jnp.mean(spikes @ params["v"]) - target)


def expected_loss(params, x, target):
    """Sum the loss over all spikes, each with its probability."""
    every = jnp.float32(list(itertools.product((0, 1), repeat=STEPS * WIDTH_OF_LAYER)))
    every = every.reshape(-1, STEPS, WIDTH_OF_LAYER)

    def chance(p, spikes):
        p = jnp.clip(p, 0, 1)
        return jnp.prod(jnp.where(spikes > 0, p, 1 - p), axis=(-2, -1))

    losses = jax.vmap(lambda spikes: squared_error(params, spikes, target))(every)

    def given(first):
        return jnp.sum(chance(probabilities(params, 1, memory(first))[None], every) * losses)

    first = chance(probabilities(params, 0, x)[None], every)
    return jnp.sum(first * jax.vmap(given)(every))


def drawn_loss(params, x, target, key, estimator, baseline):
    """Draw all spikes once; the gradient is an estimate of the expected loss's."""
    scores = 0.0
    for layer, each in enumerate(jax.random.split(key)):
        p = probabilities(params, layer, x)
        found = stochastic_spikes(p, jax.random.uniform(each, p.shape), estimator)
        scores += jnp.sum(found.log_probability)
        x = memory(found.values)
    loss = squared_error(params, found.values, target)
    return score_loss(loss, scores, baseline)


def flat(tree: Any) -> jax.Array:
    """Return all numbers of a tree in a row."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@functools.partial(jax.jit, static_argnames="estimator")
def probe(params, x, target, estimator: str):
    """Return bias and spread of an estimator, over the length of the exact gradient."""
    baseline, gradient = jax.value_and_grad(expected_loss)(params, x, target)
    one = lambda key: flat(jax.grad(drawn_loss)(params, x, target, key, estimator, baseline))
    draws = jax.lax.map(one, jax.random.split(jax.random.key(1), DRAWS), batch_size=1000)
    exact = flat(gradient)
    length = jnp.linalg.norm(exact)
    bias = jnp.linalg.norm(jnp.mean(draws, axis=0) - exact)
    return bias / length, jnp.sqrt(jnp.sum(jnp.var(draws, axis=0))) / length


@functools.partial(jax.jit, static_argnames="estimator")
def trained(params, x, target, estimator: str):
    """Return the exact expected loss after training by an estimator."""

    def update(params, key):
        baseline = expected_loss(params, x, target) if estimator == "reinforce" else 0.0
        gradient = jax.grad(drawn_loss)(params, x, target, key, estimator, baseline)
        return jax.tree.map(lambda p, g: p - RATE * g, params, gradient), None

    params, _ = jax.lax.scan(update, params, jax.random.split(jax.random.key(2), UPDATES))
    return expected_loss(params, x, target)


def measure() -> dict[str, Any]:
    """Return the record."""
    given = [initial(seed) for seed in SEEDS]
    rows = {}
    for name in ESTIMATORS:
        if name in LEFT_OUT:
            continue
        found = [(*probe(*one, name), trained(*one, name)) for one in given]
        keys = ("bias", "spread", "trained")
        rows[name] = {key: list(map(float, values)) for key, values in zip(keys, zip(*found))}
    versions = {name: importlib.metadata.version(name) for name in ("jax", "numpy")}
    return {
        "about": "a small network, all spikes enumerated",
        "draws": DRAWS, "updates": UPDATES, "rate": RATE, "hardware": hardware(),
        "start": [float(expected_loss(*one)) for one in given], "versions": versions,
        "commit": source_commit(), "rows": rows,
    }


def page(record: dict[str, Any]) -> str:
    """Write the record as Markdown."""
    ranged = lambda values: (
        f"{statistics.fmean(values):.3g} ({min(values):.2g} to {max(values):.2g})"
    )
    error = lambda values: statistics.stdev(values) / len(values) ** 0.5
    rows = [
        (f"`{name}`", ranged(row["bias"]), ranged(row["spread"]),
         f"{statistics.fmean(row['trained']):.3f} ± {error(row['trained']):.3f}")
        for name, row in sorted(
            record["rows"].items(), key=lambda item: statistics.fmean(item[1]["bias"])
        )
    ]
    notes = NOTES.format(
        draws=record["draws"], seeds=len(record["start"]), updates=record["updates"],
        rate=record["rate"], start=statistics.fmean(record["start"]),
    )
    text = table(("estimator", "bias", "spread of a draw", "after training"), *rows)
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"# Estimators of gradients through spikes\n\n{text}\n\n"
        f"![Bias and spread of each estimator](estimators.png)\n\n{notes}\n"
        f"By `python -m experiments.estimators` at commit {record['commit']}, on "
        f"{record['hardware']['cores']} cores of {record['hardware']['processor']}; {versions}.\n"
    )


def draw(record: dict[str, Any]) -> "Figure":
    """Plot bias against spread, a point for each estimator."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    axes = figure.subplots()
    mean = lambda row, key: statistics.fmean(row[key])
    rows = sorted(record["rows"].items(), key=lambda item: mean(item[1], "bias"))
    for i, (name, row) in enumerate(rows):
        place, left = (mean(row, "spread"), mean(row, "bias")), i % 2 == 1
        axes.plot(*place, "osD^v"[i // len(PALETTE) % 5], color=PALETTE[i % len(PALETTE)])
        axes.annotate(
            name, place, (-7 if left else 7, 0), textcoords="offset points", fontsize=9,
            va="center", ha="right" if left else "left",
        )
    axes.set(yscale="log", xlabel="spread of a draw", ylabel="bias", xlim=(-0.5, None))
    axes.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS], minor=False)
    axes.set_yticks([], minor=True)
    axes.set_title("over the length of the exact gradient", loc="left", fontsize=9)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the record, its page and its picture."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.estimators", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--record", type=pathlib.Path, default=RECORD)
    parser.add_argument("--page", action="store_true", help="write page and picture alone")
    asked = parser.parse_args(arguments)
    record = json.loads(asked.record.read_text()) if asked.page else measure()
    atomic_write(asked.record, json.dumps(record, indent=1) + "\n")
    atomic_write(asked.record.with_suffix(".md"), page(record))
    save_figure(draw(record), asked.record.with_suffix(".png"))


if __name__ == "__main__":
    main()
