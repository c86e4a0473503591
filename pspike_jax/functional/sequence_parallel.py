"""Time across devices: each runs its part of the sequence, and states hop from part to part.

A part of l steps maps the state before it to the state behind it,

    x -> Lambda_bar^l x + b,

where b is what the part's own inputs leave, from a zero state. Every device knows Lambda_bar, so b
alone travels, the size of a state whatever l is. With b of device i - 1 as the first guess of the
state before part i, the states come from a parallel prefix of ceil(log2(devices)) rounds,

    x_i <- x_i + Lambda_bar^(l 2^k) x_{i - 2^k},    k = 0, 1, ...

Anti-causal states take the same way from the end. Each part is run from zero states, and what the
states around it, once they are known, add to its outputs comes on top.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import broadcast_to_rank

from pspike_jax.functional.chunk_states import advance
from pspike_jax.functional.chunked import Kind, chunk_length, chunk_responses, run_chunks
from pspike_jax.functional.diagonal_chunked import chunked_ssm
from pspike_jax.functional.dplr_chunked import RealSystem, chunked_dplr
from pspike_jax.functional.cpu import by_features
from pspike_jax.functional.engine import Engine
from pspike_jax.functional.linear_ssm import check_ssm
from pspike_jax.functional.multi_input import Blocks, Diagonal, multi_input_ssm


def sequence_parallel_ssm(
    u: jax.Array,
    Lambda_bar: jax.Array,
    B_bar: jax.Array,
    C: jax.Array,
    D: jax.Array | None = None,
    *,
    axis_name: str,
    initial_state: jax.Array | None = None,
    reverse: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Run a diagonal SSM over a sequence whose steps are split over a mesh axis; see `linear_ssm`.

    For use inside `jax.shard_map(..., check_vma=False)`, over at least this axis. Each device runs
    its part with the chunked engine; what it sends does not grow with L.

    Args:
      u: (..., l, H) real, this device's part of the steps; the same l on each.
      Lambda_bar, B_bar, C, D: as in `linear_ssm`, the same on each device of the axis.
      axis_name: of the mesh axis that splits time, parts in its order.
      initial_state: (..., H, N) complex, the state before the whole sequence, the same on each
        device; zero if None.
      reverse: run from the last step to the first, as on a sequence that is turned around.

    Returns:
      y: (..., l, H) float32, this device's part.
      final_state: (..., H, N) complex64, the state after the whole sequence, on each device.

    Raises:
      ValueError: shapes that do not fit.
    """
    Lambda_bar, B_bar, C = (jnp.asarray(a, jnp.complex64) for a in (Lambda_bar, B_bar, C))
    Lambda_bar, B_bar = check_ssm(u, Lambda_bar, B_bar, C, D, initial_state, None)
    if initial_state is not None:
        initial_state = initial_state.astype(jnp.complex64)
    values = u.astype(jnp.float32)
    evaluate = functools.partial(_evaluate_part, axis_name, reverse)
    y, final_state = chunked_ssm(
        values, Lambda_bar, B_bar, C, initial_state, evaluate=evaluate
    )
    if D is not None:
        y = y + broadcast_to_rank(jnp.asarray(D, jnp.float32), u.ndim) * values
    return y, final_state


def sequence_parallel_dplr(
    u: jax.Array,
    system: RealSystem,
    initial_state: jax.Array | None = None,
    *,
    axis_name: str,
    reverse: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Run a system with dense transitions over a sequence whose steps are split over a mesh axis.

    Args:
      u: (B, l, H) real, this device's part of the steps; the same l on each.
      system: as in `chunked_dplr`, the same on each device of the axis.
      initial_state: (B, H, S) float32, the state before the whole sequence; zero if None.
      axis_name: as in `sequence_parallel_ssm`.
      reverse: as in `sequence_parallel_ssm`.

    Returns:
      y: (B, l, H) float32, this device's part.
      final_state: (B, H, S) float32, the state after the whole sequence, on each device.
    """
    evaluate = functools.partial(_evaluate_part, axis_name, reverse)
    return chunked_dplr(u, system, initial_state, evaluate)


def sequence_parallel_multi_input(
    u: jax.Array,
    dynamics: Diagonal | Blocks,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None = None,
    *,
    axis_name: str,
    initial_state: jax.Array | None = None,
    reverse: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Run a state space that all features share over steps that are split over a mesh axis.

    Args:
      u: (B, l, H) real, this device's part of the steps; the same l on each.
      dynamics: the same at each step.
      B, C, D: as in `multi_input_ssm`, the same on each device of the axis.
      axis_name: as in `sequence_parallel_ssm`.
      initial_state: before the whole sequence, as in `multi_input_ssm`.
      reverse: as in `sequence_parallel_ssm`.

    Returns:
      y: (B, l, H) float32, this device's part.
      final_state: after the whole sequence, on each device.
    """
    evaluate = tuple(
        functools.partial(_evaluate_part, axis_name, way) for way in (reverse, not reverse)
    )
    return multi_input_ssm(
        u,
        dynamics,
        B,
        C,
        D,
        initial_state=initial_state,
        engine=Engine.CHUNKED,
        evaluate=evaluate,
    )


def _evaluate_part(
    axis_name: str,
    reverse: bool,
    kind: Kind,
    u: jax.Array,
    system: Any,
    start: jax.Array | None,
    resets: None,
) -> tuple[jax.Array, jax.Array]:
    """Run this device's part of a sequence; as `chunked.evaluate_whole`, which has no axis."""
    devices, length = jax.lax.axis_size(axis_name), u.shape[1]
    u = u[:, ::-1] if reverse else u

    def from_zero(u, system, _):
        y, *gains = run_chunks(u, kind.maps(system, length, chunk_length(length)), None, None)
        return y, gains

    def with_states(y, parts, _):
        system, before, behind = parts
        # With about sqrt(l) chunks of as many steps, their states take hardly any memory.
        maps = kind.maps(system, length, 2 ** (length.bit_length() // 2))
        return y + chunk_responses(maps, before, behind, length), None

    y, (causal, ahead) = by_features(from_zero, u, system, None)
    rounds = (devices - 1).bit_length()
    spans = [kind.span(system, length * 2**k) for k in range(max(1, rounds))]
    before = _carry(causal, start, spans[:rounds], axis_name, reverse)
    behind = None
    if ahead is not None:
        behind = _carry(ahead, None, spans[:rounds], axis_name, not reverse)
    y, _ = by_features(with_states, y, (system, before, behind), None)
    ends_here = jax.lax.axis_index(axis_name) == (0 if reverse else devices - 1)
    last = causal + advance(spans[0], before)
    final = jax.lax.psum(jnp.where(ends_here, last, 0), axis_name)
    return y[:, ::-1] if reverse else y, final


def _carry(
    gain: jax.Array,
    start: jax.Array | None,
    spans: list[jax.Array],
    axis_name: str,
    downward: bool,
) -> jax.Array:
    """Return the state that enters this device's part.

    Args:
      gain: (H, B, M), what this part adds to the state that passes through it.
      start: (H, B, M), the state that enters the first part; zero if None.
      spans: transitions over 1, 2, 4, ... parts, as in `advance`.
      axis_name: of the mesh axis.
      downward: states go from the last device to the first.
    """
    devices = jax.lax.axis_size(axis_name)

    def from_earlier(values, parts):
        """Return what the device that is some parts earlier holds, zero where there is none."""
        pairs = [(i, i + parts) for i in range(devices - parts)]
        if downward:
            pairs = [(receiver, sender) for sender, receiver in pairs]
        return jax.lax.ppermute(values, axis_name, pairs)

    state = from_earlier(gain, 1)
    if start is not None:
        is_first = jax.lax.axis_index(axis_name) == (devices - 1 if downward else 0)
        state = jnp.where(is_first, start, state)
    for k, span in enumerate(spans):
        state += advance(span, from_earlier(state, 2**k))
    return state
