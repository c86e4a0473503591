"""The chunked engine for diagonal-plus-low-rank systems: dense transitions between chunks.

HiPPO-LegS has no usable eigenvectors (their condition is 8e10 at N = 16), so a chunk's transition
is a dense matrix. The input is real, so a pair of conjugate modes is two real numbers, its real and
its imaginary part, and the whole system is real with S = 2N states.

Slow systems hardly move in a step: 1 - |eigenvalue| is dt / 2, and a float32 matrix A_bar leaves
little of it. What is held is therefore the increment E = A_bar - I, which the bilinear rule gives
without a subtraction, and powers run on increments too,

    A^(a + b) - I = E_a + E_b + E_a E_b,

so that I - A_bar^L, which the length-attuned readout C~ = C (I - A_bar^L) divides by, is exact to
rounding as well. Matrices act on rows, x_t = x_{t-1} + x_{t-1} E + u_t B_bar.
"""

from typing import NamedTuple

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
from pspike_jax.functional.discretization import discretize_bilinear
from pspike_jax.functional.engine import Engine


class RealSystem(NamedTuple):
    """A discretised system with real states, S of them for each feature.

    Attributes:
      increment: (H, S, S), the transition on rows minus the identity.
      inject: (H, S), input map.
      read: (H, directions, S), readouts.
    """

    increment: jax.Array
    inject: jax.Array
    read: jax.Array


def real_bilinear_dplr(
    Lambda: jax.Array, P: jax.Array, Q: jax.Array, B: jax.Array, C: jax.Array, dt: jax.Array
) -> RealSystem:
    """Discretise A = Lambda - P Q^T by the bilinear rule, as in `discretize_bilinear_dplr`.

    Args:
      Lambda: (H, N) complex, one of each conjugate pair; Re(Lambda) < 0.
      P: (H, N) complex, left factor.
      Q: (H, N) complex, right factor, taken without conjugation.
      B: (H, N) complex, input map.
      C: (directions, H, N) complex readouts; the output is twice the real part.
      dt: (H,) real and positive.

    Returns:
      The system, S = 2N.
    """
    _, gain = discretize_bilinear(Lambda, dt)  # (I - dt/2 Lambda)^-1 dt
    gP, gB, gQ = gain * P, gain * B, gain * Q / dt[:, None].astype(gain.dtype)
    # Sums over both halves of the pairs are twice a real part.
    scale = 1 / (1 + jnp.sum((Q * gP).real, axis=-1, keepdims=True))
    scale = scale.astype(gain.dtype)
    # E x = gain Lambda x - scale gP (gQ x + conj(gQ x)), whose bracket is real.
    bracket = 2 * jnp.concatenate([gQ.real, -gQ.imag], axis=-1)  # (H, S)
    low_rank = bracket[:, :, None] * as_reals(scale * gP)[:, None, :]
    rates = gain * Lambda
    re, im = jax.vmap(jnp.diag)(rates.real), jax.vmap(jnp.diag)(rates.imag)
    diagonal = jnp.concatenate(
        [jnp.concatenate([re, im], axis=-1), jnp.concatenate([-im, re], axis=-1)], axis=-2
    )
    overlap = jnp.sum((Q * gB).real, axis=-1, keepdims=True).astype(gain.dtype)
    inject = gB - scale * gP * overlap
    read = 2 * jnp.concatenate([C.real, -C.imag], axis=-1)
    return RealSystem(diagonal - low_rank, as_reals(inject), jnp.moveaxis(read, 0, 1))


def unattuned(system: RealSystem, length: int) -> RealSystem:
    """Replace the length-attuned readouts C~ of a system by C, C (I - A_bar^L) = C~.

    Args:
      system: with readouts that are attuned.
      length: L.

    Returns:
      The system with readouts that a recurrence reads with.
    """
    remainder = -_power_increment(system.increment, length)
    # Rows are states here, so a readout is a column: (I - A_bar^L) c = c~.
    read = jnp.einsum("hij,hcj->hci", _inverse(remainder), system.read, precision="highest")
    return system._replace(read=read)


@jax.custom_jvp
def _inverse(matrix):
    """Invert (H, S, S) by elimination in place, without pivots.

    A = Lambda - P P* with Re(Lambda) < 0 is dissipative, the bilinear rule makes it a contraction,
    and I - A_bar^L has a positive definite symmetric part: elimination is stable in any order.
    """

    def eliminate(k, m):
        unit = (jnp.arange(m.shape[-1], dtype=jnp.int32) == k).astype(m.dtype)
        row = jax.lax.dynamic_index_in_dim(m, k, 1, keepdims=False)
        column = jax.lax.dynamic_index_in_dim(m, k, 2, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(row, k, 1)
        return m - (column - unit[None])[:, :, None] * ((row + unit[None]) / pivot)[:, None, :]

    return jax.lax.fori_loop(0, matrix.shape[-1], eliminate, matrix)


@_inverse.defjvp
def _inverse_jvp(primals, tangents):
    # d(M^-1) = -M^-1 dM M^-1
    inverse = _inverse(*primals)
    moved = jnp.einsum("hij,hjk,hkl->hil", inverse, *tangents, inverse, precision="highest")
    return inverse, -moved


@jax.named_scope(Engine.CHUNKED.scope)
def chunked_dplr(
    u: jax.Array,
    system: RealSystem,
    initial_state: jax.Array | None = None,
    evaluate: Evaluate = evaluate_whole,
) -> tuple[jax.Array, jax.Array]:
    """Run x_t = A_bar x_{t-1} + B_bar u_t, y_t = C x_t chunk by chunk.

    A second readout C' adds C' z_{t+1} with the anti-causal state z_t = A_bar z_{t+1} + B_bar u_t.

    Args:
      u: (B, L, H) real.
      system: with one readout or two.
      initial_state: (B, H, S) float32, the state before the first step; zero if None.
      evaluate: as in `chunked_ssm`.

    Returns:
      y: (B, L, H) float32.
      final_state: (B, H, S) float32.
    """
    start = None if initial_state is None else initial_state.swapaxes(0, 1)
    y, final_state = evaluate(DENSE, u.astype(jnp.float32), system, start, None)
    return y, final_state.swapaxes(0, 1)


def _maps(system, length, size):
    increment, inject, read = system
    injected = _orbit(increment, inject, size)  # (H, T, S), rows B A^t
    transposed = increment.swapaxes(1, 2)
    causal = read[:, 0]
    seen = _orbit(transposed, causal + _apply(transposed, causal[:, None])[:, 0], size)
    two_sided = read.shape[1] == 2
    kernels = jnp.einsum("hts,hcs->cht", injected, read, precision="highest")
    return ChunkMaps(
        within=toeplitz(*kernels),
        inject=injected[:, ::-1],
        read=seen.swapaxes(1, 2),
        inject_ahead=injected if two_sided else None,
        read_ahead=_orbit(transposed, read[:, 1], size)[:, ::-1].swapaxes(1, 2)
        if two_sided
        else None,
        transition=_span(system, size),
        error=None,
        rest=_span(system, (length - 1) % size + 1),
    )


def _span(system, steps):
    identity = jnp.eye(system.increment.shape[-1], dtype=jnp.float32)
    return identity[None] + _power_increment(system.increment, steps)


def _apply(matrix, rows):
    return jnp.einsum("hts,hsr->htr", rows, matrix, precision="highest")


def _compose(first, second):
    """Return the increment of a product from those of its factors."""
    return first + second + _apply(second, first)


def _orbit(increment, row, count):
    """Return row A^t for t = 0 .. count - 1, (H, count, S), by doubling."""
    rows = row[:, None]
    while rows.shape[1] < count:
        rows = jnp.concatenate([rows, rows + _apply(increment, rows)], axis=1)
        increment = _compose(increment, increment)
    return rows[:, :count]


def _power_increment(increment, exponent):
    """Return A^exponent - I."""
    result = None
    while exponent:
        if exponent & 1:
            result = increment if result is None else _compose(result, increment)
        exponent >>= 1
        if exponent:
            increment = _compose(increment, increment)
    return result


DENSE = Kind(_maps, _span)
