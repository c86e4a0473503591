"""Neurons that reset, exactly, in a number of parallel steps that does not grow with the sequence.

Given its spikes, a membrane is a linear recurrence, which runs parallel in time. So spikes are
guessed, membranes computed from the guess, spikes read off the membranes, and so on:

  s <- F(s) = 1[drive(membrane given s) > 0],    from silence.

F is causal: each round settles at least one more step, and what F leaves as it is are the spikes.
Under a soft reset or a refractory trace more spikes mean lower membranes, so the guesses enclose
the spikes alternately from below and above. Under a hard reset the recurrence is gated by the
guess, and the rounds are Newton's (Lim et al. 2024, arXiv 2309.12252, on recurrences in general).

Zero-mean currents and fast leaks settle in a few rounds. Where each spike depends on the one
before, as under constant currents, rounds grow with the number of spikes: rows (an example and a
feature) that are open after `rounds` go on by themselves, a hard reset by `passages.hard_spikes`,
whose work does not depend on the currents, a soft one by `bounds.soft_spikes`.

Whatever proposed the spikes, a last pass proves them: F leaves them as they are, and no drive lies
within rounding of 0. A row that is not proven is scanned. So the spikes are those of `unroll`, bit
for bit, wherever the compiler rounds a step at most as often as `_margin` says.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons import bounds, passages
from pspike_jax.functional.neurons.neuron import Neuron, NeuronState
from pspike_jax.functional.neurons.open_rows import on_open_rows
from pspike_jax.functional.neurons.separate import (
    Rows,
    drives,
    fires,
    in_time,
    membranes,
    with_previous,
)
from pspike_jax.functional.neurons.unroll import unroll
from pspike_jax.functional.recurrence import linear_recurrence


class Effort(NamedTuple):
    """How far the rounds may go.

    Attributes:
      rounds: most rounds of all rows.
      more_rounds: most rounds of the rows that are then open, by themselves.
      room: share of all rows that go on, or are scanned, at a time: open rows go in pieces.
      keep_ties: leave alone what lies within rounding of a threshold, in place of scanning its
        row; a spike may then differ there from the scan's, and all that follow it.
    """

    rounds: int = 12
    more_rounds: int = 24
    room: float = 0.25
    keep_ties: bool = False


class Found(NamedTuple):
    """What `solve` finds.

    Attributes:
      spikes: (B, L, H) float32.
      open_share: () share of the B H rows that were scanned.
      rounds: () int32, rounds that all rows or the open ones took.
      ties: () float32, number of drives within rounding of 0.
    """

    spikes: jax.Array
    open_share: jax.Array
    rounds: jax.Array
    ties: jax.Array


def check_effort(effort: Effort) -> None:
    """Raise ValueError unless the numbers can be meant."""
    if effort.rounds < 1 or effort.more_rounds < 0 or not 0 < effort.room <= 1:
        raise ValueError(f"{effort}: expected rounds >= 1, more_rounds >= 0 and room in (0, 1]")


@functools.partial(jax.jit, static_argnames=("neuron", "effort"))  # traced once for each shape
def solve(
    neuron: Neuron,
    coefficients: tuple[jax.Array, ...],
    currents: jax.Array,
    state: NeuronState,
    effort: Effort = Effort(),
) -> Found:
    """Find the spikes of a layer; no gradient passes.

    Args:
      neuron: a kind with `between_spikes`.
      coefficients: arrays (H,) or (1,) from `neuron.coefficients`.
      currents: (B, L, H) float32.
      state: before the first step.
      effort: how far the rounds may go.

    Returns:
      The spikes and what they took.
    """
    features = currents.shape[-1]
    wide = tuple(jnp.broadcast_to(c, (features,)) for c in coefficients)
    rows = Rows(wide, currents, state)
    silent = jnp.zeros(currents.shape, bool) & jnp.isnan(currents)
    spikes, settled, first = iterate(neuron, rows, silent, effort.rounds)
    go_on = functools.partial(_go_on, neuron, effort)
    second = 0 * first
    if effort.more_rounds:
        spikes, second, _ = on_open_rows(go_on, ~settled, effort.room, rows, spikes, second)
    drive, margin = _margin(neuron, rows, spikes)
    proven = jnp.all(fires(neuron, drive) == spikes, axis=1) & ~jnp.any(jnp.isnan(drive), axis=1)
    ties = jnp.sum(jnp.abs(drive) <= margin, axis=1)
    if not effort.keep_ties:
        # Not `ties == 0`: a margin of NaN proves nothing.
        proven &= jnp.all(jnp.abs(drive) > margin, axis=1)
    scan = functools.partial(_scan, neuron)
    spikes, _, share = on_open_rows(
        scan, ~proven, effort.room, rows, spikes.astype(jnp.float32), 0 * first
    )
    return Found(spikes, share, first + second, jnp.sum(ties.astype(jnp.float32)))


def iterate(
    neuron: Neuron, rows: Rows, spikes: jax.Array, rounds: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Repeat s <- F(s) until no row changes, or `rounds` times.

    Args:
      neuron: a kind with `between_spikes`.
      rows: what the neurons are given.
      spikes: (B, L, H) bool, the guess.
      rounds: most rounds.

    Returns:
      The last guess, (B, H) bool where F left it as it was, and the number of rounds.
    """

    def once(carry):
        count, spikes, _ = carry
        found = fires(neuron, drives(neuron, rows, spikes))
        return count + 1, found, jnp.all(found == spikes, axis=1)

    def goes_on(carry):
        count, _, settled = carry
        return (count < rounds) & ~jnp.all(settled)

    unsettled = spikes[:, 0] & ~spikes[:, 0]
    count = jnp.sum(unsettled, dtype=jnp.int32)  # 0, of the data
    count, spikes, settled = jax.lax.while_loop(goes_on, once, (count, spikes, unsettled))
    return spikes, settled, count


def _go_on(neuron, effort, rows, spikes):
    """Find the spikes of the rows that are open; what is returned is proven by none yet."""
    if neuron.reset == "hard":
        # What rounding of long sums gets wrong, more rounds put right.
        spikes = passages.hard_spikes(neuron, rows)
    if neuron.reset == "soft":
        return bounds.soft_spikes(neuron, rows, effort.more_rounds)
    spikes, _, rounds = iterate(neuron, rows, spikes, effort.more_rounds)
    return spikes, rounds


def _scan(neuron, rows, spikes):
    """Scan rows step by step."""
    currents = jnp.swapaxes(rows.currents, 0, 1)
    spikes, _, _ = unroll(neuron, rows.coefficients, currents, rows.state)
    return jnp.swapaxes(spikes, 0, 1), 0


def _margin(neuron, rows, spikes):
    """Return drives, and for each a bound on how far the scan's may lie from it by rounding.

    Both ways to a membrane sum the same inputs b_{t-k}, each times k decays. In units of half an
    eps, and with e_t the sum of all their magnitudes: the recurrence in parallel rounds an input 4
    times, and a path through its tree 6 times a level; the scan rounds 4 times a step, each time a
    number of at most |b_t| + |decay u_{t-1}|, and the decays shrink that as they shrink inputs.
    """
    coefficients = in_time(rows.coefficients)
    before = with_previous(spikes.astype(jnp.float32), rows.state.spikes)
    pairs = neuron.between_spikes(coefficients, before, rows.currents)
    found = membranes(neuron, rows, spikes)
    drive, pull = jax.vjp(functools.partial(neuron.drive, coefficients), found)
    (slopes,) = pull(jnp.ones_like(drive))
    length = drive.shape[1]
    levels = length.bit_length() if isinstance(length, int) else 32
    margin = 2.0 * jnp.abs(drive)
    for slope, (decay, drawn), u, start in zip(slopes, pairs, found, rows.state.membrane):
        decay = jnp.broadcast_to(jnp.abs(decay), drive.shape)
        magnitude = jnp.abs(drawn) + jnp.zeros_like(drive)
        sums = linear_recurrence(decay, magnitude, initial_state=jnp.abs(start))
        step = magnitude + decay * with_previous(jnp.abs(u), jnp.abs(start))
        scanned = linear_recurrence(decay, step)
        bound = (6 * levels + 4) * sums + 4 * scanned + 2 * jnp.abs(u)
        margin = margin + jnp.abs(slope) * bound
    return drive, 0.5 * jnp.finfo(jnp.float32).eps * margin
