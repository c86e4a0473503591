"""The chunked engine: matrix products inside chunks of T steps, a short scan between them.

Let U_k be the inputs of chunk k (steps kT .. kT + T - 1), X_k the causal state before it and Z_k
the anti-causal state behind it. With j the step of an input and i that of an output in the chunk,

    Y_k     = U_k M + Re(X_k (C Lambda^(i+1))_i) + Re(Z_k (C' Lambda^(T-1-i))_i)
    X_{k+1} = Lambda^T X_k + U_k (Lambda^(T-1-j) B)_j
    Z_{k-1} = Lambda^T Z_k + U_k (Lambda^j B)_j
    M[j, i] = K[i - j] for i >= j,  K'[j - i - 1] for i < j.

Everything that grows with L is a batched matrix product per feature; only L / T states are made.
Features come first and chunks second, (H, K, B, ...): the products batch over H, a step of the scan
reads and writes one slice, and inputs and outputs are transposed once each. States are real, the
imaginary parts behind the real ones.

A reset cuts what passes it: which inputs reach the states and the outputs of their own chunk, and
which states reach its outputs, become masks. Inside a chunk the mask differs between examples, so
that M no longer serves all of them in one product; chunks are then shorter, and its terms are
summed one by one.
"""

import functools
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from pspike_jax.functional.chunk_states import advance, scan_chunks
from pspike_jax.functional.cpu import barrier, by_features

_PRECISION = jax.lax.Precision.HIGHEST
LOG2_CHUNK = 6
LOG2_RESET_CHUNK = 4


class ChunkMaps(NamedTuple):
    """What one chunk does to inputs and states; M is the number of real states.

    Attributes:
      within: (H, T, T), from inputs to outputs.
      inject: (H, T, M), from inputs to the causal state behind the chunk.
      read: (H, M, T), from the causal state before the chunk to outputs.
      inject_ahead: (H, T, M), from inputs to the anti-causal state at the chunk's start, or None.
      read_ahead: (H, M, T), from the anti-causal state behind the chunk to outputs, or None.
      transition: (H, M) diagonal complex or (H, M, M) dense, over a whole chunk.
      error: (H, M), what a diagonal transition lost in rounding, or None.
      rest: as `transition`, over the steps of the last chunk.
    """

    within: jax.Array
    inject: jax.Array
    read: jax.Array
    inject_ahead: jax.Array | None
    read_ahead: jax.Array | None
    transition: jax.Array
    error: jax.Array | None
    rest: jax.Array


class Kind(NamedTuple):
    """What the engine needs to know of a kind of system; leaves of a system lead with features.

    Attributes:
      maps: from a system, L and T to the maps of the chunks; T is L or a power of two.
      span: from a system and a number of steps to the transition over them, as in `ChunkMaps`.
    """

    maps: Callable[[Any, int, int], ChunkMaps]
    span: Callable[[Any, int], jax.Array]


Evaluate = Callable[..., tuple[jax.Array, jax.Array]]


def evaluate_whole(
    kind: Kind, u: jax.Array, system: Any, start: jax.Array | None, resets: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Run a system over a sequence that one device holds.

    Args:
      kind: of the system.
      u: (B, L, H) float32.
      system: pytree of arrays (H, ...).
      start: (H, B, M) real, the state before the first step; zero if None.
      resets: (B, L) bool or None.

    Returns:
      y: (B, L, H) float32.
      final_state: (H, B, M) float32.
    """
    length = u.shape[1]
    size = chunk_length(length, resets is not None)

    def run(u, parts, resets):
        system, start = parts
        return run_chunks(u, kind.maps(system, length, size), start, resets)[:2]

    return by_features(run, u, (system, start), resets)


def chunk_length(length: int, resets: bool = False) -> int:
    """Return T: up to two chunks' worth of steps are one chunk, longer sequences have several."""
    if is_symbolic_dim(length):
        raise ValueError(f"the chunked engine needs a number of steps, got {length}")
    log2 = LOG2_RESET_CHUNK if resets else LOG2_CHUNK
    return length if length <= 2 ** (log2 + 1) else 2**log2


def run_chunks(
    u: jax.Array, maps: ChunkMaps, initial_state: jax.Array | None, resets: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Run a sequence through the maps of its chunks.

    Args:
      u: (B, L, H) float32.
      maps: of the chunks.
      initial_state: (H, B, M) real, or None for zero.
      resets: (B, L) bool or None.

    Returns:
      y: (B, L, H) float32.
      final_state: (H, B, M) float32.
      first_ahead: (H, B, M) float32, the anti-causal state at the first step; None where maps are
        one-sided, or resets are given.
    """
    batch, length, features = u.shape
    size, states = maps.inject.shape[1:]
    chunks = -(-length // size)
    inputs = barrier(functools.partial(_to_chunks, chunks=chunks, size=size), u)
    start = initial_state
    if start is None:
        # As the inputs are: inside `shard_map`, and split as they are by explicit axes.
        still = jnp.zeros_like(inputs[:, 0, :, :1])
        start = jnp.broadcast_to(still, (features, batch, states))
    segments = None if resets is None else _segments(resets, chunks, size)

    y = _products_within(inputs, maps.within, segments)
    last, ahead = start, jnp.zeros_like(start)
    if chunks > 1 or initial_state is not None:
        around, last, ahead = _between(inputs, maps, start, segments)
        y += around
    y = barrier(functools.partial(_from_chunks, length=length), y)
    final = _final_state(inputs[:, -1], maps, last, segments, length - (chunks - 1) * size)
    if maps.inject_ahead is None or resets is not None:
        return y, final, None
    first = jnp.einsum("hbj,hjm->hbm", inputs[:, 0], maps.inject_ahead, precision=_PRECISION)
    return y, final, first + advance(maps.transition, ahead)


def chunk_responses(
    maps: ChunkMaps, before: jax.Array, behind: jax.Array | None, length: int
) -> jax.Array:
    """Return what the states around a sequence add to its outputs.

    Args:
      maps: of the chunks.
      before: (H, B, M), the causal state before the first step.
      behind: (H, B, M), the anti-causal state behind the last step; None where maps are one-sided.
      length: L.

    Returns:
      (B, L, H) float32.
    """
    size, states = maps.inject.shape[1:]
    chunks = -(-length // size)
    still = jnp.zeros_like(before)[:, None]
    still = jnp.broadcast_to(still, (before.shape[0], chunks, *before.shape[1:]))
    seen, _ = scan_chunks(False, maps.transition, maps.error, still, before, None)
    readout = maps.read
    if behind is not None:
        # The state stands behind step `rest` of the last chunk, and so before a whole number of
        # steps of the others.
        rest = length - (chunks - 1) * size
        drive = still.at[:, -1].set(advance(maps.rest, behind))
        nothing = jnp.zeros_like(behind)
        ahead, _ = scan_chunks(True, maps.transition, maps.error, drive, nothing, None)
        seen = jnp.concatenate([seen, ahead], axis=-1)
        readout = jnp.concatenate([readout, maps.read_ahead], axis=1)
    y = jnp.einsum("hkbm,hmi->hkbi", seen, readout, precision=_PRECISION)
    if behind is not None:
        nearer = maps.read_ahead[:, :, size - rest :]
        last = jnp.einsum("hbm,hmi->hbi", behind, nearer, precision=_PRECISION)
        y = y.at[:, -1, :, :rest].add(last)
    return _from_chunks(y, length)


def toeplitz(causal: jax.Array, ahead: jax.Array | None = None) -> jax.Array:
    """Return M with M[j, i] = causal[i - j] for i >= j, and ahead[j - i - 1], or 0, for i < j.

    Args:
      causal: (..., T).
      ahead: (..., T), its last entry unused; zeros if None.

    Returns:
      (..., T, T).
    """
    size = causal.shape[-1]
    below = jnp.zeros_like(causal) if ahead is None else ahead[..., ::-1]
    # A row holds lags 0 .. T-1, then -T .. -1. Rows of length 2T, read again as rows of length
    # 2T - 1, each slide one step to the right.
    row = jnp.concatenate([causal, below], axis=-1)
    tiled = jnp.broadcast_to(row[..., None, :], (*row.shape[:-1], size, 2 * size))
    flat = tiled.reshape(*row.shape[:-1], 2 * size * size)[..., : size * (2 * size - 1)]
    return flat.reshape(*row.shape[:-1], size, 2 * size - 1)[..., :size]


def _to_chunks(u, chunks, size):
    """Return (H, K, B, T)."""
    u = jnp.pad(u, ((0, 0), (0, chunks * size - u.shape[1]), (0, 0)))
    return u.reshape(u.shape[0], chunks, size, -1).transpose(3, 1, 0, 2)


def _from_chunks(y, length):
    """Return (B, L, H) from (H, K, B, T)."""
    features, _, batch, _ = y.shape
    return y.transpose(2, 1, 3, 0).reshape(batch, -1, features)[:, :length]


def _segments(resets, chunks, size):
    """Return (K, B, T) int32, the number of resets in the chunk up to and including each step."""
    resets = jnp.pad(resets, ((0, 0), (0, chunks * size - resets.shape[1])))
    counts = jnp.cumsum(resets.reshape(resets.shape[0], chunks, size), axis=-1, dtype=jnp.int32)
    return counts.swapaxes(0, 1)


def _products_within(inputs, within, segments):
    if segments is None:
        return jnp.einsum("hkbj,hji->hkbi", inputs, within, precision=_PRECISION)
    same = segments[..., :, None] == segments[..., None, :]  # (K, B, T, T)
    terms = inputs[..., :, None] * within[:, None, None]
    return jnp.sum(jnp.where(same[None], terms, 0), axis=-2)


def _between(inputs, maps, start, segments):
    """Return what the states around each chunk add to its outputs, and the last states to come.

    The last causal state is the one that enters the last chunk, the last anti-causal one that
    enters the first chunk.
    """
    before = after = keep = None
    if segments is not None:
        # Before the chunk's first reset, and from its last one on.
        before, after = segments == 0, segments == segments[..., -1:]
        keep = (segments[..., -1] == 0).astype(jnp.float32)

    def drive(inject, mask):
        kept = inputs if mask is None else jnp.where(mask[None], inputs, 0)
        return jnp.einsum("hkbj,hjm->hkbm", kept, inject, precision=_PRECISION)

    def read(states, readout, mask):
        y = jnp.einsum("hkbm,hmi->hkbi", states, readout, precision=_PRECISION)
        return y if mask is None else jnp.where(mask[None], y, 0)

    def scan(reverse, drive, start):
        return scan_chunks(reverse, maps.transition, maps.error, drive, start, keep)

    if maps.read_ahead is None:
        states, last = scan(False, drive(maps.inject, after), start)
        return read(states, maps.read, before), last, None
    if segments is None:
        both = drive(jnp.concatenate([maps.inject, maps.inject_ahead], axis=-1), None)
        drives = jnp.split(both, 2, axis=-1)
    else:
        drives = drive(maps.inject, after), drive(maps.inject_ahead, before)
    states, last = scan(False, drives[0], start)
    ahead, first = scan(True, drives[1], jnp.zeros_like(start))
    if segments is not None:
        y = read(states, maps.read, before) + read(ahead, maps.read_ahead, after)
        return y, last, first
    both = jnp.concatenate([states, ahead], axis=-1)
    y = read(both, jnp.concatenate([maps.read, maps.read_ahead], axis=1), None)
    return y, last, first


def _final_state(inputs, maps, last, segments, rest):
    """Return the causal state at step L, (H, B, M).

    Args:
      inputs: (H, B, T) of the last chunk.
      maps: of the chunks.
      last: (H, B, M), the state before the last chunk.
      segments: (K, B, T) or None.
      rest: number of steps in the last chunk.
    """
    inputs = inputs[..., :rest]
    if segments is not None:
        inside = segments[-1, :, :rest]
        inputs = jnp.where(inside == inside[:, -1:], inputs, 0)
        last = jnp.where(inside[:, -1:] == 0, last, 0)
    gained = jnp.einsum("hbj,hjm->hbm", inputs, maps.inject[:, -rest:], precision=_PRECISION)
    return gained + advance(maps.rest, last)
