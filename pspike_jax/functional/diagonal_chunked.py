"""The chunked engine for diagonal systems: the maps of their chunks, from powers of the poles."""

import jax
import jax.numpy as jnp

from pspike_jax.functional.chunk_states import as_reals
from pspike_jax.functional.chunked import (
    ChunkMaps,
    Evaluate,
    Kind,
    evaluate_whole,
    toeplitz,
)
from pspike_jax.functional.engine import Engine
from pspike_jax.functional.powers import binary_power_error, power, powers

_PRECISION = jax.lax.Precision.HIGHEST


@jax.named_scope(Engine.CHUNKED.scope)
def chunked_ssm(
    u: jax.Array,
    Lambda_bar: jax.Array,
    B_bar: jax.Array,
    C: jax.Array,
    initial_state: jax.Array | None,
    resets: jax.Array | None = None,
    evaluate: Evaluate = evaluate_whole,
) -> tuple[jax.Array, jax.Array]:
    """Evaluate the SSM chunk by chunk; arguments and results as in `linear_ssm`, without D.

    Args:
      u: (..., L, H) real.
      Lambda_bar: (H, N) complex64.
      B_bar: (H, N) complex64.
      C: (H, N) or (2, H, N) complex64.
      initial_state: (..., H, N) complex64 or None.
      resets: (..., L) bool or None.
      evaluate: as `evaluate_whole`, which is for sequences that one device holds.

    Returns:
      y: (..., L, H) float32.
      final_state: (..., H, N) complex64.
    """
    batch, (length, features) = u.shape[:-2], u.shape[-2:]
    start = None
    if initial_state is not None:
        start = as_reals(initial_state.reshape(-1, *Lambda_bar.shape).swapaxes(0, 1))
    C = jnp.moveaxis(C, 0, 1) if C.ndim == 3 else C
    rows = None if resets is None else resets.reshape(-1, length)
    u = u.reshape(-1, length, features).astype(jnp.float32)
    y, last = evaluate(DIAGONAL, u, (Lambda_bar, B_bar, C), start, rows)
    last = jax.lax.complex(*jnp.split(last.swapaxes(0, 1), 2, axis=-1))
    return y.reshape(*batch, length, features), last.reshape(*batch, *Lambda_bar.shape)


def _maps(system, length, size):
    """Return the maps of a system (Lambda_bar, B_bar, C), complex states stored as reals."""
    Lambda_bar, B_bar, C = system
    C = jnp.moveaxis(C, 1, 0) if C.ndim == 3 else C
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
        transition=_span(system, size),
        error=error,
        rest=_span(system, (length - 1) % size + 1),
    )


def _span(system, steps):
    return as_reals(power(system[0], steps))


def _real_readout(rows):
    """Return (H, 2N, T) with which a state stored as reals gives Re(sum_n rows_n x_n)."""
    return jnp.concatenate([rows.real, -rows.imag], axis=-1).transpose(1, 2, 0)


DIAGONAL = Kind(_maps, _span)
