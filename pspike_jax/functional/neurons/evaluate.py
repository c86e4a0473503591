"""One door to neurons that reset, for layers: scanned step by step, or exactly in parallel.

The backward pass of the parallel way is parallel too. Given the spikes, membranes are linear, and
so are their cotangents lambda, from the end to the start:

  lambda_t = decay_{t+1} lambda_{t+1} + g_t slope_t (spike_bar_t + e_{t+1} lambda_{t+1}),

g the derivative of the drive by the membrane, slope the surrogate's, e that of the next membrane
by the spike: zero where the reset is detached.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.firing import Firing
from pspike_jax.functional.neurons.neuron import Coefficients, Neuron, NeuronState
from pspike_jax.functional.neurons.parallel import Effort, check_effort, solve
from pspike_jax.functional.neurons.separate import Rows, in_time, membranes, with_previous
from pspike_jax.functional.neurons.unroll import alike, check_sequence, single, unroll
from pspike_jax.functional.recurrence import linear_recurrence
from pspike_jax.functional.sampling import pack_bits, unpack_bits

EVALUATIONS = ("auto", "scan", "parallel")


class Evaluated(NamedTuple):
    """What `evaluate` returns.

    Attributes:
      spikes: (B, L, H) float32 in {0, 1}.
      active: (B, L) int32, neurons whose surrogate derivative is not zero.
      state: after the last step; in parallel its membrane equals the scan's but for rounding.
      open_share: () share of the B H rows that were scanned; 1 by scan.
      rounds: () int32, rounds of the parallel way; 0 by scan.
      ties: () float32, drives within rounding of 0, where `Effort.keep_ties` may part from the
        scan; 0 by scan.
    """

    spikes: jax.Array
    active: jax.Array
    state: NeuronState
    open_share: jax.Array
    rounds: jax.Array
    ties: jax.Array


def choose_evaluation(evaluation: str, neuron: Neuron) -> str:
    """Return "scan" or "parallel", what "auto" stands for among them.

    "auto" scans: on CPUs the scan was faster at every length that was measured
    (benchmarks/reset_neurons.py), and on accelerators nothing was measured yet.

    Raises:
      ValueError: an unknown name, or "parallel" for a neuron that has no parallel form.
    """
    if evaluation not in EVALUATIONS:
        raise ValueError(f"evaluation is {evaluation!r}; expected {', '.join(EVALUATIONS)}")
    if evaluation == "parallel" and (neuron.reset is None or neuron.recurrent):
        raise ValueError(
            f"{type(neuron).__name__} has no parallel form{' with recurrence' * neuron.recurrent};"
            " evaluation must be 'scan' or 'auto'"
        )
    return "scan" if evaluation == "auto" else evaluation


def evaluate(
    neuron: Neuron,
    coefficients: Coefficients,
    currents: jax.Array,
    state: NeuronState,
    *,
    affine: tuple[jax.Array, jax.Array] | None = None,
    recurrent: jax.Array | None = None,
    firing: Firing = Firing(),
    evaluation: str = "auto",
    effort: Effort = Effort(),
    section: int | None = None,
) -> Evaluated:
    """Run a layer of neurons over sequences, batch first.

    Args:
      neuron: the kind of neuron.
      coefficients: arrays (H,) or (1,) from `neuron.coefficients`.
      currents: (B, L, H), computed in float32.
      state: before the first step, as `initial_state` gives it.
      affine: gain and shift (H,) of currents that are to be gain current + shift, or None.
      recurrent: (H, H) matrix V with zero diagonal, or None; needs the scan.
      firing: what the backward pass does.
      evaluation: "scan", "parallel", or "auto", see `choose_evaluation`.
      effort: how far the parallel way goes before rows are scanned.
      section: steps that the scan's backward pass recomputes at a time, see `unroll`.

    Returns:
      Spikes, final state, and what it took.

    Raises:
      ValueError: shapes or settings do not fit, or there is no parallel form.
    """
    evaluation = choose_evaluation(evaluation, neuron)
    check_effort(effort)
    if evaluation == "scan":
        spikes, active, state = unroll(
            neuron, coefficients, jnp.swapaxes(currents, 0, 1), state,
            affine=affine, recurrent=recurrent, firing=firing, section=section,
        )
        numbers = jnp.float32(1), jnp.int32(0), jnp.float32(0)
        return Evaluated(jnp.swapaxes(spikes, 0, 1), active.T, state, *numbers)
    if recurrent is not None:
        raise ValueError("a recurrent matrix needs evaluation='scan'")
    currents = single(currents)
    if affine is not None:
        gain, shift = (single(array)[None, None] for array in affine)
        currents = gain * currents + shift
    check_sequence(neuron, jnp.swapaxes(currents, 0, 1), state)
    given = alike(tuple(single(c) for c in coefficients), currents, state)
    return Evaluated(*_parallel((neuron, firing, effort), *given))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _parallel(settings, coefficients, currents, state):
    return _parallel_fwd(settings, coefficients, currents, state)[0]


def _parallel_fwd(settings, coefficients, currents, state):
    neuron, firing, effort = settings
    found = solve(neuron, coefficients, currents, state, effort)
    rows = Rows(coefficients, currents, state)
    u = membranes(neuron, rows, found.spikes)
    slopes = firing.surrogate(neuron.drive(in_time(coefficients), u), 0.0)
    active = jnp.sum(slopes != 0, axis=-1, dtype=jnp.int32)
    final = NeuronState(tuple(part[:, -1] for part in u), found.spikes[:, -1])
    outputs = (found.spikes, active, final, found.open_share, found.rounds, found.ties)
    return outputs, (coefficients, currents, state, pack_bits(found.spikes != 0))


def _parallel_bwd(settings, residuals, cotangents):
    neuron, firing, _ = settings
    coefficients, currents, state, bits = residuals
    spikes_bar, _, final_bar, *_ = cotangents
    spikes = unpack_bits(bits, currents.shape).astype(jnp.float32)
    before = with_previous(spikes, state.spikes)
    new = membranes(neuron, Rows(coefficients, currents, state), spikes)
    old = tuple(with_previous(u, start) for u, start in zip(new, state.membrane))

    def update(coefficients, membrane, spikes, reset, currents):
        return neuron.update(in_time(coefficients), membrane, spikes, reset, currents)

    def drive_of(coefficients, membrane):
        return neuron.drive(in_time(coefficients), membrane)

    drive, pull_drive = jax.vjp(drive_of, coefficients, new)
    slopes = firing.surrogate(drive, 0.0)
    gains = pull_drive(jnp.ones_like(drive))[1]
    # Variables do not mix between spikes: one tangent of ones finds every variable's own decay.
    ones = jnp.ones_like(currents)
    decays = _tangent(lambda u: update(coefficients, u, before, before, currents), old, ones)
    felt = [_tangent(lambda s: update(coefficients, old, s, before, currents), before, ones)]
    if not firing.detach_reset:
        by_reset = lambda s: update(coefficients, old, before, s, currents)
        felt.append(_tangent(by_reset, before, ones))
    felt = tuple(sum(parts) for parts in zip(*felt))

    spikes_bar = spikes_bar.at[:, -1].add(final_bar.spikes)
    new_bar = _cotangents(gains, slopes, decays, felt, spikes_bar, final_bar.membrane)
    later = sum(e * bar for e, bar in zip(felt, new_bar))
    # A spike is felt one step later.
    heard = jnp.concatenate([later[:, 1:], jnp.zeros_like(later[:, :1])], axis=1)
    drive_bar = slopes * (spikes_bar + heard)
    _, pull = jax.vjp(update, coefficients, old, before, before, currents)
    coefficients_bar, old_bar, *_, currents_bar = pull(new_bar)
    by_drive, _ = pull_drive(drive_bar)
    coefficients_bar = jax.tree.map(jnp.add, coefficients_bar, by_drive)
    start_bar = NeuronState(tuple(bar[:, 0] for bar in old_bar), later[:, 0])
    return coefficients_bar, currents_bar, start_bar


def _tangent(function, at, ones):
    """Return the derivatives along ones of elementwise functions of `at`."""
    tangents = jax.tree.map(lambda _: ones, at)
    return jax.jvp(function, (at,), (tangents,))[1]


def _cotangents(gains, slopes, decays, felt, spikes_bar, final_bar):
    """Return the cotangents of the membrane variables at every step, by recurrences from the end.

    Args:
      gains: of each variable, d drive / d variable.
      slopes: the surrogate's.
      decays: of each variable, what a step leaves of it.
      felt: of each variable, its derivative by the spike of the step before.
      spikes_bar: cotangents of the spikes as outputs.
      final_bar: cotangents of the last membrane variables.

    Returns:
      (B, L, H) for each variable.
    """
    backward = lambda array: jnp.flip(array, axis=1)
    # What goes from step t + 1 to step t; behind the last step there is none.
    later = lambda array: with_previous(backward(array), jnp.zeros_like(array[:, 0]))
    paths = [gain * slopes for gain in gains]
    drawn = [path * spikes_bar for path in paths]
    drawn = [backward(d.at[:, -1].add(bar)) for d, bar in zip(drawn, final_bar)]
    paths = [backward(path) for path in paths]
    decays, felt = [later(d) for d in decays], [later(e) for e in felt]
    if len(decays) == 1:
        found = [linear_recurrence(decays[0] + paths[0] * felt[0], drawn[0])]
    elif len(decays) == 2:
        matrix = [
            [paths[i] * felt[j] + (decays[i] if i == j else 0.0) for j in range(2)]
            for i in range(2)
        ]
        blocks = jnp.stack([jnp.stack(row, axis=-1) for row in matrix], axis=-2)
        pairs = linear_recurrence(blocks, jnp.stack(drawn, axis=-1))
        found = [pairs[..., 0], pairs[..., 1]]
    else:
        raise NotImplementedError("neurons with more than two membrane variables")
    return tuple(backward(bar) for bar in found)


_parallel.defvjp(_parallel_fwd, _parallel_bwd)
