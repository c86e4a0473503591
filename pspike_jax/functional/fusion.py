"""Keep XLA for CPUs from fusing what is faster apart.

It fuses elementwise producers and slices into transposes, which then lose their tiled loops (eight
times slower), and runs the elementwise part without vector instructions, once for each reader. It
takes no optimization barrier for an answer; a branch is a boundary that it keeps.
"""

from typing import Callable

import jax
import jax.numpy as jnp


def apart(function: Callable[..., jax.Array], word: jax.Array, *arguments) -> jax.Array:
    """Return function(*arguments), compiled on CPUs as a program of its own.

    Args:
      function: of `arguments` to one array.
      word: scalar uint32, not a constant of the program; its value does not matter.
      arguments: arrays.

    Returns:
      What the function returns.
    """

    def branch(*arguments):
        result = jax.eval_shape(function, *arguments)

        def never(*_):
            return jnp.zeros(result.shape, result.dtype)

        # Always true, but not to the compiler: no word with its lowest bit set is zero.
        return jax.lax.cond((word | 1) != 0, function, never, *arguments)

    return jax.lax.platform_dependent(*arguments, cpu=branch, default=function)


def word_of(array: jax.Array) -> jax.Array:
    """Return the bits of the first element of a float32 array, a `word` for `apart`."""
    first = jax.lax.stop_gradient(array[(0,) * array.ndim])
    return jax.lax.bitcast_convert_type(first, jnp.uint32)
