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
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.chunk_states import advance, as_reals, scan_chunks
from pspike_jax.functional.feature_blocks import by_features
from pspike_jax.functional.fusion import apart, word_of
from pspike_jax.functional.powers import binary_power_error, power, powers

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


def chunked_ssm(
    u: jax.Array,
    Lambda_bar: jax.Array,
    B_bar: jax.Array,
    C: jax.Array,
    initial_state: jax.Array | None,
    resets: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Evaluate the SSM chunk by chunk; arguments and results as in `linear_ssm`, without D.

    Args:
      u: (..., L, H) real.
      Lambda_bar: (H, N) complex64.
      B_bar: (H, N) complex64.
      C: (H, N) or (2, H, N) complex64.
      initial_state: (..., H, N) complex64 or None.
      resets: (..., L) bool or None.

    Returns:
      y: (..., L, H) float32.
      final_state: (..., H, N) complex64.
    """
    batch, (length, features) = u.shape[:-2], u.shape[-2:]
    size = chunk_length(length, resets is not None)

    def run(u, system, resets):
        Lambda_bar, B_bar, C, start = system
        C = jnp.moveaxis(C, 1, 0) if C.ndim == 3 else C
        return run_chunks(u, _diagonal_maps(Lambda_bar, B_bar, C, length, size), start, resets)

    start = None
    if initial_state is not None:
        start = as_reals(initial_state.reshape(-1, *Lambda_bar.shape).swapaxes(0, 1))
    C = jnp.moveaxis(C, 0, 1) if C.ndim == 3 else C
    rows = None if resets is None else resets.reshape(-1, length)
    u = u.reshape(-1, length, features).astype(jnp.float32)
    y, last = by_features(run, u, (Lambda_bar, B_bar, C, start), rows)
    last = jax.lax.complex(*jnp.split(last.swapaxes(0, 1), 2, axis=-1))
    return y.reshape(*batch, length, features), last.reshape(*batch, *Lambda_bar.shape)


def chunk_length(length: int, resets: bool = False) -> int:
    """Return T: up to two chunks' worth of steps are one chunk, longer sequences have several."""
    log2 = LOG2_RESET_CHUNK if resets else LOG2_CHUNK
    return length if length <= 2 ** (log2 + 1) else 2**log2


def run_chunks(
    u: jax.Array, maps: ChunkMaps, initial_state: jax.Array | None, resets: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Run a sequence through the maps of its chunks.

    Args:
      u: (B, L, H) float32.
      maps: of the chunks.
      initial_state: (H, B, M) real, or None for zero.
      resets: (B, L) bool or None.

    Returns:
      y: (B, L, H) float32.
      final_state: (H, B, M) float32.
    """
    batch, length, features = u.shape
    size, states = maps.inject.shape[1:]
    chunks = -(-length // size)
    inputs = apart(functools.partial(_to_chunks, chunks=chunks, size=size), word_of(u), u)
    start = initial_state
    if start is None:
        start = jnp.zeros((features, batch, states))
    segments = None if resets is None else _segments(resets, chunks, size)

    y = _products_within(inputs, maps.within, segments)
    last = start
    if chunks > 1 or initial_state is not None:
        around, last = _between(inputs, maps, start, segments)
        y += around
    y = apart(functools.partial(_from_chunks, length=length), word_of(u), y)
    return y, _final_state(inputs[:, -1], maps, last, segments, length - (chunks - 1) * size)


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


def _diagonal_maps(Lambda_bar, B_bar, C, length, size):
    """Return the maps of a diagonal system, complex states stored as reals."""
    table = powers(Lambda_bar, size)  # (T, H, N)
    directions = C.reshape(-1, *B_bar.shape)
    kernels = jnp.einsum("thn,chn->cht", table, directions * B_bar[None], precision=_PRECISION)
    forward, inject_ahead = B_bar[None] * table[::-1], None
    read, read_ahead = (directions[0] * Lambda_bar)[None] * table, None
    if C.ndim == 3:
        inject_ahead = as_reals(B_bar[None] * table).swapaxes(0, 1)
        read_ahead = _real_readout(C[1][None] * table[::-1])
    error = None
    if length > size:
        # The chunks that a scan runs over are 2^m steps long.
        exact = binary_power_error(jax.lax.stop_gradient(Lambda_bar), size.bit_length() - 1)
        error = as_reals(exact)
    return ChunkMaps(
        within=toeplitz(*kernels.real),
        inject=as_reals(forward).swapaxes(0, 1),
        read=_real_readout(read),
        inject_ahead=inject_ahead,
        read_ahead=read_ahead,
        transition=as_reals(power(Lambda_bar, size)),
        error=error,
        rest=as_reals(power(Lambda_bar, (length - 1) % size + 1)),
    )


def _real_readout(rows):
    """Return (H, 2N, T) with which a state stored as reals gives Re(sum_n rows_n x_n)."""
    return jnp.concatenate([rows.real, -rows.imag], axis=-1).transpose(1, 2, 0)


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
    """Return what the states around each chunk add to its outputs, and the last causal state."""
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

    states, last = scan_chunks(
        False, maps.transition, maps.error, drive(maps.inject, after), start, keep
    )
    if maps.read_ahead is None:
        return read(states, maps.read, before), last
    ahead, _ = scan_chunks(
        True, maps.transition, maps.error, drive(maps.inject_ahead, before),
        jnp.zeros_like(start), keep,
    )
    if segments is not None:
        return read(states, maps.read, before) + read(ahead, maps.read_ahead, after), last
    both = jnp.concatenate([states, ahead], axis=-1)
    return read(both, jnp.concatenate([maps.read, maps.read_ahead], axis=1), None), last


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
