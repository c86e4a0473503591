"""Second-order systems: forced, damped harmonic oscillators, P of them side by side.

    z' = -A x - G z + b,    x' = z        velocity z, position x, stiffness A, damping G

LinOSS (Rusch & Rus 2024) has no damping and steps implicitly (IM) or implicitly and explicitly in
turn (IMEX); D-LinOSS (Boyer et al. 2025) adds damping in four schemes. `Scheme.ZOH` is the exact
solution for a drive that is constant over a step, for signals whose time has a meaning.

Trained parameters are unbounded; a forward pass projects them on the set in which the scheme's two
eigenvalues are a conjugate pair inside the unit disc. The edges of that set depend on the other
parameters, and gradients reach those through them.
"""

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.multi_input import Blocks


class Scheme(str, enum.Enum):
    """How a step of size D is taken; u' stands for u after the step.

    Attributes:
      IM: z' = z + D(b - A x'), x' = x + D z'. No damping; contracts by 1 / sqrt(1 + D^2 A).
      IMEX: z' = z + D(b - A x), x' = x + D z'. No damping; keeps the volume, and is stable while
        D^2 A <= 4, which nothing enforces.
      DAMPED_IMEX1: z' = z + D(b - A x - G z'), x' = x + D z'; what the paper calls D-LinOSS.
      DAMPED_IMEX2: z' = z + D(b - A x - G z), x' = x + D z'.
      DAMPED_IM: z' = z + D(b - A x' - G z'), x' = x + D z'.
      DAMPED_EX: z' = z + D(b - A x - G z), x' = x + D z.
      ZOH: exact for a drive that is constant over the step.
    """

    IM = "im"
    IMEX = "imex"
    DAMPED_IMEX1 = "damped_imex1"
    DAMPED_IMEX2 = "damped_imex2"
    DAMPED_IM = "damped_im"
    DAMPED_EX = "damped_ex"
    ZOH = "zoh"

    @property
    def damped(self) -> bool:
        """Whether the scheme reads G."""
        return self not in (Scheme.IM, Scheme.IMEX)


class Oscillators(NamedTuple):
    """Parameters of P oscillators: stiffness A, damping G, step; (P,) float32 each.

    The damping of a scheme without any is 0. As stored, that is before `bounded`, the step is the
    argument of a sigmoid.
    """

    A: jax.Array
    G: jax.Array
    step: jax.Array


def bounded(stored: Oscillators, scheme: Scheme | str) -> Oscillators:
    """Project stored parameters on those for which a scheme is stable (D-LinOSS, appendix).

    DAMPED_IMEX2 has no stable stiffness where step * G exceeds 1: the square root that bounds it
    is not a number there, and under jit neither is the result. DAMPED_IM and DAMPED_EX bound G by
    the *stored* A first and A by that G after, so DAMPED_EX may leave the set by a little.

    Args:
      stored: any real numbers.
      scheme: of the step.

    Returns:
      A, G and the step in (0, 1).

    Raises:
      ValueError: DAMPED_IMEX2 with step * G above 1, where values are known (not under jit).
    """
    scheme = Scheme(scheme)
    A, G, step = (jnp.asarray(a, jnp.float32) for a in stored)
    step, relu = jax.nn.sigmoid(step), jax.nn.relu
    if not scheme.damped:
        return Oscillators(relu(A), jnp.zeros_like(A), step)
    if scheme is Scheme.ZOH:
        return Oscillators(relu(A), relu(G), step)
    if scheme in (Scheme.DAMPED_IM, Scheme.DAMPED_EX):
        least = step * A if scheme is Scheme.DAMPED_EX else -step * A
        G = least + relu(G - least)
        least = jnp.square(G) / 4
        return Oscillators(least + relu(A - least), G, step)
    G = relu(G)
    damping = step * G if scheme is Scheme.DAMPED_IMEX1 else -step * G
    _refuse_overdamping(damping)
    root, square = jnp.sqrt(1 + damping), jnp.maximum(jnp.square(step), 1e-6)
    # 2 + x -+ 2 sqrt(1 + x) is (sqrt(1 + x) -+ 1)^2, and sqrt(1 + x) - 1 is x / (sqrt(1 + x) + 1):
    # no digits are lost where damping is weak.
    low, high = jnp.square(damping / (root + 1)) / square, jnp.square(root + 1) / square
    return Oscillators(low + relu(A - low) - relu(A - high), G, step)


def _refuse_overdamping(damping):
    if isinstance(damping, jax.core.Tracer):
        return
    damping = np.ravel(damping)
    over = np.flatnonzero(damping < -1)
    if over.size:
        raise ValueError(
            f"damped_imex2 has no stable stiffness where step * G is above 1: oscillator "
            f"{over[0]} has {-float(damping[over[0]]):.4g} ({over.size} of {damping.size} do)"
        )


def discretize_oscillators(
    oscillators: Oscillators, scheme: Scheme | str, dt: jax.Array | None = None
) -> Blocks:
    """Give a scheme's transition and input map on (velocity, position).

    Args:
      oscillators: effective parameters, as from `bounded`; the step is positive.
      scheme: of the step.
      dt: (B, L) time since the last step in units of the oscillators' own step, which it
        multiplies; 1 if None. Only IM, DAMPED_IM and ZOH are stable for every dt: the others' A
        and G were bounded for dt = 1.

    Returns:
      transition (P, 2, 2) and gain (P, 2), float32; (B, L, P, ...) with dt.
    """
    scheme = Scheme(scheme)
    A, G, step = (jnp.asarray(a, jnp.float32) for a in oscillators)
    if dt is not None:
        spread = jnp.asarray(dt, jnp.float32)[..., None]
        step = spread * step[None, None]
        A, G = (jnp.broadcast_to(a, step.shape) for a in (A, G))
    if scheme is Scheme.ZOH:
        return _exact(A, G, step)
    explicit = scheme in (Scheme.DAMPED_IMEX2, Scheme.DAMPED_EX)
    implicit = 1 + step * G if scheme.damped and not explicit else jnp.ones_like(A)
    if scheme in (Scheme.IM, Scheme.DAMPED_IM):
        implicit = implicit + jnp.square(step) * A
    scale = 1 / implicit
    keeps = 1 - step * G if explicit else scale
    pulls, pushed = -scale * step * A, scale * step
    if scheme is Scheme.DAMPED_EX:
        return _blocks(keeps, pulls, step, jnp.ones_like(A), pushed, jnp.zeros_like(A))
    return _blocks(keeps, pulls, step * keeps, 1 + step * pulls, pushed, step * pushed)


def _blocks(zz, zx, xz, xx, z_gain, x_gain):
    rows = jnp.stack([jnp.stack([zz, zx], axis=-1), jnp.stack([xz, xx], axis=-1)], axis=-2)
    return Blocks(rows, jnp.stack([z_gain, x_gain], axis=-1))


def _exact(A, G, step):
    """Return exp(t [[-G, -A], [1, 0]]) and its integral's first column, in closed form."""
    half = 0.5 * step * G
    square = jnp.square(step) * A - jnp.square(half)  # (frequency t)^2, negative if overdamped
    cosine, sinc = _cosine_and_sinc(square)
    fall = jnp.exp(-half)
    sine = fall * step * sinc
    moves = fall * (cosine + half * sinc)  # what is left of a position
    # The position that a unit drive reaches, (1 - moves) / A, loses its digits where A t^2 is
    # small; there it is the integral of r sinc(r w) exp(-r half) over 0 < r < 1, by quadrature.
    stiff = jnp.square(step) * A
    soft = stiff < 0.5
    nodes, weights = np.polynomial.legendre.leggauss(12)
    reached = jnp.zeros_like(A)
    for r, weight in zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist()):
        _, inner = _cosine_and_sinc(r**2 * jnp.where(soft, square, 0))
        reached = reached + weight * r * inner * jnp.exp(-r * jnp.where(soft, half, 0))
    direct = (1 - moves) / jnp.where(soft, 1, stiff)
    gained = jnp.square(step) * jnp.where(soft, reached, direct)
    return _blocks(fall * (cosine - half * sinc), -A * sine, sine, moves, sine, gained)


def _cosine_and_sinc(square):
    """Return cos(w) and sin(w) / w of w = sqrt(square), hyperbolic where it is negative."""
    small = jnp.abs(square) < 0.1
    root = jnp.sqrt(jnp.where(small, 1, jnp.abs(square)))
    grows = square < 0
    # Each branch sees arguments that are safe for it, or its gradient would be NaN.
    turn, climb = jnp.where(grows, 1, root), jnp.where(grows, root, 1)
    cosine = jnp.where(grows, jnp.cosh(climb), jnp.cos(turn))
    sinc = jnp.where(grows, jnp.sinh(climb) / climb, jnp.sin(turn) / turn)
    near = jnp.where(small, square, 0)
    # Next terms of the series: below 1e-11.
    near_cosine = 1 - near / 2 * (1 - near / 12 * (1 - near / 30 * (1 - near / 56)))
    near_sinc = 1 - near / 6 * (1 - near / 20 * (1 - near / 42 * (1 - near / 72)))
    return jnp.where(small, near_cosine, cosine), jnp.where(small, near_sinc, sinc)


def ring_oscillators(
    key: jax.Array,
    count: int,
    scheme: Scheme | str,
    *,
    r_min: float = 0.9,
    r_max: float = 1.0,
    theta_min: float = 0.0,
    theta_max: float = np.pi,
    step_std: float = 0.5,
) -> Oscillators:
    """Draw oscillators whose eigenvalues are uniform on a ring of the unit disc.

    With s = 2 r cos(theta), trace and determinant of the transition are s and r^2; each scheme's
    two equations are solved for A and G.

    Args:
      key: PRNG key, consumed.
      count: P.
      scheme: a damped one.
      r_min, r_max: moduli, 0 < r_min <= r_max; uniform in area.
      theta_min, theta_max: arguments.
      step_std: standard deviation of the stored step, the argument of a sigmoid.

    Returns:
      Oscillators as stored. (DAMPED_IM's G is usually negative, which its bound allows.)

    Raises:
      ValueError: a scheme without damping, or radii or angles out of order.
    """
    scheme = Scheme(scheme)
    if not scheme.damped:
        raise ValueError(f"{scheme.value} has no damping to place its eigenvalues with")
    if not (0 < r_min <= r_max and 0 <= theta_min <= theta_max <= np.pi + 1e-6):
        raise ValueError(f"no ring: r {r_min} .. {r_max}, theta {theta_min} .. {theta_max}")
    modulus_key, angle_key, step_key = jax.random.split(key, 3)
    area = jax.random.uniform(modulus_key, (count,), jnp.float32, r_min**2, r_max**2)
    angle = jax.random.uniform(angle_key, (count,), jnp.float32, theta_min, theta_max)
    stored = step_std * jax.random.normal(step_key, (count,), jnp.float32)
    return placed_oscillators(jnp.sqrt(area), angle, stored, scheme)


def placed_oscillators(
    modulus: jax.Array, angle: jax.Array, stored_step: jax.Array, scheme: Scheme | str
) -> Oscillators:
    """Solve for the oscillators whose discrete eigenvalues are modulus * exp(+-i angle).

    Args:
      modulus: (P,) r, positive.
      angle: (P,) in [0, pi].
      stored_step: (P,) arguments of a sigmoid.
      scheme: a damped one.

    Returns:
      Oscillators as stored.
    """
    step, square = jax.nn.sigmoid(stored_step), jnp.square(modulus)
    trace = 2 * modulus * jnp.cos(angle)
    # |1 - r exp(i angle)|^2 without cancellation.
    gap = jnp.square(1 - modulus) + 4 * modulus * jnp.square(jnp.sin(angle / 2))
    match Scheme(scheme):
        case Scheme.ZOH:
            rate = jnp.log(modulus) / step
            return Oscillators(jnp.square(rate) + jnp.square(angle / step), -2 * rate, stored_step)
        case Scheme.DAMPED_IMEX1:
            A, G = gap / square, 1 / square - 1
        case Scheme.DAMPED_IMEX2:
            A, G = gap, 1 - square
        case Scheme.DAMPED_IM:
            A, G = gap / square, trace / square - 2
        case Scheme.DAMPED_EX:
            A, G = gap, 2 - trace
        case other:
            raise ValueError(f"{other.value} has no damping to place its eigenvalues with")
    return Oscillators(A / jnp.square(step), G / step, stored_step)


_BATCH, _MOST_BATCHES = 512, 1024


def uniform_oscillators(
    key: jax.Array,
    count: int,
    scheme: Scheme | str,
    *,
    A_range: tuple[float, float] = (0.0, 1.0),
    G_range: tuple[float, float] = (0.0, 1.0),
    step_std: float | None = 0.5,
) -> Oscillators:
    """Draw oscillators uniformly in A and G, keeping those that a scheme accepts as they are.

    Args:
      key: PRNG key, consumed.
      count: P.
      scheme: one without damping accepts everything, and ignores G_range.
      A_range: of the stiffness.
      G_range: of the damping.
      step_std: standard deviation of the stored step; None draws it from U(0, 1), as LinOSS does.

    Returns:
      Oscillators as stored; NaN where half a million draws did not suffice.
    """
    scheme = Scheme(scheme)

    def draw(key, size):
        A_key, G_key, step_key = jax.random.split(key, 3)
        A = jax.random.uniform(A_key, (size,), jnp.float32, *A_range)
        if step_std is None:
            step = jax.random.uniform(step_key, (size,), jnp.float32)
        else:
            step = step_std * jax.random.normal(step_key, (size,), jnp.float32)
        if not scheme.damped:
            return Oscillators(A, jnp.zeros_like(A), step)
        return Oscillators(A, jax.random.uniform(G_key, (size,), jnp.float32, *G_range), step)

    if not scheme.damped or scheme is Scheme.ZOH:
        return draw(key, count)

    def more(carry):
        batches, found, kept = carry
        drawn = draw(jax.random.fold_in(key, batches), _BATCH)
        valid = _accepts(drawn, scheme)
        # Places behind the ones already found, in the order of drawing; the others fall off.
        place = jnp.where(valid, found + jnp.cumsum(valid) - 1, count)
        kept = jax.tree.map(lambda a, b: a.at[place].set(b, mode="drop"), kept, drawn)
        return batches + 1, found + jnp.sum(valid), kept

    def lacking(carry):
        return (carry[1] < count) & (carry[0] < _MOST_BATCHES)

    unknown = jnp.full(count, jnp.nan, jnp.float32)
    start = jnp.int32(0), jnp.zeros((), int), Oscillators(unknown, unknown, unknown)
    return jax.lax.while_loop(lacking, more, start)[2]


def _accepts(stored, scheme):
    A, G, step = stored.A, stored.G, jax.nn.sigmoid(stored.step)
    match scheme:
        case Scheme.DAMPED_IMEX1:
            return (G >= 0) & (jnp.square(G - step * A) < 4 * A)
        case Scheme.DAMPED_IMEX2:
            return (G >= 0) & (jnp.square(G + step * A) < 4 * A)
        case Scheme.DAMPED_IM:
            return (G + step * A >= 0) & (jnp.square(G) < 4 * A)
    return (G - step * A >= 0) & (jnp.square(G) < 4 * A)
