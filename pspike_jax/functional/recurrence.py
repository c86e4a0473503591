"""The general linear recurrence x_t = decay_t x_{t-1} + drive_t, one step at a time or in parallel.

An element (A, b) stands for the affine map x -> A x + b. Maps compose associatively,

    (A2, b2) after (A1, b1) = (A2 A1, A2 b1 + b2),

so all prefixes, the states, come from a parallel scan. The derivative is the same recurrence again,

    dx_t = decay_t dx_{t-1} + (d decay_t x_{t-1} + d drive_t),

linear in its drive; the backward pass is its transpose, which runs from the end. Both engines have
derivatives of any order in either mode.
"""

import functools

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from pspike_jax.functional.engine import Engine, parse_engine
from pspike_jax.functional.powers import binary_powers


def linear_recurrence(
    decay: jax.Array,
    drive: jax.Array,
    *,
    initial_state: jax.Array | None = None,
    resets: jax.Array | None = None,
    engine: Engine | str = Engine.ASSOCIATIVE,
) -> jax.Array:
    """Return all states of x_t = decay_t x_{t-1} + drive_t.

    Args:
      decay: (..., L, P), or (..., L, P, 2, 2) for blocks that act on pairs of components. Leading
        axes and L may have size 1 (a decay that is shared); it is then not repeated in memory
        between the forward and the backward pass.
      drive: (..., L, P), or (..., L, P, 2) with blocks. Real or complex.
      initial_state: (..., P) or (..., P, 2), the state before the first step; zero if None.
      resets: (..., L) bool; the state before step t becomes zero where resets[t] is true.
      engine: `sequential` (lax.scan) or `associative` (lax.associative_scan). A length without a
        number (`jax.export`) needs `sequential`.

    Returns:
      States, of drive's shape: complex64 if an argument is complex, else float32.

    Raises:
      TypeError: resets are not boolean.
      ValueError: shapes do not fit, the engine is neither of the two, or it needs a length that
        has a number.
    """
    engine = parse_engine(engine)
    blocks = decay.ndim == drive.ndim + 1
    if not blocks and decay.ndim != drive.ndim:
        raise ValueError(f"decay {decay.shape} and drive {drive.shape} differ in rank")
    time_axis = drive.ndim - (3 if blocks else 2)
    for axis in range(drive.ndim):
        if decay.shape[axis] not in (1, drive.shape[axis]):
            raise ValueError(f"decay {decay.shape} does not fit drive {drive.shape}")
    if blocks and (decay.shape[-1] != 2 or drive.shape[-1] != 2):
        raise ValueError(f"blocks are 2x2 on pairs: got decay {decay.shape}, drive {drive.shape}")
    if engine not in (Engine.SEQUENTIAL, Engine.ASSOCIATIVE):
        raise ValueError(f"engine must be sequential or associative, not {engine.value}")
    if engine is Engine.ASSOCIATIVE and is_symbolic_dim(drive.shape[time_axis]):
        raise ValueError(
            f"the associative engine needs a number of steps, got {drive.shape[time_axis]}; "
            "the sequential engine runs any"
        )
    expected = drive.shape[:time_axis] + drive.shape[time_axis + 1 :]
    if initial_state is not None and initial_state.shape != expected:
        raise ValueError(f"initial_state has shape {initial_state.shape}; expected {expected}")
    dtype = _state_dtype(decay, drive, initial_state)
    decay, drive = decay.astype(dtype), drive.astype(dtype)
    keep = None
    if resets is not None:
        if resets.dtype != bool:
            raise TypeError(f"resets must be bool, not {resets.dtype}")
        if resets.shape != drive.shape[: time_axis + 1]:
            raise ValueError(f"resets {resets.shape} do not fit drive {drive.shape}")
        keep = resets.reshape(resets.shape + (1,) * (drive.ndim - resets.ndim))
        keep = jnp.moveaxis(1 - keep.astype(drive.dtype), time_axis, 0)
    decay, drive = jnp.moveaxis(decay, time_axis, 0), jnp.moveaxis(drive, time_axis, 0)
    with jax.named_scope(engine.scope):
        if initial_state is not None:
            start = apply_decay(decay[0], initial_state.astype(dtype))
            drive = drive.at[0].add(start if keep is None else keep[0] * start)
        states = _traced_states(engine, decay, keep, drive)
    return jnp.moveaxis(states, 0, time_axis)


def _state_dtype(*arrays):
    """Return complex64 if one of the arrays is complex, else float32, whatever widths come in."""
    is_complex = any(jnp.iscomplexobj(array) for array in arrays if array is not None)
    return jnp.complex64 if is_complex else jnp.float32


def apply_decay(decay: jax.Array, state: jax.Array) -> jax.Array:
    """Return decay times state, elementwise or block by block (ranks tell which)."""
    if decay.ndim == state.ndim:
        return decay * state
    # Column by column: no array has a block for each step where one serves all.
    return decay[..., 0] * state[..., :1] + decay[..., 1] * state[..., 1:]


def _compose(earlier, later):
    decay1, drive1 = earlier
    decay2, drive2 = later
    product = _product(decay2, decay1, blocks=decay1.ndim > drive1.ndim)
    return product, apply_decay(decay2, drive1) + drive2


def _product(later, earlier, blocks):
    if not blocks:
        return later * earlier
    return jnp.sum(later[..., :, :, None] * earlier[..., None, :, :], axis=-2)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _states(engine, decay, keep, drive):
    """Run from rest. Time is axis 0; decay's may have size 1. keep is 0 where a step resets."""
    if engine is Engine.SEQUENTIAL:
        return _steps(decay, keep, drive)
    if decay.shape[0] == 1:
        count = max(drive.shape[0] - 1, 1).bit_length()
        factors = _squarings(decay[0], count, blocks=decay.ndim > drive.ndim)
        return _prefixes(factors, keep, drive)
    if keep is not None:
        decay = decay * keep.reshape(*keep.shape, *(1,) * (decay.ndim - keep.ndim))
    return jax.lax.associative_scan(_compose, (decay, drive))[1]


@_states.defjvp
def _states_jvp(engine, primals, tangents):
    decay, keep, drive = primals
    states = _states(engine, decay, keep, drive)

    # Products of decays that differ are formed again in the backward pass, not kept for it.
    @functools.partial(jax.checkpoint, prevent_cse=decay.shape[0] != 1)
    def moved(decay, keep, states, decay_moved, drive_moved):
        previous = jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])
        passed = apply_decay(decay_moved, previous)
        passed = passed if keep is None else keep * passed
        return _states(engine, decay, keep, drive_moved + passed)

    return states, moved(decay, keep, states, tangents[0], tangents[2])


# Traced once for each shape, wherever it is used.
_traced_states = jax.jit(_states, static_argnums=0)


def _steps(decay, keep, drive):
    constant = decay.shape[0] == 1

    def step(state, inputs):
        decay_t, keep_t, drive_t = inputs
        state = apply_decay(decay[0] if constant else decay_t, state)
        state = (state if keep is None else keep_t * state) + drive_t
        return state, state

    inputs = (None if constant else decay, keep, drive)
    return jax.lax.scan(step, jnp.zeros_like(drive[0]), inputs)[1]


def _squarings(decay, count, blocks):
    """Return decay^(2^k) for k < count; numbers in single precision are rounded but once."""
    if not blocks and decay.dtype in (jnp.float32, jnp.complex64):
        powers = binary_powers(decay.astype(jnp.complex64), count)
        return powers if jnp.iscomplexobj(decay) else powers.real
    powers = [decay]
    for _ in range(count - 1):
        powers.append(_product(powers[-1], powers[-1], blocks))
    return powers


def _prefixes(factors, keep, drive):
    """Scan with one decay for all steps: the tree of `lax.associative_scan`, without the decays.

    Products of decays inside the tree would be as many as steps, and lose digits at each doubling;
    `factors` are the decay's powers 1, 2, 4, ...
    """
    length = drive.shape[0]
    if length == 1:
        return drive
    decay, half, passes = factors[0][None], length // 2, keep

    def passed(states, keep):
        states = apply_decay(decay, states)
        return states if keep is None else keep * states

    into_odd = into_even = None
    if keep is not None:
        into_odd, into_even = keep[1::2], keep[2::2]
        passes = keep[: 2 * half : 2] * keep[1::2]
    odd = drive[1::2] + passed(drive[: 2 * half : 2], into_odd)
    odd = _prefixes(factors[1:], passes, odd)
    even = drive[::2].at[1:].add(passed(odd[: (length - 1) // 2], into_even))
    if length % 2:
        odd = jnp.pad(odd, [(0, 1)] + [(0, 0)] * (odd.ndim - 1))
    return jnp.stack([even, odd], axis=1).reshape(-1, *drive.shape[1:])[:length]
