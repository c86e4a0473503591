"""Run neurons over time: one step, or a whole sequence with a backward pass that remembers little.

Autodiff through a scan keeps several float arrays of the sequence's size. Here the forward pass
keeps one bit a spike, and the state at the start of each section of the sequence. The backward
pass goes through the sections from the last to the first and does in each of them what follows:

  1. run the membranes again, driven by the recorded spikes: no threshold is compared again, so
     that rounding cannot change a spike between the passes;
  2. carry the cotangents of membrane and spikes backward, one step at a time;
  3. pull the cotangents of membranes and drives to the coefficients and currents, all steps of it
     at once.

Sections of about sqrt(L) steps make what is kept beside the bits, and what is recomputed at once,
grow with sqrt(L). Arrays are time-major here, (L, B, H): a step then reads and writes one piece of
memory.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.firing import Firing, fire
from pspike_jax.functional.neurons.neuron import Coefficients, Neuron, NeuronState
from pspike_jax.functional.sampling import pack_bits, unpack_bits


class _Settings(NamedTuple):
    neuron: Neuron
    firing: Firing
    section: int
    scan_unroll: int


def step(
    neuron: Neuron,
    coefficients: Coefficients,
    state: NeuronState,
    current: jax.Array,
    *,
    recurrent: jax.Array | None = None,
    firing: Firing = Firing(),
) -> NeuronState:
    """Advance a layer of neurons by one step.

    Args:
      neuron: the kind of neuron.
      coefficients: arrays (H, ...) from `neuron.coefficients`.
      state: the state before the step, as `initial_state` gives it.
      current: (B, H) float32 input current.
      recurrent: (H, H) matrix V with zero diagonal, or None.
      firing: what the backward pass does.

    Returns:
      The state after the step; its `spikes` are the output.
    """
    membrane, spikes = state
    if recurrent is not None:
        current = current + spikes @ recurrent
    reset = jax.lax.stop_gradient(spikes) if firing.detach_reset else spikes
    rows = tuple(c[None] for c in coefficients)
    membrane = neuron.update(rows, membrane, spikes, reset, current)
    drive = neuron.drive(rows, membrane)
    return NeuronState(membrane, fire(firing.surrogate, neuron.fires_at_zero, drive))


def default_section(length: int) -> int:
    """Choose about sqrt(L) steps a section: a divisor of L if one lies within a factor of two.

    Args:
      length: L, 1 or more.

    Returns:
      Steps per section, between 1 and L.
    """
    root = math.sqrt(length)
    divisors = [n for n in range(1, length + 1) if length % n == 0 and root / 2 <= n <= 2 * root]
    return min(divisors, key=lambda n: abs(n - root), default=math.ceil(root))


def unroll(
    neuron: Neuron,
    coefficients: Coefficients,
    currents: jax.Array,
    state: NeuronState,
    *,
    affine: tuple[jax.Array, jax.Array] | None = None,
    recurrent: jax.Array | None = None,
    firing: Firing = Firing(),
    section: int | None = None,
    scan_unroll: int = 1,
) -> tuple[jax.Array, jax.Array, NeuronState]:
    """Run a layer of neurons over a sequence.

    Args:
      neuron: the kind of neuron.
      coefficients: arrays (H, ...) from `neuron.coefficients`; taken in single precision.
      currents: (L, B, H) input currents, time first; computed in float32.
      state: the state before the first step, as `initial_state` gives it.
      affine: gain and shift, (H,) each, of currents that are to be gain current + shift, or None.
        A batch norm is applied here, so that the normalized currents never lie in memory.
      recurrent: (H, H) matrix V with zero diagonal, or None.
      firing: what the backward pass does.
      section: steps of which the backward pass holds the membranes at a time; None chooses.
      scan_unroll: steps per iteration of the compiled loop. On CPUs more than 1 costs time: XLA
        then fuses, and so repeats, the arithmetic of neighbouring steps.

    Returns:
      spikes: (L, B, H) float32 in {0, 1}.
      active: (L, B) int32, neurons whose surrogate derivative is not zero.
      state: the state after the last step.

    Raises:
      ValueError: the sequence is empty, shapes do not fit, or the section is below 1.
    """
    check_sequence(neuron, currents, state)
    length = currents.shape[0]
    if not isinstance(length, int):  # a symbol of jax.export: one section of all steps
        section = length
    elif section is None:
        section = default_section(length)
    section = min(section, length)
    if section < 1:
        raise ValueError(f"a section must have 1 step or more, got {section}")
    whole = length // section * section
    maps, currents, state = alike(
        jax.tree.map(single, (coefficients, affine, recurrent)), single(currents), state
    )
    run = functools.partial(_run, neuron, firing, scan_unroll, maps)
    spikes, active, state = run(section, currents[:whole], state)
    if whole == length:
        return spikes, active, state
    last_spikes, last_active, state = run(length - whole, currents[whole:], state)
    spikes, active = jnp.concatenate([spikes, last_spikes]), jnp.concatenate([active, last_active])
    return spikes, active, state


def check_sequence(neuron: Neuron, currents: jax.Array, state: NeuronState) -> None:
    """Raise ValueError unless currents are (L, B, H), not empty, and the state fits them."""
    if currents.ndim != 3 or currents.shape[0] == 0:
        raise ValueError(f"currents must be (L, B, H) with L >= 1, got shape {currents.shape}")
    batch, features = currents.shape[1:]
    rest = jax.eval_shape(lambda: neuron.zero_membrane(batch, features))
    expected = [part.shape for part in jax.tree.leaves(rest)] + [(batch, features)]
    shapes = [part.shape for part in jax.tree.leaves(state)]
    if shapes != expected:
        raise ValueError(f"state has shapes {shapes}; expected {expected}")


def single(array: jax.Array) -> jax.Array:
    """Return the array in single precision, real or complex."""
    return array.astype(jnp.complex64 if jnp.iscomplexobj(array) else jnp.float32)


def alike(*trees: Any) -> Any:
    """Let every array vary over all mesh axes over which one of them does.

    In `jax.shard_map` a loop's carry must vary over the same axes before and after a step, and a
    state of zeros varies over none. Outside nothing happens: both branches are the same array.
    """
    leaves = jax.tree.leaves(trees)
    flags = [jnp.isnan(leaf).ravel()[:1] for leaf in leaves]
    mark = functools.reduce(jnp.logical_or, flags)
    spread = lambda leaf: jnp.where(jax.lax.broadcast_to_rank(mark, leaf.ndim), leaf, leaf)
    return jax.tree.map(spread, trees)


# Traced once for each shape, wherever it is used.
@functools.partial(jax.jit, static_argnames=("neuron", "firing", "scan_unroll", "section"))
def _run(neuron, firing, scan_unroll, maps, section, currents, state):
    return _sections(_Settings(neuron, firing, section, scan_unroll), maps, currents, state)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sections(settings, maps, currents, state):
    """Run a whole number of sections; maps are (coefficients, affine, recurrent)."""
    return _sections_fwd(settings, maps, currents, state)[0]


def _apply_affine(affine, current):
    if affine is None:
        return current
    gain, shift = (jax.lax.broadcast_to_rank(array, current.ndim) for array in affine)
    return gain * current + shift


def _split(array, section):
    return array.reshape(array.shape[0] // section, section, *array.shape[1:])


def _sections_fwd(settings, maps, currents, state):
    neuron, firing, section, scan_unroll = settings
    coefficients, affine, recurrent = maps
    rows = tuple(c[None] for c in coefficients)

    def one_step(state, current):
        current = _apply_affine(affine, current)
        state = step(neuron, coefficients, state, current, recurrent=recurrent, firing=firing)
        slope = firing.surrogate(neuron.drive(rows, state.membrane), 0.0)
        return state, (state.spikes, jnp.sum(slope != 0, axis=-1, dtype=jnp.int32))

    def one_section(state, currents):
        final, outputs = jax.lax.scan(one_step, state, currents, unroll=scan_unroll)
        return final, (state, outputs)

    final, (starts, (spikes, active)) = jax.lax.scan(one_section, state, _split(currents, section))
    spikes, active = spikes.reshape(currents.shape), active.reshape(currents.shape[:2])
    bits = pack_bits(spikes != 0)
    return (spikes, active, final), (maps, currents, bits, starts)


def _sections_bwd(settings, residuals, cotangents):
    maps, currents, bits, starts = residuals
    spikes_bar, _, final_bar = cotangents

    section = settings.section
    count = currents.shape[0] // section

    def one_section(number, carry):
        state_bar, maps_bar, bars = carry
        first = (count - 1 - number) * section
        inputs = (
            jax.lax.dynamic_slice_in_dim(array, first, section) for array in (currents, bits, bars)
        )
        start = jax.tree.map(lambda array: array[count - 1 - number], starts)
        state_bar, current_bar, shares = _section_bwd(settings, maps, state_bar, start, *inputs)
        # The cotangents of the spikes give way, section by section, to those of the currents.
        bars = jax.lax.dynamic_update_slice_in_dim(bars, current_bar, first, 0)
        return state_bar, jax.tree.map(jnp.add, maps_bar, shares), bars

    zeros = jax.tree.map(jnp.zeros_like, maps)
    state_bar, maps_bar, currents_bar = jax.lax.fori_loop(
        0, count, one_section, (final_bar, zeros, spikes_bar)
    )
    return maps_bar, currents_bar, state_bar


def _section_bwd(settings, maps, state_bar, start, currents, bits, spikes_bar):
    """Return cotangents of the section's start, its currents, and the maps."""
    neuron, firing, _, scan_unroll = settings
    coefficients, affine, recurrent = maps
    rows = tuple(c[None] for c in coefficients)
    spikes = unpack_bits(bits, currents.shape).astype(jnp.float32)
    before = jnp.concatenate([start.spikes[None], spikes[:-1]])
    feedback = 0.0 if recurrent is None else before @ recurrent

    def again(membrane, inputs):
        previous, current = inputs
        after = neuron.update(rows, membrane, previous, previous, current)
        return after, (membrane, after)

    arriving = _apply_affine(affine, currents) + feedback
    _, (old, new) = jax.lax.scan(again, start.membrane, (before, arriving), unroll=scan_unroll)
    slopes = firing.surrogate(jax.vmap(neuron.drive, (None, 0))(rows, new), 0.0)

    def back(after_bar, inputs):
        output_bar, slope, old, new, previous, current = inputs
        drive_bar = slope * (after_bar.spikes + output_bar)
        _, pull_drive = jax.vjp(functools.partial(neuron.drive, rows), new)
        new_bar = jax.tree.map(jnp.add, after_bar.membrane, *pull_drive(drive_bar))
        _, pull = jax.vjp(functools.partial(neuron.update, rows), old, previous, previous, current)
        old_bar, previous_bar, reset_bar, current_bar = pull(new_bar)
        if not firing.detach_reset:
            previous_bar = previous_bar + reset_bar
        if recurrent is not None:
            previous_bar = previous_bar + current_bar @ recurrent.T
        return NeuronState(old_bar, previous_bar), (new_bar, drive_bar)

    inputs = (spikes_bar, slopes, old, new, before, arriving)
    state_bar, bars = jax.lax.scan(back, state_bar, inputs, reverse=True, unroll=scan_unroll)

    def all_steps(coefficients, affine, currents, recurrent):
        rows = tuple(c[None] for c in coefficients)
        currents = _apply_affine(affine, currents)
        if recurrent is not None:
            currents = currents + before @ recurrent
        update = functools.partial(neuron.update, rows)
        return jax.vmap(update)(old, before, before, currents), jax.vmap(
            functools.partial(neuron.drive, rows)
        )(new)

    _, pull = jax.vjp(all_steps, coefficients, affine, currents, recurrent)
    coefficients_bar, affine_bar, currents_bar, recurrent_bar = pull(bars)
    return state_bar, currents_bar, (coefficients_bar, affine_bar, recurrent_bar)


_sections.defvjp(_sections_fwd, _sections_bwd)
