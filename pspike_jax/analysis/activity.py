"""How much a spiking model fires: counts from `aux`, traces from captured arrays.

A model returns aux = {"sites": {site: counts}, "losses": {name: value}, "macs": {part: value}}.
Counts are {"spikes", "probability", "steps", "neurons", "fan_out", "neuron_spikes", "surrogate"},
sums over the valid steps of one batch, stacked over layers; macs are the multiply-accumulates of
the batch. Sums of several batches add up. With capture=True each site also holds "spike_array" and
"probability_array" (layers, B, L, H), and, where a threshold decides, "drive_array", the membrane
less the threshold; the functions here that take such arrays take the lengths with them and leave
padding out. NumPy in, NumPy out, in float64.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

Sites = Mapping[str, Mapping[str, np.ndarray]]
Aux = Mapping[str, Mapping[str, Any]]

SUMS = ("spikes", "probability", "steps", "neuron_spikes", "surrogate")
SIZES = ("neurons", "fan_out")
SCALARS = ("losses", "macs")


class Activity(NamedTuple):
    """Shares that describe one site, each (layers,) in [0, 1].

    Attributes:
      firing_rate: spikes per neuron and valid step.
      probability: mean spike probability; the firing rate's expectation.
      dead: share of neurons that never fired.
      saturated: share of neurons that fired at every valid step.
      surrogate: share of elements with a non-zero surrogate derivative.
    """

    firing_rate: np.ndarray
    probability: np.ndarray
    dead: np.ndarray
    saturated: np.ndarray
    surrogate: np.ndarray


def merge_aux(parts: Iterable[Aux]) -> dict[str, dict[str, Any]]:
    """Add the counts of several batches, one after another; captured arrays are left out.

    Args:
      parts: the aux of each batch, of one model; none is kept.

    Returns:
      One aux: float64 sums, and the sizes ("neurons", "fan_out") as they were.

    Raises:
      ValueError: the parts are of different models.
    """
    total: dict[str, dict[str, Any]] = {"sites": {}, "losses": {}, "macs": {}}
    for number, part in enumerate(parts):
        counts = {
            site: {name: np.asarray(fields[name], np.float64) for name in SUMS + SIZES}
            for site, fields in part["sites"].items()
        }
        values = {
            kind: {name: float(value) for name, value in part.get(kind, {}).items()}
            for kind in SCALARS
        }
        if number == 0:
            total = {"sites": counts} | values
            continue
        for kind, found in ({"sites": counts} | values).items():
            if found.keys() != total[kind].keys():
                raise ValueError(f"{kind} {sorted(found)} do not match {sorted(total[kind])}")
        for kind in SCALARS:
            total[kind] = {name: value + values[kind][name] for name, value in total[kind].items()}
        for site, fields in counts.items():
            _add(site, total["sites"][site], fields)
    return total


def _add(site: str, total: dict[str, np.ndarray], fields: Mapping[str, np.ndarray]) -> None:
    """Add the counts of one site to what there is."""
    for name in SIZES:
        if not np.array_equal(fields[name], total[name]):
            raise ValueError(f"{name} of site {site!r} is {fields[name]}, before {total[name]}")
    total |= {name: total[name] + fields[name] for name in SUMS}


def summarize(sites: Sites) -> dict[str, Activity]:
    """Turn counts into shares, site by site.

    Args:
      sites: aux["sites"] of one batch, or of several through `merge_aux`.

    Returns:
      {site: Activity}, empty for a model without spikes.
    """
    return {site: _site_activity(site, fields) for site, fields in sites.items()}


def _site_activity(site: str, fields: Mapping[str, np.ndarray]) -> Activity:
    counts = {name: np.asarray(fields[name], np.float64) for name in SUMS + SIZES}
    steps = counts["steps"]
    if np.any(steps <= 0):
        raise ValueError(f"site {site!r} counts {steps} valid steps, expected at least 1 per layer")
    elements = steps * counts["neurons"]
    neuron_rate = counts["neuron_spikes"] / steps[:, None]  # (layers, H)
    return Activity(
        firing_rate=counts["spikes"] / elements,
        probability=counts["probability"] / elements,
        dead=np.mean(neuron_rate == 0, axis=-1),
        saturated=np.mean(neuron_rate == 1, axis=-1),
        surrogate=counts["surrogate"] / elements,
    )


def valid_steps(lengths: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Mark the steps that are not padding.

    Args:
      lengths: (B,) integers in [1, L], or None for no padding.
      shape: (B, L).

    Returns:
      (B, L) bool.
    """
    if lengths is None:
        return np.ones(shape, bool)
    lengths = np.asarray(lengths)
    if lengths.shape != shape[:-1]:
        raise ValueError(f"lengths have shape {lengths.shape}, expected {shape[:-1]}")
    if np.any((lengths < 1) | (lengths > shape[-1])):
        raise ValueError(f"lengths {lengths} are not all between 1 and {shape[-1]}")
    return np.arange(shape[-1]) < lengths[..., None]


def active_ratio(spikes: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Share of a layer's neurons that fire at step t, averaged over the examples valid there.

    Bal & Sengupta 2024, Fig. 1c.

    Args:
      spikes: (layers, B, L, H) in {0, 1}.
      lengths: (B,) integers in [1, L], or None for no padding.

    Returns:
      (layers, L) in [0, 1]; NaN at steps past the longest example.
    """
    spikes = _captured(spikes)
    mask = valid_steps(lengths, spikes.shape[1:3])
    examples = mask.sum(axis=0)  # (L,)
    share = np.einsum("nbl,bl->nl", spikes.mean(axis=-1, dtype=np.float64), mask)
    return np.where(examples > 0, share / np.maximum(examples, 1), np.nan)


def valid_values(array: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Flatten what is not padding, layer by layer.

    Args:
      array: (layers, B, L, H), spikes or probabilities.
      lengths: (B,) integers in [1, L], or None for no padding.

    Returns:
      (layers, valid steps x H).
    """
    array = _captured(array)
    mask = valid_steps(lengths, array.shape[1:3])
    return array[:, mask].reshape(len(array), -1)


def neuron_trace(
    spikes: np.ndarray,
    probability: np.ndarray,
    *,
    layer: int,
    example: int,
    neuron: int,
    lengths: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One neuron over time, padding cut off (Bal & Sengupta 2024, Fig. 1b).

    Args:
      spikes: (layers, B, L, H) in {0, 1}.
      probability: (layers, B, L, H) in [0, 1].
      layer: index in [0, layers).
      example: index in [0, B).
      neuron: index in [0, H).
      lengths: (B,) integers in [1, L], or None for no padding.

    Returns:
      Its spikes and its spike probabilities, each (length of the example,).
    """
    spikes, probability = _captured(spikes), _captured(probability)
    valid = valid_steps(lengths, spikes.shape[1:3])[example]
    return spikes[layer, example, valid, neuron], probability[layer, example, valid, neuron]


def probability_density(values: np.ndarray, grid: np.ndarray, bandwidth: float) -> np.ndarray:
    """Estimate a density on [0, 1] with the exponential kernel.

    f(x) = 1 / (2 n h) sum_i [e(x - v_i) + e(x + v_i) + e(x - (2 - v_i))], e(d) = exp(-|d| / h).
    The last two terms reflect the kernel at 0 and 1, so that f integrates to 1 on [0, 1] (up to
    exp(-1 / h)) although most probabilities sit at 0. One pass over the sorted values.

    Args:
      values: (n,) in [0, 1].
      grid: (m,) in [0, 1], where the density is wanted.
      bandwidth: h, in [0.005, 0.2]; beyond it exp(1 / h) or a second reflection would matter.

    Returns:
      (m,) density.
    """
    if not 0.005 <= bandwidth <= 0.2:
        raise ValueError(f"bandwidth is {bandwidth}, expected a number in [0.005, 0.2]")
    values = np.sort(np.asarray(values, np.float64).ravel())
    if not values.size or values[0] < 0 or not values[-1] <= 1:
        raise ValueError("values must be at least one number, and all in [0, 1]")
    grid = np.asarray(grid, np.float64)
    rising = np.concatenate([[0.0], np.cumsum(np.exp(values / bandwidth))])
    falling = np.concatenate([[0.0], np.cumsum(np.exp(-values[::-1] / bandwidth))])[::-1]
    split = np.searchsorted(values, grid, side="right")
    below = np.exp(-grid / bandwidth) * (rising[split] + falling[0])
    above = np.exp(grid / bandwidth) * falling[split]
    mirrored = np.exp((grid - 2) / bandwidth) * rising[-1]
    return (below + above + mirrored) / (2 * bandwidth * values.size)


def _captured(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim != 4:
        raise ValueError(f"captured array has shape {array.shape}, expected (layers, B, L, H)")
    return array
