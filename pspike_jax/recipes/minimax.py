"""Games of two players: one descends while the other ascends, at the same time."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.moments import moment_game, project, two_layer

Value = Callable[[Any, Any, Any], jax.Array]


def minimax_step(
    value: Value, low: Any, high: Any, batch: Any, step_size: float
) -> tuple[Any, Any, jax.Array]:
    """Move both players by their gradients at the old pair.

    Args:
      value: (low, high, batch) -> scalar that low makes small and high large.
      low: parameters of the player who descends, any tree.
      high: of the one who ascends.
      batch: examples.
      step_size: of both.

    Returns:
      low, high: after the step.
      loss: the value before it.
    """
    loss, (down, up) = jax.value_and_grad(value, argnums=(0, 1))(low, high, batch)
    low = jax.tree.map(lambda a, g: a - step_size * g, low, down)
    high = jax.tree.map(lambda a, g: a + step_size * g, high, up)
    return low, high, loss


class Moments(NamedTuple):
    """Two networks of one hidden layer that play for a conditional moment.

    Attributes:
      theta: (m, d_x) weights of f.
      omega: (m, d_z) weights of u.
      theta_signs, omega_signs: (m,) +-1.
    """

    theta: jax.Array
    omega: jax.Array
    theta_signs: jax.Array
    omega_signs: jax.Array


class MomentPath(NamedTuple):
    """What `fit_moments` returns.

    Attributes:
      players: after the last step.
      losses: (T,) value before each step.
      mean: (g,) the average over the iterates before each step of f on the grid: the estimate.
      last: (g,) f after the last step on the grid.
    """

    players: Moments
    losses: jax.Array
    mean: jax.Array
    last: jax.Array


def draw_moments(
    key: jax.Array, width: int, x_features: int, z_features: int, symmetric: bool = True
) -> Moments:
    """Draw both players: weights N(0, I / d), signs at random.

    Args:
      key: consumed.
      width: m; even where symmetric.
      x_features: d_x.
      z_features: d_z.
      symmetric: neurons come in pairs of opposite sign, so that both functions start at 0.

    Returns:
      The players.

    Raises:
      ValueError: the width is odd and the start symmetric.
    """
    if symmetric and width % 2:
        raise ValueError(f"width is {width}; expected an even number for a symmetric start")
    keys, drawn = jax.random.split(key, 4), width // 2 if symmetric else width
    weights = [
        jax.random.normal(one, (drawn, d), jnp.float32) * d**-0.5
        for one, d in zip(keys[:2], (x_features, z_features))
    ]
    signs = [jax.random.rademacher(one, (drawn,), jnp.float32) for one in keys[2:]]
    if symmetric:
        weights = [jnp.concatenate([w, w]) for w in weights]
        signs = [jnp.concatenate([s, -s]) for s in signs]
    return Moments(*weights, *signs)


@functools.partial(jax.jit, static_argnames=("alpha", "step_size", "radius"))
def fit_moments(
    players: Moments,
    inputs: jax.Array,
    targets: jax.Array,
    instruments: jax.Array,
    grid: jax.Array,
    *,
    alpha: float,
    step_size: float,
    radius: float | None = None,
) -> MomentPath:
    """Play one step on each batch, and average f, not its weights, over the steps.

    Args:
      players: the start, and the center of both projections.
      inputs: (T, n, d_x), X of T batches.
      targets: (T, n), Y.
      instruments: (T, n, d_z), Z.
      grid: (g, d_x), where f is wanted.
      alpha: weight of f's square.
      step_size: of both players.
      radius: of the balls that weights stay in, None for no projection.

    Returns:
      The estimate, and the path to it.
    """
    first = players

    def value(theta, omega, batch):
        x, y, z = batch
        f = two_layer(theta, first.theta_signs, x)
        u = two_layer(omega, first.omega_signs, z)
        return jnp.mean(moment_game(f, u, y, alpha))

    def step(carry, batch):
        theta, omega, total = carry
        total += two_layer(theta, first.theta_signs, grid)
        theta, omega, loss = minimax_step(value, theta, omega, batch, step_size)
        if radius is not None:
            theta = project(theta, first.theta, radius)
            omega = project(omega, first.omega, radius)
        return (theta, omega, total), loss

    none = jnp.zeros(len(grid), grid.dtype)
    start = first.theta, first.omega, none
    (theta, omega, total), losses = jax.lax.scan(step, start, (inputs, targets, instruments))
    players = first._replace(theta=theta, omega=omega)
    last = two_layer(theta, first.theta_signs, grid)
    return MomentPath(players, losses, total / len(inputs), last)
