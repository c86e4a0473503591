"""Count where modes of execution disagree about a spike, and how narrowly.

  python -m benchmarks.ties

One key is one noise, but engines round a drive differently: where it lies within rounding of its
uniform, a tie, one mode may fire and another not, and what follows from that spike differs, too.
Each mode is compared with the parallel pass by the chunked engine. A disagreement is a tie if no
spike that its drive depends on, of an earlier site at the same step or before, differs. At a tie
the uniform lies between the two probabilities, so that their difference bounds |p - u|. More than
1e-5 is an error; that bound was measured on a CPU.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import pspike_jax
from benchmarks import timing

WIDEST = 1e-5
SITES = ("input", "output")
NAMES = ("spike_array", "probability_array")
Pass = dict[str, np.ndarray]  # {name: (2 layers, B, L, H)}, sites in the order of use


def ties(first: Pass, second: Pass) -> dict[str, Any]:
    """Compare the spikes of two passes of a causal model.

    Args:
      first: "spike_array" and "probability_array", (sites, B, L, H) each, sites in order of use.
      second: of the same examples under the same key.

    Returns:
      draws compared; disagreements; ties, those that follow from no other; the widest difference
      of probabilities at one (0 without any).
    """
    differ = first["spike_array"] != second["spike_array"]
    anywhere = differ.any(axis=-1)  # (sites, B, L)
    # Whether an earlier site differs at this step or one before.
    upstream = np.logical_or.accumulate(np.logical_or.accumulate(anywhere, axis=0), axis=2)
    upstream = np.concatenate([np.zeros_like(upstream[:1]), upstream[:-1]])
    roots = differ & ~upstream[..., None]
    gaps = np.abs(first["probability_array"] - second["probability_array"])[roots]
    return {
        "draws": differ.size,
        "disagreements": int(differ.sum()),
        "ties": int(roots.sum()),
        "widest": float(np.max(gaps, initial=0.0)),
    }


def stacked(aux: Any) -> Pass:
    """Return the arrays of a pass with layers and sites on one axis, in order of use."""
    arrays = {name: [np.asarray(aux["sites"][site][name]) for site in SITES] for name in NAMES}
    return {
        name: np.stack(of_sites, axis=1).reshape(-1, *of_sites[0].shape[1:])
        for name, of_sites in arrays.items()
    }


class Runner:
    """A model's programs, compiled once: whole sequences and chunks."""

    def __init__(self, model, variables, batch):
        self.model, self.variables = model, variables
        self.ids = jnp.arange(batch)
        how = {"capture": True, "example_ids": self.ids}

        def whole(variables, x, key):
            return model.apply(variables, x, rngs={"spikes": key}, **how)[1]

        def chunk(variables, state, x, key):
            state, (_, aux) = model.apply(
                variables, state, x, rngs={"spikes": key}, method="prefill", **how
            )
            return state, aux

        self._whole, self._chunk = jax.jit(whole), jax.jit(chunk)

    def whole(self, x: jax.Array, key: jax.Array) -> Pass:
        """Run the parallel pass."""
        return stacked(self._whole(self.variables, x, key))

    def chunks(self, x: jax.Array, key: jax.Array, length: int) -> Pass:
        """Run chunks one after another."""
        state, passes = self.model.initial_state(len(x)), []
        for start in range(0, x.shape[1], length):
            part = x[:, start : start + length]
            state, aux = self._chunk(self.variables, state, part, key)
            passes.append(stacked(aux))
        return {name: np.concatenate([p[name] for p in passes], axis=2) for name in NAMES}


def modes(quick: bool) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield name and counts of each mode, over some keys."""
    sizes = {"d_model": 8, "d_state": 4} if quick else {"d_model": 128, "d_state": 64}
    batch, length, chunk = (2, 30, 7) if quick else (4, 2048, 100)
    x = jax.random.normal(jax.random.key(1), (batch, length, 1))
    make = functools.partial(pspike_jax.create_model, "pspikessm", n_layers=2, **sizes)
    model = make(engine="chunked")
    init = jax.jit(lambda key, x: nn.meta.unbox(model.init(key, x, noise=0.5)))
    variables = init(jax.random.key(2), x[:1])
    keys = jax.random.split(jax.random.key(3), 1 if quick else 8)
    runner = Runner(model, variables, batch)
    expected = [runner.whole(x, key) for key in keys]
    half = Runner(model, variables, batch // 2)
    rerun = {
        "again": runner.whole,
        "half of the batch": lambda x, key: half.whole(x[: batch // 2], key),
        f"chunks of {chunk}": lambda x, key: runner.chunks(x, key, chunk),
        "step by step": lambda x, key: runner.chunks(x, key, 1),
    }
    for engine in ("fft", "sequential", "associative"):
        rerun[f"engine {engine}"] = Runner(make(engine=engine), variables, batch).whole
    for name, run in rerun.items():
        counts = []
        for key, reference in zip(keys, expected):
            other = run(x, key)
            rows = other["spike_array"].shape[1]
            counts.append(ties({k: v[:, :rows] for k, v in reference.items()}, other))
        summed = ("draws", "disagreements", "ties")
        total = {field: sum(count[field] for count in counts) for field in summed}
        yield name, total | {"widest": max(count["widest"] for count in counts)}


def measure(quick: bool) -> list[dict[str, Any]]:
    """Return the counts of all modes.

    Raises:
      ValueError: modes disagree where it is no tie, or running again gives other spikes.
    """
    records = [{"mode": name} | counts for name, counts in modes(quick)]
    for record in records:
        if record["widest"] > WIDEST or (record["mode"] == "again" and record["disagreements"]):
            raise ValueError(f"expected nothing but ties of at most {WIDEST}, got {record}")
    return records


def table(records: Sequence[dict[str, Any]]) -> str:
    """Return the counts as lines of text."""
    lines = [f"{'mode':20}{'draws':>12}{'disagree':>10}{'ties':>6}{'ties per draw':>15}  widest"]
    lines += [
        f"{r['mode']:20}{r['draws']:12,}{r['disagreements']:10,}{r['ties']:6}"
        f"{r['ties'] / r['draws']:15.1e}  {r['widest']:.1e}"
        for r in records
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    timing.main("ties", measure, tabulate=table)
