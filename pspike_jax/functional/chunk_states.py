"""The short scan of the chunked engine: states between chunks, with a hand-written backward pass.

    X_{k+1} = transition X_k + drive_k,    or from the end,    Z_{k-1} = transition Z_k + drive_k.

States are real. A diagonal complex transition is stored as (H, 2N), imaginary parts behind real
ones, like its states; a dense one is (H, S, S) and acts on rows, X_k @ transition.
"""

import functools

import jax
import jax.numpy as jnp


def as_reals(z: jax.Array) -> jax.Array:
    """Store complex numbers (..., N) as real ones (..., 2N), imaginary parts behind real ones."""
    return jnp.concatenate([z.real, z.imag], axis=-1)


def multiply(x: jax.Array, y: jax.Array) -> jax.Array:
    """Multiply complex numbers that are stored as by `as_reals`."""
    a, b = jnp.split(x, 2, axis=-1)
    c, d = jnp.split(y, 2, axis=-1)
    return jnp.concatenate([a * c - b * d, a * d + b * c], axis=-1)


def _conjugate(z):
    re, im = jnp.split(z, 2, axis=-1)
    return jnp.concatenate([re, -im], axis=-1)


def advance(transition: jax.Array, state: jax.Array) -> jax.Array:
    """Return transition times state.

    Args:
      transition: (H, 2N) diagonal or (H, S, S) dense.
      state: (H, B, 2N) or (H, B, S).

    Returns:
      Of state's shape.
    """
    if transition.ndim == 2:
        return multiply(transition[:, None], state)
    return jnp.einsum("hbm,hmn->hbn", state, transition, precision="highest")


def _transposed(transition):
    return _conjugate(transition) if transition.ndim == 2 else transition.swapaxes(1, 2)


def _outer(states, adjoints):
    """Return the cotangent of the transition, from the states and their successors' adjoints."""
    if states.ndim == 4:
        return jnp.einsum("hkbm,hkbn->hmn", states, adjoints, precision="highest")
    return jnp.sum(multiply(_conjugate(states), adjoints), axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def scan_chunks(
    reverse: bool,
    transition: jax.Array,
    error: jax.Array | None,
    drive: jax.Array,
    start: jax.Array,
    keep: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Run the recurrence over axis 1 of the drive, or from its end.

    Args:
      reverse: from the end.
      transition: (H, 2N) diagonal or (H, S, S) dense, M = 2N or S below.
      error: (H, 2N), what a diagonal transition lost when it was rounded, or None.
      drive: (H, K, B, M).
      start: (H, B, M), the state before the first chunk, behind the last one in reverse.
      keep: (K, B), 0 where a chunk lets no state pass, else 1; all pass if None. Takes no gradient.

    Returns:
      states: (H, K, B, M), the one that each chunk sees.
      last: (H, B, M), the one that the last chunk (in scan order) sees.
    """
    chunks = drive.shape[1]

    def step(k, carry):
        state, states = carry
        k = chunks - 1 - k if reverse else k
        states = _put(states, state, k)
        passed = _keep(keep, k, state)
        added = _take(drive, k)
        if error is not None:
            added += advance(error, passed)
        return advance(transition, passed) + added, states

    # The last chunk's own drive is not needed, so the scan stops one step early.
    state, states = jax.lax.fori_loop(0, chunks - 1, step, (start, jnp.zeros_like(drive)))
    return _put(states, state, 0 if reverse else chunks - 1), state


def _scan_chunks_fwd(reverse, transition, error, drive, start, keep):
    states, last = scan_chunks(reverse, transition, error, drive, start, keep)
    return (states, last), (transition, error, states, keep)


def _scan_chunks_bwd(reverse, residuals, cotangents):
    transition, error, states, keep = residuals
    states_bar, last_bar = cotangents
    chunks = states.shape[1]
    diagonal = transition.ndim == 2
    back = _transposed(transition)
    correction = None if error is None else _transposed(error)

    def step(i, carry):
        adjoint, transition_bar, drive_bar = carry
        # adjoint belongs to the state that chunk k + 1 (in scan order) sees.
        k = chunks - 2 - i
        k = chunks - 1 - k if reverse else k
        drive_bar = _put(drive_bar, adjoint, k)
        adjoint = _keep(keep, k, adjoint)
        if diagonal:
            transition_bar += _outer(_take(states, k), adjoint)
        own = _take(states_bar, k)
        if correction is not None:
            own += advance(correction, adjoint)
        return advance(back, adjoint) + own, transition_bar, drive_bar

    first = _take(states_bar, 0 if reverse else chunks - 1) + last_bar
    carry = (first, jnp.zeros_like(transition), jnp.zeros_like(states))
    adjoint, transition_bar, drive_bar = jax.lax.fori_loop(0, chunks - 1, step, carry)
    if not diagonal:
        # One product over all chunks: inside the loop it would be as large as the scan itself.
        passed = drive_bar if keep is None else keep[None, :, :, None] * drive_bar
        transition_bar = _outer(states, passed)
    nothing = tuple(None if a is None else jnp.zeros_like(a) for a in (error, keep))
    return transition_bar, nothing[0], drive_bar, adjoint, nothing[1]


scan_chunks.defvjp(_scan_chunks_fwd, _scan_chunks_bwd)


def _take(array, k):
    return jax.lax.dynamic_index_in_dim(array, k, 1, keepdims=False)


def _put(array, value, k):
    return jax.lax.dynamic_update_index_in_dim(array, value, k, 1)


def _keep(keep, k, state):
    if keep is None:
        return state
    return state * jax.lax.dynamic_index_in_dim(keep, k, 0, keepdims=False)[None, :, None]
