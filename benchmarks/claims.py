"""The numbers that the benchmarks are to reach, and what stands in the way where they do not.

`CLAIMS` is the table of docs/performance.md, which `benchmarks.summary` fills from the records.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import timing
from pspike_jax.functional import explain_engine

# Why a number is missed, by what was measured.
LIMITS = {
    "`auto` against plain fft": (
        "the plain kernel is one matrix product of all powers, on both cores; what is left to save "
        "are the powers and their memory"
    ),
    "`chunked` forward, in matrix products of 2,048": (
        "its products have 2 MFLOP a feature; XLA runs those on one core, the large one on both"
    ),
    "`chunked` against `fft`": "the `fft` engine itself is far ahead of the plain one",
    "training step, `official`: share of the plain time": (
        "two thirds of it are the state spaces' chunks, whose products have 2 MFLOP a feature; XLA "
        "runs those on one core, so that 1.4 of 2 cores are busy, where FFTs keep both so"
    ),
    "training step, `paper`: share of the plain time": (
        "half of the plain step are transforms and dense products that both programs have; the "
        "products run at the peak of both cores already"
    ),
    "S4D layer against discretax": (
        "of a short sequence both are transforms and products of about the same size"
    ),
    "S5 layer against discretax": (
        "scans and products of 32 pairs that all features share are the same work in both"
    ),
    "its temporary memory": (
        "`remat=\"auto\"` keeps what 4 GB hold, which is faster; `block` needs the fewer"
    ),
    "training step, `silif`, against a plain scan": (
        "both scan the same 250 steps, once more backward; what is saved is memory traffic"
    ),
    "P-SpikeSSM against SSM and LIF both stepped (paper: about 4x)": (
        "a third of the step is the dense products of the mixers, which the stepped model has, too"
    ),
    "its compile time": (
        "loops over blocks of features are compiled for the forward pass, again for recomputing, "
        "and backward, for each of two branches"
    ),
}

SELECTIVE = {"part": "contenders"}
LONG = {"batch": 1, "H": 64, "N": 32, "pass": "forward+backward"}
LAYER = {"batch": 8, "H": 128, "N": 32, "L": 2048}
BOTH = {"pass": "forward+backward"}


@dataclasses.dataclass(frozen=True)
class Claim:
    """A number to reach.

    Attributes:
      what: is measured.
      where: the shapes.
      benchmark: whose records it reads.
      value: from those records to the number; KeyError or IndexError where they lack something.
      bound: the number to reach; None where the number is reported only.
      most: whether the bound is the largest value that is good, or the smallest.
      unit: written behind numbers.
    """

    what: str
    where: str
    benchmark: str
    value: Callable[[Sequence[timing.Record]], float]
    bound: float | None
    most: bool = False
    unit: str = "x"

    def reached(self, value: float) -> bool:
        """Whether a value is good."""
        return value <= self.bound if self.most else value >= self.bound


def only(records: Sequence[timing.Record], **values: Any) -> timing.Record:
    """Return the one record that has these values."""
    (found,) = timing.select(records, **values) or [None]
    if found is None:
        raise KeyError(f"no record of {values}")
    return found


def times(one: str, other: str, **setting: Any) -> Callable[[Sequence[timing.Record]], float]:
    """Return a function of records: the time of one contender over that of another."""
    return lambda records: timing.ratio(
        *(only(records, contender=contender, **setting) for contender in (one, other))
    )


def exponent(field: str, **setting: Any) -> Callable[[Sequence[timing.Record]], float]:
    """Return a function of records: the slope of log cost of `chunked` against log length."""

    def value(records):
        rows = timing.select(records, contender="chunked", **setting)
        if len(rows) < 2:
            raise KeyError("too few lengths")
        lengths, costs = ([r[name] for r in rows] for name in ("L", field))
        return float(np.polyfit(np.log(lengths), np.log(costs), 1)[0])

    return value


def field(name: str, scale: float = 1.0, **setting: Any):
    """Return a function of records: a field of one of them."""
    return lambda records: only(records, **setting)[name] * scale


def memory_share(one: str, other: str, **setting: Any):
    """Return a function of records: temporary memory of one contender over that of another."""
    memory = lambda records, name: only(records, contender=name, **setting)["temp_bytes"]
    return lambda records: memory(records, one) / memory(records, other)


def depth(records: Sequence[timing.Record]) -> float:
    """Return the compile time of 12 layers over that of 4."""
    deep, shallow = (only(records, **STEP, layers=n)["compile_s"] for n in (12, 4))
    return deep / shallow


def choices(
    records: Sequence[timing.Record], own: bool
) -> Iterator[tuple[timing.Record, timing.Record]]:
    """Yield the record of `auto`, and that of the engine that it runs, or of each other one."""
    for auto in timing.select(records, contender="auto"):
        setting = {name: auto[name] for name in ("batch", "L", "H", "N", "pass")}
        B, L, H, N, _ = setting.values()
        chosen, _, _ = explain_engine(L, H, N, batch=B, platform="cpu").partition(":")
        for engine in timing.select(records, **setting):
            if engine is not auto and (engine["contender"] == chosen) == own:
                yield auto, engine


def worst_choice(records: Sequence[timing.Record]) -> float:
    """Return by how much `auto` lost to an engine that it does not run, in percent, at worst."""
    return 100 * max(timing.ratio(auto, other) - 1 for auto, other in choices(records, own=False))


def twice(records: Sequence[timing.Record]) -> float:
    """Return by how much `auto` and the engine that it runs differed, in percent, at the worst."""
    pairs = [timing.ratio(auto, engine) for auto, engine in choices(records, own=True)]
    return 100 * max(max(pair, 1 / pair) - 1 for pair in pairs)


def flatness(records: Sequence[timing.Record]) -> float:
    """Return the slowest median latency over the fastest, over all t."""
    medians = [r["median_s"] for r in timing.select(records, model="random")]
    return max(medians) / min(medians)


def slowest(records: Sequence[timing.Record]) -> float:
    """Return the largest median latency over all t, in ms."""
    return 1e3 * max(r["median_s"] for r in timing.select(records, model="random"))


def widest_tie(records: Sequence[dict[str, Any]]) -> float:
    """Return the widest tie of all modes."""
    return max(r["widest"] for r in records)


def ties_per_draw(records: Sequence[dict[str, Any]]) -> float:
    """Return the share of draws that are ties between modes."""
    return sum(r["ties"] for r in records) / sum(r["draws"] for r in records)


def worst_dplr(records: Sequence[timing.Record]) -> float:
    """Return by how much `auto` lost to the faster engine of a shape, in percent, at worst."""
    worst = 0.0
    for auto in timing.select(records, contender="auto"):
        setting = {name: auto[name] for name in ("batch", "L", "H", "N")}
        others = [only(records, **setting, contender=name) for name in ("fft", "chunked")]
        worst = max(worst, *(timing.ratio(auto, other) - 1 for other in others))
    return 100 * worst


def longest_wait(records: Sequence[timing.Record]) -> float:
    """Return the largest share of a step that a config spends waiting for data, in percent."""
    return 100 * max(r["waiting"] for r in records)


PEERS = (
    ("S4D", "discretax", "B 1, H 64, 32 pairs, L 16,384", {"L": 16_384}, 10.8),
    ("S4D", "discretax", "B 8, H 128, 8 pairs, L 2,048", {"L": 2048}, 2.5),
    ("S5", "discretax", "B 1, H 64, 32 pairs, L 16,384", {"L": 16_384}, 3),
    ("S5", "discretax", "B 8, H 128, 8 pairs, L 2,048", {"L": 2048}, 3),
    *(
        (f"LIF as {peer}'s", peer, "512 neurons, T 250, B 32", {}, bound)
        for peer, bound in (("spyx", 2), ("snntorch", None), ("spikingjelly", None))
    ),
)
STEP = {"model": "official", "contender": "pspike_jax"}
EACH_CORE = "pspike_jax, a device a core"
OFFICIAL = {"model": "official", "layers": 4}
PSMNIST = {"model": "psmnist"}
SILIF = {"program": "training step", "dropout": 0.25}
NEURONS = "2 layers of 512, 140 inputs, T 250, B 32"
ONE = "B 1, H 64, N 64"
EIGHT = "B 8, H 128, N 64, L 2,048"
CHANGING = "B 4, 256 channels, 16 states, L 4,096"
TRAIN = "B 8, L 2,048, H 128, N 16, 4 layers"
PAPER = "2 layers, H 400, N 64, L 784, B 16"

CLAIMS = (
    *(
        Claim("`auto` against plain fft", f"{ONE}, L {L:,}", "ssm_engines",
              times("plain fft", "auto", **LONG, L=L), bound)
        for L, bound in ((16_384, 13), (65_536, 15))
    ),
    Claim("`auto` against plain fft", EIGHT, "ssm_engines",
          times("plain fft", "auto", **LAYER, **BOTH), 3),
    Claim("`auto` against plain associative scan", f"{ONE}, L 16,384", "ssm_engines",
          times("plain associative", "auto", **LONG, L=16_384), 40),
    *(
        Claim("`chunked` against `fft`", f"{ONE}, L {L:,}", "ssm_engines",
              times("fft", "chunked", **LONG, L=L), bound)
        for L, bound in ((16_384, 1.5), (65_536, 2))
    ),
    Claim("`auto` behind an engine that it does not run, at worst", "8 shapes, 41 rounds",
          "engine_choice", worst_choice, 10, True, " %"),
    Claim("for comparison: `auto` and the engine that it runs, one program, at worst", "the same",
          "engine_choice", twice, None, unit=" %"),
    Claim("time of `chunked` against L: exponent", f"{ONE}, L 1,024 to 65,536", "ssm_engines",
          exponent("median_s", **LONG), 1.05, True, ""),
    Claim("memory of `chunked` against L: exponent", f"{ONE}, L 1,024 to 65,536", "ssm_engines",
          exponent("temp_bytes", **LONG), 1.05, True, ""),
    Claim("`chunked` forward, in matrix products of 2,048", EIGHT, "ssm_engines",
          times("chunked", "matrix product", **LAYER, **{"pass": "forward"}), 0.12, True, ""),
    *(
        Claim(f"decays that change: `chunked` against plain {name} scan", CHANGING, "gated",
              times(f"plain {name}", "chunked", **SELECTIVE), bound)
        for name, bound in (("associative", 8), ("sequential", None))
    ),
    *(
        Claim(f"temporary memory of {name}", CHANGING, "gated",
              field("temp_bytes", 1e-6, contender=name, **SELECTIVE), None, unit=" MB")
        for name in ("chunked", "plain associative", "plain sequential")
    ),
    Claim("memory that `chunked` adds for a state at a step (an array of all states: 4 bytes)",
          "L 4,096 to 16,384, 16 to 64 states", "gated",
          field("bytes", contender="chunked", **SELECTIVE), 0.4, True, " bytes"),
    Claim("its time against L: exponent", "B 4, 256 channels, 16 states, L 1,024 to 16,384",
          "gated", exponent("median_s", part="lengths"), 1.05, True, ""),
    Claim("training step, `official`: share of the plain time", TRAIN, "train_step",
          times("pspike_jax", "plain", **OFFICIAL), 0.6, True, ""),
    Claim("its temporary memory", TRAIN, "train_step",
          field("temp_bytes", 1e-6, **STEP, layers=4), 250, True, " MB"),
    Claim("the plain one's", TRAIN, "train_step",
          field("temp_bytes", 1e-6, contender="plain", **OFFICIAL), None, unit=" MB"),
    *(
        claim
        for remat in ("none", "block")
        for claim in (
            Claim(f"with `remat=\"{remat}\"`: share of the plain time", TRAIN, "train_step",
                  times(f"remat {remat}", "plain", **OFFICIAL), None, unit=""),
            Claim(f"with `remat=\"{remat}\"`: temporary memory", TRAIN, "train_step",
                  field("temp_bytes", 1e-6, contender=f"remat {remat}", **OFFICIAL), None,
                  unit=" MB"),
        )
    ),
    Claim("with `engine=\"fft\"`: share of the plain time", TRAIN, "train_step",
          times("engine fft", "plain", **OFFICIAL), None, unit=""),
    Claim("on one CPU device a core: share of one device's time", TRAIN, "train_step",
          times(EACH_CORE, "pspike_jax", **OFFICIAL), None, unit=""),
    Claim("its compile time", TRAIN, "train_step",
          field("compile_s", **STEP, layers=4), 6, True, " s"),
    Claim("compile time of 12 layers over 4", TRAIN, "train_step", depth, 1.2, True),
    Claim("training step, `paper`: share of the plain time", PAPER, "train_step",
          times("pspike_jax", "plain", **PSMNIST), 0.6, True, ""),
    Claim("on one CPU device a core: share of one device's time", PAPER, "train_step",
          times(EACH_CORE, "pspike_jax", **PSMNIST), None, unit=""),
    Claim("P-SpikeSSM against LIF behind a parallel SSM", PAPER, "train_step",
          times("lif, parallel SSM", "pspike_jax", **PSMNIST), None),
    Claim("P-SpikeSSM against SSM and LIF both stepped (paper: about 4x)", PAPER, "train_step",
          times("lif, both stepped", "pspike_jax", **PSMNIST), 8),
    Claim("one step of a stream, slowest median", "2 layers, H 128, N 64, B 1", "stream",
          slowest, 1, True, " ms"),
    Claim("its slowest median over its fastest", "t = 1 to 100,000", "stream", flatness, None),
    Claim("training step, `silif`, against a plain scan", NEURONS, "neurons",
          times("plain", "pspike_jax", **SILIF), 2),
    Claim("its temporary memory over the plain one's", NEURONS, "neurons",
          memory_share("pspike_jax", "plain", **SILIF), 0.333, True, ""),
    Claim("keyed noise and spikes against bulk uniforms", "B 8, L 2,048, H 128", "sampling",
          times("plain uniform", "keyed", **BOTH), None),
    Claim("widest tie between modes of execution", "see `benchmarks/ties.py`", "ties",
          widest_tie, 1e-5, True, ""),
    Claim("ties per draw", "the same", "ties", ties_per_draw, None, unit=""),
    *(
        Claim("a batch from an ArrayRecord file over one from a memory map", where, "storage",
              times("array_record", "memory map", data=name), None)
        for name, where in (("psmnist", "psMNIST, batch 64"), ("sc10", "raw speech, batch 16"))
    ),
    Claim("training step, `paper`, with huge pages against pages of 4 KB",
          "2 layers, H 128, N 16, L 784, B 32", "huge_pages",
          lambda records: timing.ratio(records[0], records[1]), None),
    Claim("diagonal plus low rank: `auto` behind the faster engine, at worst",
          "see `benchmarks/dplr_engines.py`", "dplr_engines", worst_dplr, 10, True, " %"),
    *(
        Claim(f"{layer} layer against {peer}", where, "peers",
              times(peer, "pspike_jax", layer=layer, **at), bound)
        for layer, peer, where, at, bound in PEERS
    ),
    Claim("share of a step spent waiting for data, at most",
          "13 configs, see `benchmarks/prefetch.py`", "prefetch", longest_wait, 5, True, " %"),
)
