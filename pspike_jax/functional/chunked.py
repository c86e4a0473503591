"""The chunked engine: matrix products inside chunks of T steps, a short scan between them.

With X_k the state before chunk k (steps kT .. kT + T - 1) and U_k its inputs,

    Y_k     = U_k Toeplitz(K) + Re(X_k (C Lambda^(i+1))_i)       outputs of step i in the chunk
    X_{k+1} = Lambda^T X_k + U_k (Lambda^(T-1-j) B)_j            one short recurrence over chunks

Everything that grows with L is a batched matrix product per feature; only L / T states are made.
"""

import jax
import jax.numpy as jnp

from pspike_jax.functional.powers import power, powers

_PRECISION = "highest"


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
    flat = u.reshape(-1, length, features).astype(jnp.float32)
    start = None
    if initial_state is not None:
        start = initial_state.reshape(-1, *initial_state.shape[-2:])
    causal = C if C.ndim == 2 else C[0]
    y, final_state = _causal(flat, Lambda_bar, B_bar, causal, start)
    if C.ndim == 3:
        # Delayed by one step: the anti-causal kernel starts one step ahead.
        ahead = jnp.pad(flat[:, :0:-1], ((0, 0), (1, 0), (0, 0)))
        y += _causal(ahead, Lambda_bar, B_bar, C[1], None)[0][:, ::-1]
    return y.reshape(u.shape), final_state.reshape(*batch, *final_state.shape[-2:])


def chunk_length(length: int) -> int:
    """Return T: short inputs are one chunk, long ones are cut into chunks of 64."""
    return min(64, length)


def toeplitz(kernel: jax.Array) -> jax.Array:
    """Return M with M[j, i] = kernel[i - j] for i >= j, else 0.

    Args:
      kernel: (..., T).

    Returns:
      (..., T, T).
    """
    size = kernel.shape[-1]
    # Rows of length 2T, read again as rows of length 2T - 1, each slide one step to the right.
    row = jnp.concatenate([kernel, jnp.zeros_like(kernel)], axis=-1)
    tiled = jnp.broadcast_to(row[..., None, :], (*row.shape[:-1], size, 2 * size))
    flat = tiled.reshape(*row.shape[:-1], 2 * size * size)[..., : size * (2 * size - 1)]
    return flat.reshape(*row.shape[:-1], size, 2 * size - 1)[..., :size]


def _causal(u, Lambda_bar, B_bar, C, initial_state):
    batch, length, features = u.shape
    size = chunk_length(length)
    chunks = -(-length // size)
    padded = jnp.pad(u, ((0, 0), (0, chunks * size - length), (0, 0)))
    inputs = padded.reshape(batch, chunks, size, features).transpose(3, 1, 0, 2)  # (H, K, B, T)

    table = powers(Lambda_bar, size)  # (T, H, N)
    kernel = jnp.einsum("thn,hn->ht", table, C * B_bar, precision=_PRECISION).real
    y = jnp.einsum("hkbj,hji->hkbi", inputs, toeplitz(kernel), precision=_PRECISION)

    before, last = _states_between(inputs, table, Lambda_bar, B_bar, initial_state)
    readout = (C * Lambda_bar)[None] * table  # (T, H, N)
    readout = jnp.concatenate([readout.real, -readout.imag], axis=-1)
    y += jnp.einsum("hkbm,ihm->hkbi", before, readout, precision=_PRECISION)
    y = y.transpose(2, 1, 3, 0).reshape(batch, chunks * size, features)[:, :length]

    # The state at step L lies inside the last chunk unless T divides L.
    rest = length - (chunks - 1) * size
    gains = B_bar[None] * table[:rest][::-1]
    gains = jnp.concatenate([gains.real, gains.imag], axis=-1)
    added = jnp.einsum("hbj,jhm->bhm", inputs[:, -1, :, :rest], gains, precision=_PRECISION)
    return y, power(Lambda_bar, rest)[None] * last + _complex(added)


def _states_between(inputs, table, Lambda_bar, B_bar, initial_state):
    """Return states before each chunk, (H, K, B, 2N) real, and the last of them, (B, H, N)."""
    size = inputs.shape[-1]
    gains = B_bar[None] * table[::-1]  # (T, H, N)
    gains = jnp.concatenate([gains.real, gains.imag], axis=-1)
    added = jnp.einsum("hkbj,jhm->kbhm", inputs[:, :-1], gains, precision=_PRECISION)
    decay = power(Lambda_bar, size)[None]
    if initial_state is None:
        initial_state = jnp.zeros((inputs.shape[2], *Lambda_bar.shape), jnp.complex64)

    def step(state, drive):
        state = decay * state + drive
        return state, state

    _, later = jax.lax.scan(step, initial_state, _complex(added))
    before = jnp.concatenate([initial_state[None], later])  # (K, B, H, N)
    as_reals = jnp.concatenate([before.real, before.imag], axis=-1).transpose(2, 0, 1, 3)
    return as_reals, before[-1]


def _complex(parts: jax.Array) -> jax.Array:
    re, im = jnp.split(parts, 2, axis=-1)
    return jax.lax.complex(re, im)
