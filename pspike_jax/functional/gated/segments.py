"""Run a recurrence segment by segment of time, and keep one state a segment for the way back.

About sqrt(L) segments of about sqrt(L) steps: the states at their starts are kept, those inside a
segment are computed again when the backward pass reaches it, so memory grows with the square root
of the steps that a state of its own at each step would take.
"""

import functools
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

# Below this many steps a segment costs more in its fixed part than its states take.
LEAST_STEPS = 64

State = jax.Array
Run = Callable[..., tuple[jax.Array, State]]


class Form(NamedTuple):
    """A kind of recurrence, evaluated over one segment; functions of a module, so that they hash.

    Attributes:
      run: maps inputs (leaves (B, S, ...)), a pytree that all steps share, the state before the
        segment, and resets (B, S) or None, to outputs (B, S, ...) and the state behind it.
      pull_back: maps what `run` takes and cotangents of its two results to the cotangents of
        inputs, shared and start.
      pack: from a state whose leading axis is B to the layout of the two.
      unpack: and back.
    """

    run: Run
    pull_back: Callable[..., tuple[Any, Any, State]]
    pack: Callable[[jax.Array], State]
    unpack: Callable[[State], jax.Array]


def segment_steps(length: int) -> int:
    """Return the steps of a segment, a power of two: near 2 sqrt(L), or all where L is small."""
    most = max(LEAST_STEPS, 2 ** ((length - 1).bit_length() // 2 + 1))
    return min(most, 2 ** (length - 1).bit_length())


@functools.partial(jax.jit, static_argnames="form")  # traced once for each shape
def evaluate(
    form: Form, inputs: Any, shared: Any, start: State, resets: jax.Array | None
) -> tuple[jax.Array, State]:
    """Run a form over L steps; steps that fill up the last segment pass the state on unchanged.

    Args:
      form: of the recurrence; inputs of zero must leave its state as it is.
      inputs: pytree of (B, L, ...).
      shared: pytree of what all steps share.
      start: (B, ...), the state before the first step.
      resets: (B, L) bool or None.

    Returns:
      y: (B, L, ...); final_state: (B, ...).
    """
    start = form.pack(start)
    length = jax.tree.leaves(inputs)[0].shape[1]
    size = segment_steps(length)
    missing = -length % size

    def fill(array):
        return jnp.pad(array, [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2))

    if missing:
        inputs = jax.tree.map(fill, inputs)
        resets = None if resets is None else fill(resets)
    y, final = _by_segments(form, size, inputs, shared, start, resets)
    return y[:, :length] if missing else y, form.unpack(final)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_segments(form, size, inputs, shared, start, resets):
    return _forward(form, size, inputs, shared, start, resets)[0]


def _forward(form, size, inputs, shared, start, resets):
    count = jax.tree.leaves(inputs)[0].shape[1] // size
    if count == 1:
        return form.run(inputs, shared, start, resets), start[None]
    first = _segment((inputs, resets), 0, size)
    shape = jax.eval_shape(form.run, first[0], shared, start, first[1])[0]
    empty = jnp.zeros((shape.shape[0], count * size, *shape.shape[2:]), shape.dtype)
    starts = jnp.broadcast_to(start, (count, *start.shape))

    def body(k, carry):
        state, y, starts = carry
        part, cuts = _segment((inputs, resets), k, size)
        starts = jax.lax.dynamic_update_index_in_dim(starts, state, k, 0)
        y_part, state = form.run(part, shared, state, cuts)
        return state, _put(y, y_part, k, size), starts

    final, y, starts = jax.lax.fori_loop(0, count, body, (start, empty + _zero(start), starts))
    return (y, final), starts


def _fwd(form, size, inputs, shared, start, resets):
    results, starts = _forward(form, size, inputs, shared, start, resets)
    return results, (inputs, shared, starts, resets)


def _bwd(form, size, residuals, cotangents):
    inputs, shared, starts, resets = residuals
    y_bar, adjoint = cotangents
    count = starts.shape[0]
    if count == 1:
        bars = form.pull_back(inputs, shared, starts[0], resets, y_bar, adjoint)
        return *bars, None

    def body(i, carry):
        adjoint, inputs_bar, shared_bar = carry
        k = count - 1 - i
        part, cuts = _segment((inputs, resets), k, size)
        part_bar, gained, adjoint = form.pull_back(
            part, shared, starts[k], cuts, _segment(y_bar, k, size), adjoint
        )
        inputs_bar = jax.tree.map(lambda all_, own: _put(all_, own, k, size), inputs_bar, part_bar)
        return adjoint, inputs_bar, jax.tree.map(jnp.add, shared_bar, gained)

    zero = _zero(adjoint)
    empty = jax.tree.map(lambda a: jnp.zeros_like(a) + zero.astype(a.dtype), (inputs, shared))
    adjoint, inputs_bar, shared_bar = jax.lax.fori_loop(0, count, body, (adjoint, *empty))
    return inputs_bar, shared_bar, adjoint, None


_by_segments.defvjp(_fwd, _bwd)


def _segment(tree, k, size):
    def cut(array):
        return jax.lax.dynamic_slice_in_dim(array, k * size, size, axis=1)

    return jax.tree.map(cut, tree)


def _put(array, part, k, size):
    return jax.lax.dynamic_update_slice_in_dim(array, part, k * size, axis=1)


def _zero(array):
    """Return a zero that varies over the mesh as the array does, which a loop's carry must."""
    return (jnp.any(array != array) & False).astype(array.dtype)
