"""Steps of fractional order through whole sequences, a block at a time, and their gradient.

Step k sees r_k = sum_{j < k} m_{k-j} q_j of what earlier steps left behind. Backward in time, the
cotangent of q_j is sum_{k > j} m_{k-j} rbar_k: the same sum with time reversed, so that one routine
runs both passes. Each pass keeps arrays of L steps alone, where differentiating the loop would keep
the past of every step; steps are evaluated again from their values.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pspike_jax.functional.fractional import Memory, Rate

_BLOCK = 16


def solve(
    memory: Memory,
    rate: Rate,
    inputs: Any,
    start: jax.Array,
    *,
    settle: Callable[[jax.Array], tuple[jax.Array, Any]] | None = None,
    forget_start: bool = False,
    past: str = "direct",
    block: int = _BLOCK,
) -> tuple[Any, jax.Array]:
    """Step through a sequence: exact, and for L steps L^2 operations, or L^2 log(L) / block.

    Steps are taken a block at a time. What the past leaves for a whole block is known when the
    block begins, and is one convolution; the block's own steps are summed one by one. Derivatives
    are taken in reverse mode, once.

    Args:
      memory: of one of the rules.
      rate: (v (B, H), x) -> (f (B, H), outputs), where x is inputs at the step.
      inputs: pytree of float arrays (L, ...), time first.
      start: (B, H), v_0.
      settle: (v) -> (v, outputs): what becomes of a value once it is reached, as a reset does. If
        given, its outputs are returned beside those of `rate`.
      forget_start: v_0 is left out of all steps but the first, as in the program.
      past: how a block sees the blocks before: `direct`, a product of matrices, or `fft`.
      block: steps in a block.

    Returns:
      outputs: what `rate` returned, (L, ...) each; a pair with those of `settle` where it is given.
      v: (B, H), the value after the last step.

    Raises:
      ValueError: another way of seeing the past, or no step.
    """
    if past not in ("fft", "direct"):
        raise ValueError(f"unknown way {past!r} to see the past; expected fft or direct")
    if jax.tree.leaves(inputs)[0].shape[0] < 1:
        raise ValueError("inputs have no time steps")
    start = jnp.asarray(start, jnp.float32)
    origin = jnp.zeros_like(start) if forget_start else start

    def step(gain, origin, v, x, remembered):
        f, outputs = rate(v, x)
        reached = origin + gain[None] * f + remembered
        if settle is not None:
            reached, settled = settle(reached)
            outputs = outputs, settled
        return reached, f if memory.of_rates else reached - origin, outputs

    first = jax.tree.map(lambda a: a[0], inputs)
    # What rates close over, such as a trained time constant, becomes an argument with a gradient.
    step, closed = jax.closure_convert(step, memory.gain, origin, start, first, start)
    shared = (memory.gain, origin, closed)
    return _solve(step, (past, block), memory.weights, shared, inputs, start)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _solve(step, how, weights, shared, inputs, start):
    """Return outputs and the last value; gain, origin and what rates close over are shared."""
    return _forward(step, how, weights, shared, inputs, start)[0]


def _forward(step, how, weights, shared, inputs, start):
    gain, origin, closed = shared

    def advance(v, x, remembered):
        reached, left, outputs = step(gain, origin, v, x, remembered, *closed)
        return reached, left, (outputs, v, remembered, left)

    v, (outputs, values, remembered, left) = _blocks(advance, how, weights, start, inputs)
    return (outputs, v), (weights, shared, inputs, values, remembered, left)


def _backward(step, how, kept, cotangents):
    weights, shared, inputs, values, remembered, left = kept
    gain, origin, closed = shared
    of_outputs, of_last = cotangents

    def retreat(carry, at, of_left):
        of_v, sums = carry
        x, v, past, of_output = at
        _, pull = jax.vjp(step, gain, origin, v, x, past, *closed)
        of_gain, of_origin, of_v, of_x, of_past, *of_closed = pull((of_v, of_left, of_output))
        sums = jax.tree.map(jnp.add, sums, (of_gain, of_origin, list(of_closed)))
        return (of_v, sums), of_past, (of_x, of_past)

    carry = of_last, jax.tree.map(jnp.zeros_like, (gain, origin, list(closed)))
    reverse = functools.partial(jax.tree.map, lambda a: jnp.flip(a, 0))
    steps = reverse((inputs, values, remembered, of_outputs))
    (of_start, of_shared), found = _blocks(retreat, how, weights, carry, steps)
    of_inputs, of_past = reverse(found)
    of_gain, of_origin, of_closed = of_shared
    of_shared = of_gain, of_origin, type(closed)(of_closed)
    return _of_weights(weights, of_past, left), of_shared, of_inputs, of_start


_solve.defvjp(_forward, _backward)


def _of_weights(weights, of_past, left):
    """Return the cotangent of m_1 .. m_K, (K, A): sum over k of rbar_{k+d} q_k."""
    length, count = left.shape[0], 2 * left.shape[0]
    spectrum = lambda a: jnp.fft.rfft(a, count, axis=0)
    shared = weights.shape[1] == 1
    product = jnp.sum(spectrum(of_past) * jnp.conj(spectrum(left)), axis=(1, 2) if shared else 1)
    found = jnp.fft.irfft(product, count, axis=0).reshape(count, -1)[1:length]
    found = found[: weights.shape[0]]
    return jnp.pad(found, [(0, weights.shape[0] - found.shape[0]), (0, 0)])


def _blocks(step, how, weights, carry, xs):
    """Scan (carry, x, remembered (B, H)) -> (carry, left (B, H), out) over time."""
    past, block = how
    length = jax.tree.leaves(xs)[0].shape[0]
    like = jax.eval_shape(step, carry, jax.tree.map(lambda a: a[0], xs), _first_value(carry))[1]
    size = min(block, length)
    blocks = -(-length // size)
    # Whole blocks of what may still be remembered; nothing where one block is all there is.
    reach = min(weights.shape[0], length)
    kept = 0 if blocks == 1 else -(-reach // size) * size
    weights = _padded(weights, kept + size)
    look_back = _look_back(weights, kept, size, past)
    within = _lags(weights, size, 0)
    padded = jax.tree.map(
        lambda a: jnp.pad(a, [(0, blocks * size - length)] + [(0, 0)] * (a.ndim - 1)), xs
    )
    padded = jax.tree.map(lambda a: a.reshape(blocks, size, *a.shape[1:]), padded)
    counts = (jnp.arange(blocks * size) < length).reshape(blocks, size)

    def one_step(state, at):
        carry, own = state
        x, past, lags, index, counted = at
        remembered = past + jnp.sum(lags[:, None] * own, axis=0)
        new, left, out = step(carry, x, remembered)
        own = jax.lax.dynamic_update_index_in_dim(own, left, index, 0)
        # Behind the end steps are only filled in: they leave the carry alone.
        return (jax.tree.map(functools.partial(jnp.where, counted), new, carry), own), out

    def one_block(state, block_of):
        carry, history = state
        x, counted = block_of
        own = jnp.zeros((size, *like.shape), jnp.float32)
        steps = (x, look_back(history, like.shape), within, jnp.arange(size), counted)
        (carry, own), out = jax.lax.scan(one_step, (carry, own), steps)
        return (carry, jnp.concatenate([history, own])[size:]), out

    history = jnp.zeros((kept, *like.shape), jnp.float32)
    if blocks == 1:
        first = jax.tree.map(lambda a: a[0], (padded, counts))
        (carry, _), out = one_block((carry, history), first)
        return carry, out
    (carry, _), out = jax.lax.scan(one_block, (carry, history), (padded, counts))
    return carry, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:length], out)


def _first_value(carry):
    """Return an array (B, H): a value, or its cotangent, leads every carry."""
    return jax.tree.leaves(carry)[0]


def _padded(weights, count):
    """Return m_0 .. m_{count-1} with m_0 = 0, (count, A), zeros beyond what is remembered."""
    weights = jnp.pad(weights, [(1, 0), (0, 0)])[:count]
    return jnp.pad(weights, [(0, count - weights.shape[0]), (0, 0)])


def _lags(weights, size, offset):
    """Return W[i, j] = m_{offset + i - j}, (size, offset or size, A); 0 where j >= offset + i."""
    lag = offset + jnp.arange(size)[:, None] - jnp.arange(offset or size)[None]
    return jnp.where((lag > 0)[..., None], weights[jnp.clip(lag, 0, None)], 0)


def _look_back(weights, kept, size, past):
    """Return a function from what is kept, (kept, B, H), to what it leaves for a block's steps."""
    if not kept:
        return lambda history, shape: jnp.zeros((size, *shape), jnp.float32)
    if past == "direct":
        lags = _lags(weights, size, kept)

        def direct(history, shape):
            if lags.shape[-1] == 1:  # one product for all features
                return jnp.einsum("ij,jbh->ibh", lags[..., 0], history, precision="highest")
            return jnp.einsum("ijh,jbh->ibh", lags, history, precision="highest")

        return direct
    # A circle of kept + size steps: what wraps around falls on steps before the block.
    spectrum = jnp.fft.rfft(weights, axis=0)

    def fft(history, shape):
        known = jnp.fft.rfft(history, n=kept + size, axis=0)
        return jnp.fft.irfft(spectrum[:, None] * known, n=kept + size, axis=0)[kept:]

    return fft
