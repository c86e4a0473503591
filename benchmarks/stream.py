"""Latency of single steps of a stream, from its first to its hundred-thousandth.

  python -m benchmarks.stream

`random` is a causal model with starting parameters: 2 layers, H 128, N 64, one example. It reads t
samples in chunks, then one more again and again, at every t by turns, from the state after t
samples, which is a value. `digits` is the quickstart with one causal branch: it is trained for a
minute, then reads test pictures pixel by pixel; what it says after the last pixel has to be what
the parallel pass says. Latencies are those of a caller in Python who waits for each result.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import pspike_jax
from benchmarks import timing
from experiments.configs import quickstart
from pspike_jax.command.experiment import build
from pspike_jax.analysis.canvas import PALETTE, WIDTH
from pspike_jax.training import fit

PREFIX = 500  # steps in which the stream is compared with the parallel pass
CHUNK = 1000
KEY = jax.random.key(0)


def compile_step(model, variables, inputs) -> timing.Program:
    """Compile one step of a stream, (variables, state, x, example_ids) -> (state, logits)."""

    def step(variables, state, x, example_ids):
        state, (logits, _) = model.apply(
            variables, state, x, example_ids=example_ids, rngs={"spikes": KEY}, method="step"
        )
        return state, logits

    arguments = (variables, model.initial_state(1), inputs[:1, 0], jnp.zeros(1, jnp.int32))
    return timing.compile_program("step", step, *arguments)


def record(setting: dict[str, Any], program: timing.Program, seconds: Sequence[float]):
    """Return the record of latencies: quartiles and two high percentiles."""
    p99, p999 = np.round(np.percentile(seconds, (99, 99.9)), 9).tolist()
    kept = timing.quartiles(seconds) | {"compile_s": program.compile_s, "speedup": 1.0}
    kept["rounds_s"] = []
    kept |= {"p99_s": p99, "p999_s": p999, "samples": len(seconds)}
    return setting | {"contender": "step", "temp_bytes": program.temp_bytes} | kept


def wait(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Call, wait for the result; return it and the seconds that both took."""
    start = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    return result, time.perf_counter() - start


def check_prefix(model, variables, program, inputs) -> float:
    """Raise where the streamed logits of a prefix are not those of the parallel pass.

    Returns:
      The largest difference, relative to the largest logit.
    """
    inputs, state = inputs[:, :PREFIX], model.initial_state(1)
    logits = []
    for x in inputs[0]:
        state, scores = program.executable(variables, state, x[None], jnp.zeros(1, jnp.int32))
        logits.append(scores[0])
    whole = model.replace(pool="none").apply(variables, inputs, rngs={"spikes": KEY})[0][0]
    steps = jnp.arange(1, len(whole) + 1)[:, None]
    whole = jnp.cumsum(whole, axis=0) / steps  # the head is affine: mean of scores, score of mean
    difference = float(jnp.max(jnp.abs(jnp.stack(logits) - whole)) / jnp.max(jnp.abs(whole)))
    # Rounding; a spike that a tie flips in one of 500 steps would move a mean by less than 1e-3.
    if not difference <= 1e-3:
        raise ValueError(f"streamed logits differ from the parallel pass by {difference:.2g}")
    return difference


def random_model(quick: bool) -> list[timing.Record]:
    """Time a step after 1 to 100,000 samples."""
    sizes = {"d_model": 8, "d_state": 4} if quick else {"d_model": 128, "d_state": 64}
    model = pspike_jax.create_model("pspikessm", n_layers=2, **sizes)
    ends = (1, 20) if quick else (1, 100, 1000, 10_000, 100_000)
    inputs = jax.random.normal(jax.random.key(1), (1, ends[-1] + 1, 1))
    init = jax.jit(lambda key, x: nn.meta.unbox(model.init(key, x, noise=0.5)))
    variables = init(jax.random.key(2), inputs[:, :8])
    program = compile_step(model, variables, inputs)
    difference = check_prefix(model, variables, program, inputs)
    prefill = jax.jit(
        lambda variables, state, x: model.apply(
            variables, state, x, rngs={"spikes": KEY}, method="prefill"
        )[0]
    )
    state, states, t = model.initial_state(1), {}, 0
    for end in ends:
        while t < end:
            length = min(CHUNK, end - t)
            state = prefill(variables, state, inputs[:, t : t + length])
            t += length
        states[end] = state
    latencies = {end: [] for end in ends}
    for _ in range(20 if quick else 2000):
        for end in ends:
            arguments = (variables, states[end], inputs[:, end], jnp.zeros(1, jnp.int32))
            latencies[end].append(wait(program.executable, *arguments)[1])
    setting = {"model": "random", "difference": difference}
    return [record(setting | {"t": end}, program, latencies[end]) for end in ends]


def digits(quick: bool) -> list[timing.Record]:
    """Train the quickstart with one causal branch, and feed it pictures pixel by pixel."""
    config = quickstart.get_config("smoke" if quick else None)
    config.model.update(bidirectional=False, causal=True)
    if not quick:
        config.training.update(steps=858)  # 22 epochs
    experiment = build(config.to_dict())
    model, test = experiment.model, experiment.task.test
    variables = fit(model, experiment.task, experiment.training, progress=False).variables
    pictures = 3 if quick else len(test.inputs)
    inputs, labels = jnp.asarray(test.inputs[:pictures]), test.labels[:pictures]
    program = compile_step(model, variables, inputs)
    scores, latencies = [], []
    for example, picture in enumerate(inputs):
        state, ids, seconds = model.initial_state(1), jnp.array([example]), []
        for x in picture:
            (state, logits), took = wait(program.executable, variables, state, x[None], ids)
            seconds.append(took)
        scores.append(logits[0])
        latencies.append(seconds)
    whole, _ = jax.jit(model.apply)(variables, inputs, rngs={"spikes": KEY})
    said, expected = np.argmax(np.stack(scores), -1), np.argmax(whole, -1)
    setting = {
        "model": "digits",
        "pictures": pictures,
        "accuracy": float(np.mean(said == labels)),
        "parallel_accuracy": float(np.mean(expected == labels)),
        "equal_answers": float(np.mean(said == expected)),
        "difference": float(np.max(np.abs(np.stack(scores) - whole)) / np.max(np.abs(whole))),
    }
    # A tie may flip a spike, and with it what comes after; of a hundred pictures, less than one.
    if setting["equal_answers"] < 0.98:
        raise ValueError(f"streamed answers differ from the parallel pass: {setting}")
    quarters = np.split(np.asarray(latencies), 4, axis=1)
    return [
        record(setting | {"t": 16 * (quarter + 1)}, program, seconds.ravel())
        for quarter, seconds in enumerate(quarters)
    ]


def measure(quick: bool) -> list[timing.Record]:
    """Measure both streams."""
    return random_model(quick) + digits(quick)


def draw(records: Sequence[timing.Record]):
    """Plot latency against t: median, quartiles, and the 99th percentile."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    for ax, name in zip(fig.subplots(1, 2), ("random", "digits")):
        rows = timing.select(records, model=name)
        t, ms = [r["t"] for r in rows], lambda field: [1e3 * r[field] for r in rows]
        ax.fill_between(t, ms("q1_s"), ms("q3_s"), color=PALETTE[0], alpha=0.2, linewidth=0)
        ax.plot(t, ms("median_s"), "o-", color=PALETTE[0], label="median and quartiles")
        ax.plot(t, ms("p99_s"), "s--", color=PALETTE[1], label="99th percentile")
        if name == "random":
            ax.set_xscale("log")
        ax.set_ylim(bottom=0)
        ax.set_title(f"{name}: one step (ms)", loc="left")
        ax.set_xlabel("t (steps read)")
        ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return fig


if __name__ == "__main__":
    timing.main("stream", measure, draw)
