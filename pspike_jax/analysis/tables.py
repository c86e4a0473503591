"""The table of a run: merit, activity and energy as text."""

from collections.abc import Mapping, Sequence

from pspike_jax.analysis import activity, energy
from pspike_jax.analysis.canvas import number, words
from pspike_jax.analysis.measure import Findings

EVALUATIONS = {
    "sampled": "sampled spikes",
    "mean_field": "mean field",
    "threshold": "threshold 0.5",
}
SCOPE = """\
  Counted: additions that spikes trigger (AC; in the twin a multiply-accumulate, MAC, per step
  and synapse); encoder, head and other products whose inputs are real numbers in both; state
  updates where the line says so (per conjugate pair and step 4 MAC to decay it and 2 to read it
  out).
  Energy = 0.9 pJ x AC + 4.6 pJ x MAC, summed over the lines (45 nm).
  Not counted: memory traffic, normalisation and affine maps, activation functions, pooling,
  residual sums, potentials of neurons that reset, drawing the noise."""


def table(
    findings: Findings, evaluation: Mapping[str, Mapping[str, float]], *, merit: str = "accuracy"
) -> str:
    """Lay out merit, activity and energy as text in aligned columns.

    Args:
      findings: from `measure`.
      evaluation: see `report`.
      merit: name of what is evaluated; accuracies are shown in percent.

    Returns:
      Lines of at most 100 characters.
    """
    parts = [f"Test {words(merit)}", _columns(_merit_rows(evaluation, merit))]
    if findings.operations is None:
        parts += ["", "The model has no spikes, so no activity and no energy to compare."]
        return "\n".join(parts)
    parts += ["", f"Activity on {findings.examples} test examples"]
    parts.append(_columns(_activity_rows(findings.shares)))
    parts += ["", f"Operations and energy per example (mean of {findings.examples})"]
    parts += [_columns(_energy_rows(findings.operations)), SCOPE]
    return "\n".join(parts)


def _merit_rows(
    evaluation: Mapping[str, Mapping[str, float]], merit: str
) -> list[tuple[str, ...]]:
    """Return the rows of the ways to run a model; one that draws no noise has no error of draws."""
    drawn = any(values.get("draws", 1) > 1 for values in evaluation.values())
    parts = {"mean": "mean", "sem": "s.e. of draws", "sem_examples": "s.e. of examples"}
    if not drawn:
        del parts["sem"]
    rows = [("", *parts.values(), *["draws"] * drawn)]
    for name, values in evaluation.items():
        cells = [_cell(values.get(part), merit) for part in parts]
        rows.append((EVALUATIONS.get(name, name), *cells, *[str(values.get("draws", 1))] * drawn))
    return rows


def _cell(value: float | None, merit: str) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if merit.endswith("accuracy") else number(value)


def _activity_rows(shares: Mapping[str, activity.Activity]) -> list[tuple[str, ...]]:
    rows = [("layer, site", "firing rate", "mean p", "dead", "saturated", "surrogate > 0")]
    layers = max(len(values.firing_rate) for values in shares.values())
    for layer in range(layers):
        for site, values in shares.items():
            if layer < len(values.firing_rate):
                percents = (f"{100 * share[layer]:.2f} %" for share in values)
                rows.append((f"{layer + 1}, {site.replace('_', ' ')}", *percents))
    return rows


def _energy_rows(operations: energy.Energy) -> list[tuple[str, ...]]:
    rows = [("", "spiking", "dense twin", "dense / spiking")]
    counts = {
        "synaptic operations": (operations.synaptic_ops, "AC", operations.dense_macs),
        "encoder": (operations.encoder_macs, "MAC", operations.encoder_macs),
        "head": (operations.head_macs, "MAC", operations.head_macs),
        "other real products": (operations.real_macs, "MAC", operations.real_macs),
        "state updates": (operations.state_macs, "MAC", operations.state_macs),
    }
    if not operations.real_macs:
        del counts["other real products"]
    for name, (spiking, unit, dense) in counts.items():
        rows.append((name, f"{spiking:,.0f} {unit}", f"{dense:,.0f} MAC", ""))
    for state_updates in (False, True):
        spiking = operations.spiking(state_updates=state_updates)
        dense = operations.dense(state_updates=state_updates)
        rows.append((
            f"energy {'with' if state_updates else 'without'} state updates",
            f"{spiking / 1e3:,.1f} nJ", f"{dense / 1e3:,.1f} nJ",
            f"{operations.ratio(state_updates=state_updates):.2f}",
        ))
    return rows


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Align the first column left and the others right, indented by two spaces."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = (
        "  ".join(["", row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
