"""What papers claim, and what was measured here: the table of docs/claims.md, from the records.

  python -m experiments.paper_claims

A claim is quoted with its source; what stands under "here" is computed from a record of this
repository, or is "not measured". No figure of a paper is shown as one of ours.
"""

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

from experiments.comparison_statistics import difference, summarize
from experiments.results_page import ROOT, fill
from pspike_jax.analysis.files import atomic_write
from pspike_jax.analysis.spike_plots import NEAR_ZERO

PAGE = ROOT / "docs" / "claims.md"
BENCHMARKS = ROOT / "benchmarks" / "results"
NOT_MEASURED = "not measured"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of a paper.

    Attributes:
      says: the claim.
      source: where it is made.
      record: what it is measured by: a file below the root.
      measured: from what the record holds to what was found; KeyError, IndexError or
        StatisticsError where it lacks something.
      limits: how the comparison differs from the paper's.
    """

    says: str
    source: str
    record: str
    measured: Callable[[Any], str]
    limits: str


def read(path: pathlib.Path) -> Any:
    """Return a record; of a benchmark, its lines without the first, which tells of the machine."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return json.loads(path.read_text())


def one(records: list[dict[str, Any]], **values: Any) -> dict[str, Any]:
    """Return the first record that has these values."""
    return [r for r in records if all(r.get(name) == value for name, value in values.items())][0]


def times(records: list[dict[str, Any]], slow: str, fast: str, **where: Any) -> float:
    """Return how many times faster a contender was: by the median over rounds."""
    found = [one(records, contender=name, **where)["rounds_s"] for name in (slow, fast)]
    return statistics.median(a / b for a, b in zip(*found, strict=True))


def against_lif(records):
    """Compare training steps of P-SpikeSSM and of LIF neurons in its place."""
    stepped, parallel = (
        times(records, name, "pspike_jax", model="psmnist")
        for name in ("lif, both stepped", "lif, parallel SSM")
    )
    return (
        f"{stepped:.1f} times against LIF neurons and state spaces stepped together, "
        f"{parallel:.2f} against LIF neurons behind a state space in parallel"
    )


def accuracy(record):
    """Return what drawn spikes reach on the test set."""
    found = record["over_seeds"]["sampled"]
    return f"{100 * found['mean']:.1f} ± {100 * found['sem']:.1f} %"


def energy(record):
    """Return the ratios of energies of a trained model and its dense twin."""
    found = record["runs"][0]["report"]["energy"]
    without, with_states = (
        found[f"{way}_state_updates"]["ratio"] for way in ("without", "with")
    )
    return f"{without:.1f} times less without the updates of states, {with_states:.2f} with them"


def probabilities(record):
    """Return the range over layers and sites of the share of probabilities near zero."""
    sites = record["runs"][0]["report"]["near_zero"].values()
    shares = [share for site in sites for share in site]
    return f"{min(shares):.0%} to {max(shares):.0%} below {NEAR_ZERO} by layer and site"


def of_resets(*contenders: str, **where: Any) -> Callable[[Any], str]:
    """Return what compares ways to run neurons that reset with the scan, at two lengths."""

    def measured(records):
        parts = []
        for length in (1024, 8192):
            for name in contenders:
                found = one(records, contender=name, L=length, **where)
                ratio = times(records, "scan", name, L=length, **where)
                word, factor = ("faster", ratio) if ratio > 1 else ("slower", 1 / ratio)
                part = f"{name} {factor:.0f} times {word} than the scan at L {length:,}"
                if name == "parallel":
                    passes = f"{found['rounds']} rounds of {found['depth']} dependent passes in all"
                    part += f", in {passes}"
                parts.append(part)
        return "; ".join(parts)

    return measured


def between(first: str, second: str) -> Callable[[Any], str]:
    """Return what compares two rows of the comparison on each data set that both were run on."""

    def measured(record):
        parts = []
        models = record["models"]
        for task in models[first]["tasks"]:
            pair = [summarize(models[name]["tasks"].get(task, {"seeds": {}})) for name in
                    (first, second)]
            if None in pair:
                continue
            gap = difference(*pair)
            stands = "stands" if gap.stands else "does not stand"
            parts.append(
                f"{task.replace('_', ' ')}: {100 * gap.mean:+.1f} ± {100 * gap.error:.1f} points "
                f"({100 * pair[0].accuracy:.1f} and {100 * pair[1].accuracy:.1f} %), which {stands}"
            )
        if not parts:
            raise KeyError(second)
        return "; ".join(parts)

    return measured


def active_share(record):
    """Return SeqBoat's active share and accuracies."""
    rows = record["rows"]
    mean = lambda way: statistics.fmean(
        row["accuracy"] for name, row in rows.items() if name.startswith(way)
    )
    shares = [row["firing_rates"]["router"] for name, row in rows.items() if "learnt" in name]
    layers = ", ".join(f"{statistics.fmean(layer):.0%}" for layer in zip(*shares, strict=True))
    ways = ("learnt", "always", "never")
    accuracies = ", ".join(f"{way} {100 * mean(way):.1f} %" for way in ways)
    return f"active share by layer {layers}; accuracy attending as {accuracies}"


def latent_dynamics(record):
    """Return how much of the rates LangevinFlow and its control explain."""
    rows, parts = record["rows"], []
    variants = {"langevin": "with dynamics", "control": "GRU alone",
                "early": "GRU alone, stopped at a quarter of the updates"}
    for name, words in variants.items():
        values = [row["r2"] for key, row in rows.items() if key.rpartition("_")[0] == name]
        parts.append(f"{words} {statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}")
    return "R² of held-out rates: " + ", ".join(parts) + f", over {len(values)} seeds"


_RESETS = "benchmarks/results/reset_neurons.jsonl"
_COMPARISON = "experiments/results/comparison.json"
_CPU = "two cores of a CPU"
CLAIMS = (
    Claim("P-SpikeSSM trains about 4 times faster than LIF neurons (1.5 and 6.1 minutes)",
          "arXiv 2406.02923, psMNIST", "benchmarks/results/train_step.jsonl", against_lif,
          f"{_CPU}, 2 layers, H 400, N 64, L 784, B 16; the paper's device is not known"),
    *(
        Claim("more than 70 times less energy than the dense twin", "arXiv 2406.02923",
              f"experiments/results/{name}.json", energy, words)
        for name, words in (
            ("quickstart", "counted as the paper counts, and with the updates of states, which it "
             "leaves out; digits of 64 steps, not its data"),
            ("psmnist_pspikessm", "the same, on psMNIST with 128 neurons a layer"),
        )
    ),
    Claim("about 90 % of probabilities are near zero", "arXiv 2406.02923, ListOps",
          "experiments/results/psmnist_pspikessm.json", probabilities,
          "psMNIST, 128 neurons a layer; the 10 test examples that a report keeps whole"),
    Claim("an SDN is 7.5, 15, 40 and 101 times faster than BPTT at L 1,024 to 8,192",
          "arXiv 2408.14909", _RESETS,
          of_resets("sdn", reset="hard", leak=0.125, currents="normal"),
          f"{_CPU}, one layer forward, against a compiled scan, not a loop in Python"),
    Claim("exact parallel evaluation is 25.6 and 81.7 times faster at L 1,024 and 8,192; 99 % of "
          "spikes are settled in 3 rounds", "arXiv 2410.17268", _RESETS,
          of_resets("parallel", reset="refractory", leak=0.125, currents="normal"),
          f"{_CPU}, which gains nothing from less depth; a reconstruction, no program exists"),
    Claim("the same at a leak of 0.9, of which the paper does not speak", "arXiv 2410.17268",
          _RESETS, of_resets("parallel", reset="soft", leak=0.9, currents="normal"),
          "slow leaks need many rounds"),
    Claim("SiLIF is more accurate than AdLIF at equal size", "arXiv 2506.06374", _COMPARISON,
          between("silif", "adlif"), "small sets and short runs, not the paper's"),
    Claim("D-LinOSS learns faster than LinOSS and is more accurate", "arXiv 2505.12171",
          _COMPARISON, between("dlinoss", "linoss"),
          "accuracy after equally few updates; small sets"),
    Claim("SeqBoat attends at few steps and loses nothing", "arXiv 2306.11197",
          "experiments/results/families/seqboat.json", active_share,
          "ListOps of at most 200 tokens, 700 updates: little is learnt by any"),
    Claim("LangevinFlow explains rates better than networks without its dynamics",
          "arXiv 2507.11531", "experiments/results/families/langevinflow.json", latent_dynamics,
          "Lorenz spike trains made here; no script for such data was published"),
    Claim("P-SpikeSSM reaches 98.4 % on psMNIST", "arXiv 2406.02923",
          "experiments/results/psmnist_pspikessm.json", accuracy,
          "128 neurons and 8 passes for 400 and 200; the published size needs an accelerator"),
    Claim("P-SpikeSSM reaches 55.7 % on ListOps", "arXiv 2406.02923v1",
          "experiments/results/listops_cpu.json", accuracy,
          "lists of up to 500 tokens for 2,000, a small model and 3 passes"),
)


def measured(claim: Claim) -> str:
    """Return what was found, or that nothing was."""
    path = ROOT / claim.record
    if not path.is_file():
        return NOT_MEASURED
    try:
        return f"{claim.measured(read(path))} ([record](../{claim.record}))"
    except (KeyError, IndexError, statistics.StatisticsError):
        return NOT_MEASURED


def content() -> str:
    """Return the table."""
    head = "| claim | source | here | conditions and limits |\n| --- | --- | --- | --- |\n"
    lines = (
        f"| {claim.says} | {claim.source} | {measured(claim)} | {claim.limits} |"
        for claim in CLAIMS
    )
    return head + "\n".join(lines) + "\n"


if __name__ == "__main__":
    atomic_write(PAGE, fill(PAGE.read_text(), "claims", content()))
