"""Two players of a conditional moment: f solves E[Y - f(X) | Z] = 0, u(Z) tests whether it does.

    min over f, max over u of E[(f(X) - Y) u(Z) - u(Z)^2 / 2 + alpha f(X)^2 / 2]

For a given f the best u is E[f(X) - Y | Z], so that what is minimised is half the mean square of
the violated moment.
"""

import jax
import jax.numpy as jnp


def two_layer(weights: jax.Array, signs: jax.Array, x: jax.Array) -> jax.Array:
    """Return m^(-1/2) sum_r b_r relu(<W_r, x>), a network of which W alone is learnt.

    Args:
      weights: (m, d), W.
      signs: (m,) +-1, b.
      x: (..., d), of unit length in the theory.

    Returns:
      (...) of the type of x.
    """
    return jax.nn.relu(x @ weights.T) @ signs * len(signs) ** -0.5


def moment_game(f: jax.Array, u: jax.Array, target: jax.Array, alpha: float) -> jax.Array:
    """Return what f makes small and u large, elementwise.

    Args:
      f: values f(X), or f(X) - gamma f(X') for Bellman equations.
      u: values u(Z).
      target: Y.
      alpha: weight of f's square, 0 or more.

    Returns:
      Of their shape.
    """
    return (f - target) * u - u**2 / 2 + alpha * f**2 / 2


def project(weights: jax.Array, center: jax.Array, radius: float) -> jax.Array:
    """Return the nearest weights at most `radius` from a center, all entries taken as one vector.

    Args:
      weights: any shape.
      center: of that shape.
      radius: above 0.
    """
    away = weights - center
    squares = jnp.sum(away**2)
    outside = squares > radius**2
    scale = radius / jnp.sqrt(jnp.where(outside, squares, radius**2))
    return jnp.where(outside, center + scale * away, weights)


@jax.custom_vjp
def reversed_gradient(x: jax.Array) -> jax.Array:
    """Return x; its gradient has the other sign: who minimises before it maximises behind it."""
    return x


reversed_gradient.defvjp(lambda x: (x, None), lambda _, bar: (-bar,))
