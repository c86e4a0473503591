"""Time and memory of a SiLIF training step against the plain scan.

  python -m benchmarks.neurons

The published network of SHD (140 inputs, two layers of 512, softmax-sum readout, batch norm) at
250 steps, batch 32, with dropout 0 and the published 0.25. `plain` is what a good first version
does: product and norm of whole sequences, `lax.scan` over a step, autodiff, `jax.random.bernoulli`
for dropout. Without dropout all contenders have to give one loss and one gradient before any is
timed; with it they draw other masks. `layer` is one layer's unroll alone, forward and backward,
with several steps in an iteration of the compiled loop. Neurons in parallel are timed by
benchmarks/reset_neurons.py.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import pspike_jax
from benchmarks import timing, train_step
from pspike_jax.analysis.canvas import GREY, PALETTE, WIDTH
from pspike_jax.functional import neurons

INPUTS, CLASSES, NEURON = 140, 20, neurons.SiLIF()
# Relative to each array's peak: float32 sums over 8,000 terms in another order. A spike that
# flipped would show at 1e-3.
TOLERANCE = 1e-4
MOST_PARTED = 1e-3  # of 16,384 runs of 250 steps
SCAN_UNROLLS = (1, 2, 4, 8)


def batch_norm(x, norm):
    """Normalize x (L, B, H) by its own statistics, step by step as the formula says."""
    mean = jnp.mean(x, axis=(0, 1), keepdims=True)
    var = jnp.mean(jnp.square(x - mean), axis=(0, 1), keepdims=True)
    scale, bias = norm["scale"][None, None], norm["bias"][None, None]
    return (x - mean) * jax.lax.rsqrt(var + 1e-5) * scale + bias


def plain_logits(params, inputs, key, *, dropout, scan_unroll):
    """Run the network from the model's parameters by scans over steps, for autodiff."""
    hidden, readout = (params["backbone"][f"layers_{i}"] for i in range(2)), params["head"]
    x = jnp.swapaxes(inputs, 0, 1)
    for layer_key, layer in zip(jax.random.split(key), hidden):
        current = batch_norm(x @ layer["input"]["kernel"], layer["input"]["norm"])
        coefficients = NEURON.coefficients(layer["neurons"]["neuron"])

        def step(state, current, coefficients=coefficients):
            state = neurons.step(NEURON, coefficients, state, current)
            return state, state.spikes

        state = neurons.initial_state(NEURON, *current.shape[1:])
        _, x = jax.lax.scan(step, state, current, unroll=scan_unroll)
        if dropout:
            keep = jax.random.bernoulli(layer_key, 1 - dropout, x.shape)
            x = jnp.where(keep, x / (1 - dropout), 0)
    current = batch_norm(x @ readout["input"]["kernel"], readout["input"]["norm"])
    alpha = readout["alpha"][None]

    def leak(u, current):
        u = alpha * u + (1 - alpha) * current
        return u, jax.nn.softmax(u)

    return jnp.sum(jax.lax.scan(leak, jnp.zeros(current.shape[1:]), current)[1], axis=0)


def model_logits(params, inputs, key, *, width, dropout):
    """Run the network of the zoo, in training."""
    model = make_model(width, dropout=dropout)
    (logits, _), _ = model.apply(
        {"params": params}, inputs, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
    )
    return logits


def make_model(width, **fields):
    """Return the network of the zoo."""
    return pspike_jax.create_model("silif", num_outputs=CLASSES, widths=(width, width), **fields)


def training_steps(length, width, batch, dropout):
    """Check and time the contenders' training steps."""
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.random((batch, length, INPUTS)) < 0.1, jnp.float32)
    labels = jnp.asarray(rng.integers(0, CLASSES, batch))
    params = nn.meta.unbox(
        jax.jit(make_model(width).init)(jax.random.key(0), inputs[:1])
    )["params"]
    plain = functools.partial(plain_logits, dropout=dropout)
    contenders = {
        "plain": functools.partial(plain, scan_unroll=1),
        "plain, unroll 4": functools.partial(plain, scan_unroll=4),
        "pspike_jax": functools.partial(model_logits, width=width, dropout=dropout),
    }
    given = (params, inputs, labels)
    differences = None
    if not dropout:
        differences = train_step.check(contenders, *given, jax.random.key(1), TOLERANCE)
    setting = {"program": "training step", "L": length, "H": width, "batch": batch}
    return timing.measure(
        train_step.compiled(contenders, *given),
        setting=setting | {"dropout": dropout}, differences=differences, budget_s=60,
    )


def layer(length, width, batch):
    """Check and time one layer's unroll, forward and backward, by steps per iteration."""
    rng = np.random.default_rng(0)
    currents = jnp.asarray(3 * rng.normal(size=(length, batch, width)), jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=currents.shape), jnp.float32)
    params = NEURON.init(jax.random.key(0), width)
    state = neurons.initial_state(NEURON, batch, width)

    def gradient(scan_unroll, params, currents, cotangent):
        def loss(params, currents):
            spikes, _, _ = neurons.unroll(
                NEURON, NEURON.coefficients(params), currents, state, scan_unroll=scan_unroll
            )
            return jnp.sum(spikes * cotangent)

        return jax.grad(loss, argnums=(0, 1))(params, currents)

    programs = [
        timing.compile_program(
            f"unroll {n}", functools.partial(gradient, n), params, currents, cotangent
        )
        for n in SCAN_UNROLLS
    ]
    setting = {"program": "layer", "L": length, "H": width, "batch": batch}
    reference, *others = (np.asarray(p.run()[1]) for p in programs)
    peak = np.max(np.abs(reference))
    differences = {}
    for program, currents_bar in zip(programs[1:], others):
        # A membrane within rounding of its threshold gives two spikes, and neurons that reset
        # never forget it: what is held is the share of the neurons' runs that part at all.
        parted = np.any(np.abs(currents_bar - reference) > TOLERANCE * peak, axis=0)
        differences[program.name] = share = float(np.mean(parted))
        if not share <= MOST_PARTED:
            raise ValueError(f"{program.name} parts from {programs[0].name} in {share:.2%} of runs")
    return timing.measure(programs, setting=setting, differences=differences)


def measure(quick: bool) -> list[timing.Record]:
    """Time training steps and a layer's unroll."""
    shape = (12, 4, 2) if quick else (250, 512, 32)
    steps = [r for dropout in (0.0, 0.25) for r in training_steps(*shape, dropout)]
    return steps + layer(*shape)


def draw(records: Sequence[timing.Record]):
    """Plot times and temporary memory as bars."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    left, right = fig.subplots(1, 2, sharey=True)
    shown = timing.select(records, program="training step", dropout=0.25)
    colours = [PALETTE[0] if r["contender"] == "pspike_jax" else GREY for r in shown]
    timing.bars(left, shown, colours)
    left.set_title("Training step (ms)", loc="left")
    right.barh(
        [r["contender"] for r in shown], [r["temp_bytes"] / 1e6 for r in shown], color=colours
    )
    right.bar_label(right.containers[-1], fmt="{:,.0f}", padding=3)
    right.margins(x=0.22)
    right.set_title("Temporary memory (MB)", loc="left")
    right.spines[["top", "right"]].set_visible(False)
    return fig


if __name__ == "__main__":
    timing.main("neurons", measure, draw)
