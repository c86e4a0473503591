"""Check the arguments of a recurrence and lay them out for the engines."""

import functools
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.gated.lanes import Selective
from pspike_jax.functional.gated.plain import Equations
from pspike_jax.functional.gated.products import PRODUCTS, Products
from pspike_jax.functional.gated.segments import Form
from pspike_jax.functional.gated.selective import SELECTIVE


class Kind(NamedTuple):
    """A kind of recurrence.

    Attributes:
      form: for the chunked engine.
      equations: of what all steps share, for the others.
    """

    form: Form
    equations: Callable[[Any], Equations]


class Problem(NamedTuple):
    """A recurrence as all engines take it.

    Attributes:
      kind: of the recurrence.
      inputs: pytree of (B, L, ...).
      shared: what all steps share.
      start: (B, ...), the state before the first step.
      resets: (B, L) bool or None.
      shapes: of the outputs and of the state, as the caller sees them.
    """

    kind: Kind
    inputs: Any
    shared: Any
    start: jax.Array
    resets: jax.Array | None
    shapes: tuple[tuple[int, ...], tuple[int, ...]]


def selective_problem(x, dt, A, b, c, initial_state, resets) -> Problem:
    """Lay out the arguments of `selective_recurrence`; raises as it does."""
    x, dt, A, b, c = (jnp.asarray(array) for array in (x, dt, A, b, c))
    if x.ndim != 3 or x.shape[1] < 1:
        raise ValueError(f"x must be (B, L, D) with a step or more, not {x.shape}")
    if A.ndim != 2:
        raise ValueError(f"A must be (D, N), not {A.shape}")
    b, c = (array[:, :, None] if array.ndim == 3 else array for array in (b, c))
    (batch, length, channels), states = x.shape, A.shape[1]
    groups = _groups(b, channels)
    shape = (batch, channels, states)
    _check_shapes(
        x.shape,
        dt=(dt, x.shape),
        A=(A, (channels, states)),
        b=(b, (batch, length, groups, states)),
        c=(c, (batch, length, groups, states)),
        initial_state=(initial_state, shape),
    )
    _check_resets(resets, (batch, length))
    dtype = _state_dtype(x, dt, A, b, c, initial_state)
    grouped = lambda array: array.reshape(batch, length, groups, channels // groups)
    start = _start(initial_state, shape, dtype).reshape(batch, groups, -1, states)
    rates = jnp.swapaxes(A.astype(dtype).reshape(groups, -1, states), 1, 2)
    inputs, rates, start, resets = _varying_alike(
        (Selective(grouped(x), grouped(dt), b, c), rates, start, resets)
    )
    return Problem(_SELECTIVE_KIND, inputs, rates, start, resets, (x.shape, shape))


def gated_problem(x, b, c, log_decay, initial_state, resets) -> Problem:
    """Lay out the arguments of `gated_recurrence`; raises as it does."""
    x, b, c, log_decay = (jnp.asarray(array) for array in (x, b, c, log_decay))
    if x.ndim != 4 or x.shape[1] < 1:
        raise ValueError(f"x must be (B, L, H, P) with a step or more, not {x.shape}")
    if b.ndim != 4:
        raise ValueError(f"b must be (B, L, H, N) or (B, L, G, N), not {b.shape}")
    (batch, length, heads, columns), rows = x.shape, b.shape[-1]
    groups = _groups(b, heads)
    shape = (batch, heads, rows, columns)
    if log_decay.ndim == 3:
        log_decay = log_decay[..., None]
    decays = rows if log_decay.shape[-1] == rows else 1
    _check_shapes(
        x.shape,
        b=(b, (batch, length, groups, rows)),
        c=(c, (batch, length, groups, rows)),
        log_decay=(log_decay, (batch, length, heads, decays)),
        initial_state=(initial_state, shape),
    )
    _check_resets(resets, (batch, length))
    dtype = _state_dtype(x, b, c, log_decay, initial_state)
    grouped = lambda array: array.reshape(batch, length, groups, heads // groups, -1)
    start = _start(initial_state, shape, dtype)
    start = start.reshape(batch, groups, heads // groups, rows, columns)
    inputs, start, resets = _varying_alike(
        (Products(grouped(x), b, c, grouped(log_decay)), start, resets)
    )
    return Problem(_PRODUCT_KIND, inputs, None, start, resets, (x.shape, shape))


def _selective_equations(rates):
    by_state = jnp.swapaxes(rates, 1, 2)

    def log_decay(inputs):
        own = by_state.reshape((1,) * (inputs.dt.ndim - 2) + by_state.shape)
        return inputs.dt[..., None] * own

    return Equations(
        log_decay,
        lambda inputs: inputs.x[..., None] * inputs.b[..., None, :],
        lambda state, inputs: jnp.sum(state * inputs.c[..., None, :], axis=-1),
    )


def _product_equations(_):
    return Equations(
        lambda inputs: inputs.log_decay[..., None],
        lambda inputs: inputs.b[..., None, :, None] * inputs.x[..., None, :],
        lambda state, inputs: jnp.sum(state * inputs.c[..., None, :, None], axis=-2),
    )


_SELECTIVE_KIND = Kind(SELECTIVE, _selective_equations)
_PRODUCT_KIND = Kind(PRODUCTS, _product_equations)


def _groups(b, size):
    groups = b.shape[2] if b.ndim == 4 else 0
    if groups < 1 or size % groups:
        raise ValueError(f"b has shape {b.shape}: its groups must divide {size}")
    return groups


def _check_shapes(x_shape, **expected):
    for name, (value, shape) in expected.items():
        if value is not None and value.shape != shape:
            raise ValueError(f"{name} has shape {value.shape}; x {x_shape} expects {shape}")


def _check_resets(resets, shape):
    if resets is None:
        return
    if resets.dtype != bool:
        raise TypeError(f"resets must be bool, not {resets.dtype}")
    if resets.shape != shape:
        raise ValueError(f"resets have shape {resets.shape}; expected {shape}")


def _state_dtype(*arrays):
    wide = any(array is not None and array.dtype == jnp.float64 for array in arrays)
    return jnp.float64 if wide else jnp.float32


def _start(initial_state, shape, dtype):
    return jnp.zeros(shape, dtype) if initial_state is None else initial_state.astype(dtype)


def _varying_alike(tree):
    """Let all arrays vary over the mesh axes that one does, which loops inside `shard_map` need."""
    leaves = jax.tree.leaves(tree)
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return tree
    # False, and compiled away, but of the type of everything that takes part.
    never = functools.reduce(jnp.logical_or, [jnp.any(leaf != leaf) for leaf in leaves]) & False
    return jax.tree.map(
        lambda leaf: leaf | never if leaf.dtype == bool else leaf + never.astype(leaf.dtype), tree
    )
