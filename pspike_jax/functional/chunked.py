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
"""

import functools

import jax
import jax.numpy as jnp

from pspike_jax.functional.powers import binary_power_error, power, powers

_PRECISION = jax.lax.Precision.HIGHEST


def chunked_ssm(
    u: jax.Array,
    Lambda_bar: jax.Array,
    B_bar: jax.Array,
    C: jax.Array,
    initial_state: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Evaluate the SSM chunk by chunk; arguments and results as in `linear_ssm`, without D.

    Args:
      u: (..., L, H) real.
      Lambda_bar: (H, N) complex64.
      B_bar: (H, N) complex64.
      C: (H, N) or (2, H, N) complex64.
      initial_state: (..., H, N) complex64 or None.

    Returns:
      y: (..., L, H) float32.
      final_state: (..., H, N) complex64.
    """
    batch, (length, features) = u.shape[:-2], u.shape[-2:]
    u = u.reshape(-1, length, features).astype(jnp.float32)
    size = chunk_length(length)
    chunks = -(-length // size)
    table = powers(Lambda_bar, size)  # (T, H, N)
    inputs = _to_chunks(u, chunks, size)
    start = None
    if initial_state is not None:
        start = initial_state.reshape(-1, *initial_state.shape[-2:])
        start = _as_reals(start.swapaxes(0, 1))  # (H, B, 2N)

    y = jnp.einsum("hkbj,hji->hkbi", inputs, _within(table, B_bar, C), precision=_PRECISION)
    last = start
    if chunks > 1 or start is not None:
        states, last = _between(inputs, table, Lambda_bar, B_bar, C.ndim == 3, start)
        y += jnp.einsum(
            "hkbm,hmi->hkbi", states, _readout(table, Lambda_bar, C), precision=_PRECISION
        )
    y = y.transpose(2, 1, 3, 0).reshape(-1, chunks * size, features)[:, :length]
    final_state = _final_state(inputs[:, -1], table, Lambda_bar, B_bar, last, length, size)
    return y.reshape(*batch, length, features), final_state.reshape(*batch, *Lambda_bar.shape)


LOG2_CHUNK = 6


def chunk_length(length: int) -> int:
    """Return T: sequences of up to 128 steps are one chunk, longer ones have chunks of 64."""
    return length if length <= 2 ** (LOG2_CHUNK + 1) else 2**LOG2_CHUNK


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


def _within(table, B_bar, C):
    """Return the products inside a chunk, M (H, T, T)."""
    kernels = jnp.einsum(
        "thn,chn->cht", table, C.reshape(-1, *B_bar.shape) * B_bar[None], precision=_PRECISION
    ).real
    return toeplitz(*kernels)


def _between(inputs, table, Lambda_bar, B_bar, two_sided, start):
    """Return the states around each chunk, (H, K, B, 2N or 4N), and the last causal one."""
    forward = _as_reals((B_bar[None] * table[::-1]).swapaxes(0, 1))  # (H, T, 2N)
    decay = _as_reals(power(Lambda_bar, inputs.shape[-1]))
    error = jnp.zeros_like(decay)
    if inputs.shape[1] > 1:
        error = _as_reals(binary_power_error(jax.lax.stop_gradient(Lambda_bar), LOG2_CHUNK))
    if start is None:
        start = jnp.zeros((inputs.shape[0], inputs.shape[2], forward.shape[-1]))
    drive = jnp.einsum("hkbj,hjm->hkbm", inputs, forward, precision=_PRECISION)
    states, last = _scan_chunks(False, decay, error, drive, start)
    if not two_sided:
        return states, last
    backward = _as_reals((B_bar[None] * table).swapaxes(0, 1))
    drive = jnp.einsum("hkbj,hjm->hkbm", inputs, backward, precision=_PRECISION)
    ahead, _ = _scan_chunks(True, decay, error, drive, jnp.zeros_like(start))
    return jnp.concatenate([states, ahead], axis=-1), last


def _readout(table, Lambda_bar, C):
    """Return what the states around a chunk add to its outputs, (H, 2N or 4N, T)."""
    causal = C if C.ndim == 2 else C[0]
    parts = [(causal * Lambda_bar)[None] * table]
    if C.ndim == 3:
        parts.append(C[1][None] * table[::-1])
    rows = [row for part in parts for row in (part.real, -part.imag)]
    return jnp.concatenate(rows, axis=-1).transpose(1, 2, 0)


def _final_state(inputs, table, Lambda_bar, B_bar, last, length, size):
    """Return the causal state at step L, inside the last chunk unless T divides L: (B, H, N).

    Args: inputs of the last chunk (H, B, T); the state before it (H, B, 2N), or None for zero.
    """
    rest = length - (length - 1) // size * size
    gains = _as_reals((B_bar[None] * table[:rest][::-1]).swapaxes(0, 1))
    state = jnp.einsum("hbj,hjm->hbm", inputs[..., :rest], gains, precision=_PRECISION)
    if last is not None:
        state += _multiply(_as_reals(power(Lambda_bar, rest))[:, None], last)
    re, im = jnp.split(state, 2, axis=-1)
    return jax.lax.complex(re, im).swapaxes(0, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan_chunks(reverse, decay, error, drive, start):
    """Run X_{k+1} = decay X_k + drive_k over axis 1, or from its end.

    Args:
      reverse: from the end: Z_{k-1} = decay Z_k + drive_k.
      decay: (H, 2N), Lambda^T.
      error: (H, 2N), what Lambda^T lost when it was rounded.
      drive: (H, K, B, 2N).
      start: (H, B, 2N), the state before the first chunk, behind the last one in reverse.

    Returns:
      states: (H, K, B, 2N), the one that each chunk sees.
      last: (H, B, 2N), the one that the last chunk (in scan order) sees.
    """
    chunks = drive.shape[1]
    decay, error = decay[:, None], error[:, None]

    def step(k, carry):
        state, states = carry
        k = chunks - 1 - k if reverse else k
        states = jax.lax.dynamic_update_index_in_dim(states, state, k, 1)
        added = jax.lax.dynamic_index_in_dim(drive, k, 1, keepdims=False)
        return _multiply(decay, state) + (_multiply(error, state) + added), states

    # The last chunk's own drive is not needed, so the scan stops one step early.
    state, states = jax.lax.fori_loop(0, chunks - 1, step, (start, jnp.zeros_like(drive)))
    k = 0 if reverse else chunks - 1
    return jax.lax.dynamic_update_index_in_dim(states, state, k, 1), state


def _scan_chunks_fwd(reverse, decay, error, drive, start):
    states, last = _scan_chunks(reverse, decay, error, drive, start)
    return (states, last), (decay, error, states)


def _scan_chunks_bwd(reverse, residuals, cotangents):
    decay, error, states = residuals
    states_bar, last_bar = cotangents
    chunks = states.shape[1]
    transposed, correction = _conjugate(decay)[:, None], _conjugate(error)[:, None]

    def step(i, carry):
        adjoint, decay_bar, drive_bar = carry
        # adjoint belongs to the state that chunk k + 1 (in scan order) sees.
        k = chunks - 2 - i
        k = chunks - 1 - k if reverse else k
        drive_bar = jax.lax.dynamic_update_index_in_dim(drive_bar, adjoint, k, 1)
        state = jax.lax.dynamic_index_in_dim(states, k, 1, keepdims=False)
        decay_bar += jnp.sum(_multiply(_conjugate(state), adjoint), axis=1)
        own = jax.lax.dynamic_index_in_dim(states_bar, k, 1, keepdims=False)
        own += _multiply(correction, adjoint)
        return _multiply(transposed, adjoint) + own, decay_bar, drive_bar

    first = states_bar[:, 0 if reverse else chunks - 1] + last_bar
    carry = (first, jnp.zeros_like(decay), jnp.zeros_like(states))
    adjoint, decay_bar, drive_bar = jax.lax.fori_loop(0, chunks - 1, step, carry)
    return decay_bar, jnp.zeros_like(error), drive_bar, adjoint


_scan_chunks.defvjp(_scan_chunks_fwd, _scan_chunks_bwd)


def _as_reals(z: jax.Array) -> jax.Array:
    return jnp.concatenate([z.real, z.imag], axis=-1)


def _conjugate(z: jax.Array) -> jax.Array:
    re, im = jnp.split(z, 2, axis=-1)
    return jnp.concatenate([re, -im], axis=-1)


def _multiply(x: jax.Array, y: jax.Array) -> jax.Array:
    """Multiply complex numbers stored as (real parts, imaginary parts) along the last axis."""
    a, b = jnp.split(x, 2, axis=-1)
    c, d = jnp.split(y, 2, axis=-1)
    return jnp.concatenate([a * c - b * d, a * d + b * c], axis=-1)
