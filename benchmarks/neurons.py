"""Time and memory of a SiLIF training step against the plain scan.

  python -m benchmarks.neurons --output=DIR

The published network of SHD (140 inputs, two layers of 512, softmax-sum readout, batch norm) at
250 steps, batch 32. `plain` is what a good first version does: product and norm of whole
sequences, `lax.scan` over a step, autodiff, `jax.random.bernoulli` for dropout. Without dropout all
contenders have to give one loss and one gradient before any is timed; with it, the published 0.25,
they draw other masks. Contenders take turns in every round, and ratios are of one round, so that
what else a machine does strikes all alike. DIR gets neurons.jsonl and neurons.png.
"""

import functools
import json
import pathlib
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

import pspike_jax
from pspike_jax.functional import neurons

OUTPUT = flags.DEFINE_string("output", None, "Folder for record and picture.", required=True)
ROUNDS = flags.DEFINE_integer("rounds", 15, "Timed rounds.", 1)
LENGTH = flags.DEFINE_integer("length", 250, "L, steps of a sequence.", 1)
WIDTH = flags.DEFINE_integer("width", 512, "H, neurons of a hidden layer.", 1)
BATCH, INPUTS, CLASSES = 32, 140, 20
OPTIMIZER = optax.adam(1e-3)


def batch_norm(x, norm):
    """Normalize x (L, B, H) by its own statistics, step by step as the formula says."""
    mean = jnp.mean(x, axis=(0, 1), keepdims=True)
    var = jnp.mean(jnp.square(x - mean), axis=(0, 1), keepdims=True)
    scale, bias = norm["scale"][None, None], norm["bias"][None, None]
    return (x - mean) * jax.lax.rsqrt(var + 1e-5) * scale + bias


def plain_logits(params, inputs, key, *, dropout, scan_unroll):
    """Run the network from the model's parameters by scans over steps, for autodiff."""
    *hidden, readout = (params[name] for name in ("layers_0", "layers_1", "integrator"))
    neuron = neurons.SiLIF()
    x = jnp.swapaxes(inputs, 0, 1)
    for layer_key, layer in zip(jax.random.split(key, len(hidden)), hidden):
        current = batch_norm(x @ layer["input"]["kernel"], layer["input"]["norm"])
        coefficients = neuron.coefficients(layer["neuron"])

        def step(state, current, coefficients=coefficients):
            state = neurons.step(neuron, coefficients, state, current)
            return state, state.spikes

        state = neurons.initial_state(neuron, *current.shape[1:])
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


def model_logits(params, inputs, key, *, dropout, section):
    """Run the network of the zoo, in training."""
    model = make_model(dropout, section)
    (logits, _), _ = model.apply(
        {"params": params}, inputs, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
    )
    return logits


def make_model(dropout, section=None):
    """Return the network of the zoo."""
    widths = (WIDTH.value, WIDTH.value)
    return pspike_jax.create_model(
        "silif", num_classes=CLASSES, widths=widths, dropout=dropout, section=section
    )


def contenders(dropout):
    """Return {name: logits function}."""
    root = neurons.default_section(LENGTH.value)
    table = {
        "plain": functools.partial(plain_logits, scan_unroll=1),
        "plain, unroll 4": functools.partial(plain_logits, scan_unroll=4),
        f"model, sections of {root}": functools.partial(model_logits, section=None),
        "model, one section": functools.partial(model_logits, section=LENGTH.value),
    }
    return {name: functools.partial(logits, dropout=dropout) for name, logits in table.items()}


def make_step(logits):
    """Return a training step: loss, gradient, Adam."""

    def step(params, opt_state, inputs, labels, key):
        def loss(params):
            scores = jax.nn.log_softmax(logits(params, inputs, key))
            return -jnp.mean(scores[jnp.arange(len(labels)), labels])

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = OPTIMIZER.update(gradient, opt_state)
        return optax.apply_updates(params, updates), opt_state, value, gradient

    return step


def check_agreement(results):
    """Raise where losses or gradients of the contenders differ by more than rounding."""
    reference = next(iter(results.values()))
    for name, result in results.items():
        for got, expected in zip(jax.tree.leaves(result), jax.tree.leaves(reference), strict=True):
            # Sums over 8,000 terms in another order; a spike that flipped would show at 1e-3.
            np.testing.assert_allclose(
                got, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=name
            )


def measure(dropout):
    """Compile, check and time the contenders; return a record of each."""
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.random((BATCH, LENGTH.value, INPUTS)) < 0.1, jnp.float32)
    labels = jnp.asarray(rng.integers(0, CLASSES, BATCH))
    params = jax.jit(make_model(dropout).init)(jax.random.key(0), inputs[:1])["params"]
    arguments = (params, OPTIMIZER.init(params), inputs, labels, jax.random.key(1))
    programs, records = {}, {}
    for name, logits in contenders(dropout).items():
        start = time.perf_counter()
        programs[name] = jax.jit(make_step(logits)).lower(*arguments).compile()
        records[name] = {
            "contender": name,
            "dropout": dropout,
            "compile_s": time.perf_counter() - start,
            "temp_mib": programs[name].memory_analysis().temp_size_in_bytes / 2**20,
        }
    results = {name: program(*arguments)[2:] for name, program in programs.items()}
    if not dropout:
        check_agreement(results)
    times = {name: [] for name in programs}
    for _ in range(ROUNDS.value):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            times[name].append(time.perf_counter() - start)
    for name, record in records.items():
        quartiles = np.percentile(times[name], (25, 50, 75))
        record["run_ms"] = dict(zip(("q1", "median", "q3"), (1e3 * quartiles).tolist()))
        ratios = np.asarray(times["plain"]) / np.asarray(times[name])
        record["times_faster_than_plain"] = float(np.median(ratios))
        record["temp_share_of_plain"] = record["temp_mib"] / records["plain"]["temp_mib"]
    return list(records.values())


def draw(records, path):
    """Plot run time and temporary memory of the contenders."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(8.0, 3.2), layout="constrained")
    labels = [f"{r['contender']}\ndropout {r['dropout']}" for r in records]
    panels = {"Run time (ms)": [r["run_ms"]["median"] for r in records],
              "Temporary memory (MiB)": [r["temp_mib"] for r in records]}
    for ax, (title, values) in zip(fig.subplots(1, 2, sharey=True), panels.items()):
        ax.barh(labels, values, color="#0072B2")
        ax.set_title(title, loc="left")
        ax.invert_yaxis()
    fig.savefig(path, dpi=150)


def main(argv):
    """Run the benchmark, print its table, write its record and picture."""
    del argv
    records = [record for dropout in (0.0, 0.25) for record in measure(dropout)]
    setting = {
        "length": LENGTH.value, "width": WIDTH.value, "batch": BATCH, "rounds": ROUNDS.value,
        "device": jax.devices()[0].device_kind, "machine": platform.machine(),
        "jax": jax.__version__,
    }
    folder = pathlib.Path(OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(setting | record) + "\n" for record in records]
    (folder / "neurons.jsonl").write_text("".join(lines))
    draw(records, folder / "neurons.png")
    print(f"{'contender':24} {'dropout':>7} {'compile s':>9} {'run ms':>7} {'MiB':>5}  faster")
    for r in records:
        print(
            f"{r['contender']:24} {r['dropout']:7} {r['compile_s']:9.1f} "
            f"{r['run_ms']['median']:7.0f} {r['temp_mib']:5.0f} "
            f"{r['times_faster_than_plain']:6.2f}x"
        )


if __name__ == "__main__":
    app.run(main)
