"""What XLA needs on CPUs, measured: boundaries between programs, and blocks of features.

It fuses elementwise producers and slices into transposes, which then lose their tiled loops (eight
times slower), and runs the elementwise part without vector instructions, once for each reader. It
takes no optimization barrier for an answer; a branch is a boundary that it keeps: `barrier`.

What a long sequence costs is memory traffic, most of all the first touch of fresh pages. The
features of an SSM never meet, so it can be run a few of them at a time: temporaries of one block
stay in the cache and are used again by the next. The backward pass runs the forward pass of a block
again, which costs less than storing its states would: `by_features`.

Accelerators have no such costs: they get the plain program, and all features at once. So does every
platform where a dimension has no number yet (`jax.export`) or where explicit axes of a mesh split
the arrays: slices of these would have to be sent around.
"""

import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from pspike_jax.functional.meshes import is_split, vary_alike

# Elements of the input that one block holds: 1 MB, within the cache of a core.
BLOCK_ELEMENTS = 2**18
# Half a cache line of floats; narrower blocks would read each line more than twice.
LEAST_FEATURES = 8

Run = Callable[[jax.Array, Any, jax.Array | None], tuple[jax.Array | None, Any]]


def barrier(function: Callable[..., Any], *arguments: jax.Array) -> Any:
    """Return function(*arguments), compiled on CPUs as a program of its own.

    Args:
      function: of `arguments` to a pytree of arrays.
      arguments: arrays; the first has elements of 32 bits and is no constant of the program.

    Returns:
      What the function returns.
    """
    if 0 in arguments[0].shape or is_split(arguments):
        return function(*arguments)

    def branch(*arguments):
        result = jax.eval_shape(function, *arguments)

        def never(*_):
            return jax.tree.map(jnp.zeros_like, result)

        first = jax.lax.stop_gradient(arguments[0][(0,) * arguments[0].ndim])
        # Always true, but not to the compiler: no word with its lowest bit set is zero.
        word = jax.lax.bitcast_convert_type(first, jnp.uint32)
        return jax.lax.cond((word | 1) != 0, function, never, *arguments)

    return jax.lax.platform_dependent(*arguments, cpu=branch, default=function)


def by_features(
    run: Run, u: jax.Array, system: Any, resets: jax.Array | None
) -> tuple[jax.Array | None, Any]:
    """Return run(u, system, resets), evaluated in blocks of features on CPUs.

    Nothing but the arguments is kept for the backward pass. There is no forward-mode derivative.

    Args:
      run: maps an input (B, L, h), a system whose leaves lead with the h features, and resets to
        an output (B, L, h), or None, and a state whose leaves lead with the features.
      u: (B, L, H) float32.
      system: pytree of arrays (H, ...).
      resets: (B, L) bool or None.

    Returns:
      y: (B, L, H) or None; state: leaves (H, ...).
    """
    return _by_features(run, *vary_alike((u, system, resets)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_features(run, u, system, resets):
    return _per_platform(functools.partial(_forward, run), u, system, resets)


def _fwd(run, u, system, resets):
    return _by_features(run, u, system, resets), (u, system, resets)


def _bwd(run, residuals, cotangents):
    loop = functools.partial(_backward, run)
    u_bar, system_bar = _per_platform(loop, *residuals, cotangents)
    return u_bar, system_bar, None


_by_features.defvjp(_fwd, _bwd)


def _per_platform(loop, u, *arguments):
    batch, length, features = u.shape
    block = block_size(batch * length, features)
    arguments = (u, *arguments)
    if block == features or is_split(arguments):
        return loop(features, *arguments)
    return jax.lax.platform_dependent(
        *arguments,
        cpu=functools.partial(loop, block),
        default=functools.partial(loop, features),
    )


def block_size(rows: int, features: int) -> int:
    """Return the number of features of a block, for `rows` elements of each feature.

    All of them where one of the two is a dimension without a number.
    """
    if is_symbolic_dim(rows) or is_symbolic_dim(features):
        return features
    return min(features, max(LEAST_FEATURES, BLOCK_ELEMENTS // max(1, rows)))


def _forward(run, block, u, system, resets):
    features = u.shape[-1]
    if block == features:
        return run(u, system, resets)

    def body(i, results):
        start = _start(i, block, features)
        y, state = run(_block(u, start, block, 2), _blocks(system, start, block), resets)
        return _puts(results[0], y, start, 2), _puts(results[1], state, start, 0)

    empty = jax.tree.map(jnp.zeros_like, jax.eval_shape(run, u, system, resets))
    return jax.lax.fori_loop(0, -(-features // block), body, empty)


def _backward(run, block, u, system, resets, cotangents):
    features = u.shape[-1]

    def pull_back(u, system, y_bar, state_bar):
        return jax.vjp(lambda u, system: run(u, system, resets), u, system)[1]((y_bar, state_bar))

    if block == features:
        return pull_back(u, system, *cotangents)

    def body(i, results):
        start = _start(i, block, features)
        y_bar, state_bar = cotangents
        u_bar, system_bar = pull_back(
            _block(u, start, block, 2),
            _blocks(system, start, block),
            jax.tree.map(lambda a: _block(a, start, block, 2), y_bar),
            _blocks(state_bar, start, block),
        )
        return _puts(results[0], u_bar, start, 2), _puts(results[1], system_bar, start, 0)

    empty = jnp.zeros_like(u), jax.tree.map(jnp.zeros_like, system)
    return jax.lax.fori_loop(0, -(-features // block), body, empty)


def _start(i, block, features):
    # The last block overlaps the one before where the block does not divide the features; the
    # same values are then written twice.
    return jnp.minimum(i * block, features - block)


def _block(array, start, block, axis):
    return jax.lax.dynamic_slice_in_dim(array, start, block, axis)


def _blocks(system, start, block):
    return jax.tree.map(lambda a: _block(a, start, block, 0), system)


def _puts(arrays, values, start, axis):
    def put(array, value):
        return jax.lax.dynamic_update_slice_in_dim(array, value, start, axis)

    return jax.tree.map(put, arrays, values)
