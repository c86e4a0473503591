"""Decomposed linear dynamics: x_{t+1} = (sum_m c_{t,m} F_m) x_t, a few operators F_m for all steps.

Given the operators, the coefficients of a step solve a small least-squares problem with the columns
G_t = [F_1 x_t .. F_M x_t]; given the coefficients, the operators do. Functions here take one trial,
states (L, p), and `vmap` over trials; steps that do not count are left out by a mask (L - 1,). All
compute in the type of their states.
"""

import functools

import jax
import jax.numpy as jnp

SQUARINGS = 40  # F^(2^40): what Gelfand's formula still misses is below rounding


def columns(operators: jax.Array, states: jax.Array) -> jax.Array:
    """Return G, what each operator makes of each state.

    Args:
      operators: (M, p, p).
      states: (..., p).

    Returns:
      (..., p, M).
    """
    return jnp.einsum("mij,...j->...im", operators, states)


def predict(operators: jax.Array, coefficients: jax.Array, states: jax.Array) -> jax.Array:
    """Return the states one step later.

    Args:
      operators: (M, p, p).
      coefficients: (..., M).
      states: (..., p).

    Returns:
      (..., p).
    """
    return jnp.einsum("...im,...m->...i", columns(operators, states), coefficients)


def least_squares(G: jax.Array, target: jax.Array, ridge: float = 0.0) -> jax.Array:
    """Minimise |target - G c|^2 + ridge |c|^2; without ridge the shortest of the minimisers.

    Args:
      G: (p, M).
      target: (p,).
      ridge: 0 or more.

    Returns:
      c (M,).
    """
    if not ridge:
        return jnp.linalg.pinv(G) @ target
    gram = G.T @ G + ridge * jnp.eye(G.shape[1], dtype=G.dtype)
    return jax.scipy.linalg.solve(gram, G.T @ target, assume_a="pos")


def fista(
    G: jax.Array, target: jax.Array, sparsity: float, iterations: int = 200
) -> jax.Array:
    """Minimise |target - G c|^2 + sparsity |c|_1 by accelerated proximal gradients.

    Momentum starts anew whenever it points uphill (O'Donoghue and Candes 2015).

    Args:
      G: (p, M).
      target: (p,).
      sparsity: weight of the sum of absolute values; there is no factor 1/2 before the square.
      iterations: a fixed number.

    Returns:
      c (M,).
    """
    gram, corr = G.T @ G, G.T @ target
    tiny = jnp.finfo(G.dtype).tiny
    # The largest eigenvalue is at most the largest sum of a row's sizes.
    bound = 2 * jnp.max(jnp.sum(jnp.abs(gram), axis=1))
    step = 1 / jnp.maximum(bound, tiny)

    def iterate(_, carry):
        c, ahead, momentum = carry
        moved = ahead - step * 2 * (gram @ ahead - corr)
        new = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - step * sparsity, 0)
        uphill = jnp.vdot(ahead - new, new - c) > 0
        momentum = jnp.where(uphill, 1, momentum)
        following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / following * (new - c)
        return new, jnp.where(uphill, new, ahead), following

    zero = jnp.zeros(G.shape[1], G.dtype)
    return jax.lax.fori_loop(0, iterations, iterate, (zero, zero, jnp.ones((), G.dtype)))[0]


def infer_coefficients(
    operators: jax.Array,
    states: jax.Array,
    *,
    solver: str = "ridge",
    penalty: float = 0.0,
    smooth: float = 0.0,
    iterations: int = 200,
) -> jax.Array:
    """Explain each step of a trial by the operators.

    Args:
      operators: (M, p, p).
      states: (L, p).
      solver: "ridge" or "fista".
      penalty: weight of |c|^2, or of |c|_1.
      smooth: weight of |c_t - c_{t-1}|^2 from the second step on; then steps are solved in order
        of time, else side by side.
      iterations: of fista.

    Returns:
      (L - 1, M); row t explains states[t + 1].

    Raises:
      ValueError: the solver is neither.
    """
    solve = {
        "ridge": lambda G, target: least_squares(G, target, penalty),
        "fista": lambda G, target: fista(G, target, penalty, iterations),
    }.get(solver)
    if solve is None:
        raise ValueError(f"solver is {solver!r}; expected 'ridge' or 'fista'")
    G, targets = columns(operators, states[:-1]), states[1:]
    if not smooth:
        return jax.vmap(solve)(G, targets)
    rows = smooth**0.5 * jnp.eye(G.shape[2], dtype=G.dtype)

    def following(before, step):
        G, target = step
        target = jnp.concatenate([target, smooth**0.5 * before])
        c = solve(jnp.concatenate([G, rows]), target)
        return c, c

    first = solve(G[0], targets[0])
    _, later = jax.lax.scan(following, first, (G[1:], targets[1:]))
    return jnp.concatenate([first[None], later])


def residuals(operators: jax.Array, coefficients: jax.Array, states: jax.Array) -> jax.Array:
    """Return what each step of a trial leaves unexplained, (L - 1, p)."""
    return states[1:] - predict(operators, coefficients, states[:-1])


def operator_step(
    operators: jax.Array,
    coefficients: jax.Array,
    states: jax.Array,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Return the direction of steepest descent of the mean squared residual, coefficients fixed.

    Args:
      operators: (M, p, p).
      coefficients: (n, L - 1, M).
      states: (n, L, p).
      mask: (n, L - 1) bool, steps that count; all if None.

    Returns:
      (M, p, p), the mean over steps of 2 c_m (x_{t+1} - xhat_{t+1}) x_t^T.
    """
    left = jax.vmap(functools.partial(residuals, operators))(coefficients, states)
    weight = jnp.ones(left.shape[:2], left.dtype) if mask is None else mask.astype(left.dtype)
    weight = weight / jnp.maximum(jnp.sum(weight), 1)
    return 2 * jnp.einsum("nt,ntm,nti,ntj->mij", weight, coefficients, left, states[:, :-1])


def fit_operators(
    coefficients: jax.Array, states: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Return the operators of least squared residual for given coefficients: shortest of them.

    Args:
      coefficients: (n, L - 1, M).
      states: (n, L, p).
      mask: as in `operator_step`.

    Returns:
      (M, p, p).
    """
    M, p = coefficients.shape[-1], states.shape[-1]
    inputs = jnp.einsum("ntm,ntj->ntmj", coefficients, states[:, :-1]).reshape(-1, M * p)
    targets = states[:, 1:].reshape(-1, p)
    if mask is not None:
        inputs, targets = (jnp.where(mask.reshape(-1, 1), a, 0) for a in (inputs, targets))
    found = jnp.linalg.lstsq(inputs, targets)[0]
    return jnp.transpose(found.reshape(M, p, p), (0, 2, 1))


def spectral_radius(operators: jax.Array) -> jax.Array:
    """Return the largest absolute eigenvalue, by Gelfand's formula: products alone, on any device.

    Args:
      operators: (..., p, p).

    Returns:
      (...) real.
    """
    tiny = jnp.finfo(operators.dtype).tiny

    def square(i, carry):
        power, total = carry
        size = jnp.maximum(jnp.max(jnp.abs(power), axis=(-2, -1)), tiny)
        power = power / size[..., None, None]
        return power @ power, total + jnp.log(size) * jnp.exp2(-i.astype(operators.dtype))

    start = operators, jnp.zeros(operators.shape[:-2], operators.dtype)
    return jnp.exp(jax.lax.fori_loop(0, SQUARINGS, square, start)[1])


def normalise(operators: jax.Array) -> jax.Array:
    """Divide each operator by its spectral radius; one that is nilpotent stays as it is."""
    radius = spectral_radius(operators)[..., None, None]
    return operators / jnp.where(radius > jnp.finfo(operators.dtype).eps, radius, 1)
