"""States that are matrices, over a segment: products within chunks, a scan of the chunks' states.

    S_t = a_t * S_{t-1} + b_t x_t^T,        y_t = S_t^T c_t,

rows n of S decaying by a_t,n, or all by one number. Within a chunk that begins in the state S,

    y_i = sum_{j <= i} <c_i, a_i .. a_{j+1} b_j> x_j + (S * a_i .. a_1)^T c_i.

Chunks are halved down to single steps. For i in the right half of a block and j in the left one,
the decay from j to i is that from j to the middle times that from the middle to i, and the scores
of the two halves are one product of scaled c and scaled b. Logarithms of decays are only ever
added, never subtracted: no factor exceeds 1, and where decays are near 0 no digits cancel.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.gated.segments import Form

CHUNK_STEPS = 64
_PRECISION = jax.lax.Precision.HIGHEST


class Products(NamedTuple):
    """What enters at each step; H heads in G groups of R, each of which shares b and c.

    Attributes:
      x: (B, L, G, R, P), columns of the state.
      b: (B, L, G, N), rows of the state.
      c: (B, L, G, N), how states are read.
      log_decay: (B, L, G, R, N), or (B, L, G, R, 1) where rows decay alike.
    """

    x: jax.Array
    b: jax.Array
    c: jax.Array
    log_decay: jax.Array


def _run(inputs, shared, start, resets):
    """Run a segment from start (B, G, R, N, P)."""
    dtype, steps = start.dtype, inputs.x.shape[1]
    size = min(CHUNK_STEPS, steps)
    chunks = steps // size
    # Chunks first, time before what is multiplied: (K, B, G, R or 1, T, ...).
    x = _to_chunks(inputs.x.astype(dtype), chunks)
    log_decay = _to_chunks(inputs.log_decay.astype(dtype), chunks)
    b = _to_chunks(inputs.b.astype(dtype)[:, :, :, None], chunks)
    c = _to_chunks(inputs.c.astype(dtype)[:, :, :, None], chunks)
    same = before = after = keep = None
    if resets is not None:
        same, before, after, keep = _segments(resets, chunks)

    scores, since, until = _scores(b, c, log_decay)
    y = _product("...ij,...jp->...ip", _masked(scores, same), x)
    decayed_b = _masked(b * jnp.exp(until), None if after is None else after[..., None])
    gains = _product("...jn,...jp->...np", decayed_b, x)
    states, last = _between(since[..., -1, :, None], gains, start, keep)
    seen = _product("...in,...np->...ip", c * jnp.exp(since), states)
    y += _masked(seen, None if before is None else before[..., None])
    return _from_chunks(y), last


def _pull_back(inputs, shared, start, resets, y_bar, adjoint):
    run = lambda inputs, start: _run(inputs, shared, start, resets)
    inputs_bar, start_bar = jax.vjp(run, inputs, start)[1]((y_bar, adjoint))
    return inputs_bar, shared, start_bar


def _as_it_is(state):
    return state


PRODUCTS = Form(_run, _pull_back, _as_it_is, _as_it_is)


def _scores(b, c, log_decay):
    """Return what of input j the output i sees, and log decays up to and behind each step.

    Args:
      b, c: (..., T, N).
      log_decay: (..., T, N) or (..., T, 1).

    Returns:
      scores: (..., T, T), zero for j > i.
      since: as log_decay, sums from the chunk's first step through each.
      until: as log_decay, sums over the steps behind each.
    """
    alike = log_decay.shape[-1] == 1
    size, lead = log_decay.shape[-2], log_decay.shape[:-2]
    since, until = log_decay[..., None, :], jnp.zeros_like(log_decay)[..., None, :]
    own = jnp.sum(b * c, axis=-1, keepdims=True)
    own = jnp.ones_like(log_decay) if alike else jnp.broadcast_to(own, (*lead, size, 1))
    scores = own[..., None]
    half = 1
    while half < size:
        pairs = size // (2 * half)
        halves = lambda array: array.reshape(*array.shape[:-3], pairs, 2, half, array.shape[-1])
        left, right = (halves(since)[..., side, :, :] for side in (0, 1))
        behind, last = (halves(until)[..., side, :, :] for side in (0, 1))
        if alike:
            cross = jnp.exp(right + behind.swapaxes(-1, -2))
        else:
            cut = lambda array: array.reshape(*array.shape[:-2], pairs, 2, half, array.shape[-1])
            reads, writes = cut(c)[..., 1, :, :], cut(b)[..., 0, :, :]
            cross = _product("...in,...jn->...ij", reads * jnp.exp(right), writes * jnp.exp(behind))
        scores = scores.reshape(*lead, pairs, 2, half, half)
        upper = jnp.concatenate([scores[..., 0, :, :], jnp.zeros_like(cross)], axis=-1)
        lower = jnp.concatenate([cross, scores[..., 1, :, :]], axis=-1)
        scores = jnp.concatenate([upper, lower], axis=-2)
        until = jnp.concatenate([behind + right[..., -1:, :], last], axis=-2)
        since = jnp.concatenate([left, left[..., -1:, :] + right], axis=-2)
        half *= 2
    scores, since, until = scores[..., 0, :, :], since[..., 0, :, :], until[..., 0, :, :]
    if alike:
        scores = scores * _product("...in,...jn->...ij", c, b)
    return scores, since, until


def _between(totals, gains, start, keep):
    """Return the state before each chunk, (K, B, G, R, N, P), and that behind the last one."""

    def step(state, chunk):
        total, gain, keep = chunk
        passed = state + jnp.expm1(total) * state
        return _masked(passed, keep) + gain, state

    last, states = jax.lax.scan(step, start, (totals, gains, keep))
    return states, last


def _masked(array, mask):
    return array if mask is None else jnp.where(mask, array, 0)


def _segments(resets, chunks):
    """Return what resets let pass: from j to i, from before to i, from j to the end, through."""
    resets = resets.reshape(resets.shape[0], chunks, -1).swapaxes(0, 1)
    count = jnp.cumsum(resets, axis=-1, dtype=jnp.int32)[:, :, None, None]
    same = count[..., :, None] == count[..., None, :]
    last = count[..., -1:]
    return same, count == 0, count == last, (last == 0)[..., None]


def _to_chunks(array, chunks):
    """Return (K, B, G, R, T, F) of an array (B, K T, G, R, F)."""
    batch, length = array.shape[:2]
    array = array.reshape(batch, chunks, length // chunks, *array.shape[2:])
    return array.transpose(1, 0, 3, 4, 2, 5)


def _from_chunks(array):
    """Return (B, K T, G, R, F) of an array (K, B, G, R, T, F)."""
    array = array.transpose(1, 0, 4, 2, 3, 5)
    return array.reshape(array.shape[0], -1, *array.shape[3:])


def _product(subscripts, left, right):
    return jnp.einsum(subscripts, left, right, precision=_PRECISION)
