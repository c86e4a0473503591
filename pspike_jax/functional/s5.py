"""S5: one diagonal state space for all features, from blocks of HiPPO-LegS (Smith et al. 2023).

    x' = Lambda x + B u,   y = 2 Re(C x) + D u   where one of each conjugate pair is stored,
                           y = Re(C x) + D u     where all P modes are.

Event-SSM (Schoene et al. 2024) steps the same system from event to event, whatever time passes
between them.
"""

import enum

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.discretization import discretize_bilinear, discretize_zoh
from pspike_jax.functional.initializers import hippo_legs_matrix
from pspike_jax.functional.multi_input import Diagonal


class Rule(str, enum.Enum):
    """How a step of time s passes, s = step * dt, dt the time since the last step, or 1.

    Attributes:
      ZOH: Lambda_bar = exp(Lambda s), gain (Lambda_bar - 1) / Lambda: the input is held over s.
      BILINEAR: the trapezoidal rule over s.
      DIRAC: Lambda_bar = exp(Lambda s), gain 1: the input is an impulse.
      ASYNC: Lambda_bar = exp(Lambda s), gain (exp(Lambda step) - 1) / Lambda: an impulse whose
        size is learned with the step, whenever the last one was (Event-SSM).
    """

    ZOH = "zoh"
    BILINEAR = "bilinear"
    DIRAC = "dirac"
    ASYNC = "async"


def discretize_modes(
    Lambda: jax.Array, step: jax.Array, rule: Rule | str, dt: jax.Array | None = None
) -> Diagonal:
    """Give the transition and the gain of modes that each have a step of their own.

    Args:
      Lambda: (P,) complex.
      step: (P,) real and positive; a change of sampling rate multiplies it.
      rule: how a step passes.
      dt: (B, L) time since the last step, which multiplies step; 1 if None.

    Returns:
      transition (P,) complex64, (B, L, P) with dt; gain alike, but (P,) where dt plays no part.

    Raises:
      ValueError: an unknown rule, or shapes that do not fit.
    """
    rule = Rule(rule)
    discretize = discretize_bilinear if rule is Rule.BILINEAR else discretize_zoh
    Lambda, step = jnp.asarray(Lambda, jnp.complex64), jnp.asarray(step, jnp.float32)
    if step.shape != Lambda.shape or step.ndim != 1:
        raise ValueError(f"Lambda and step must be (P,), got {Lambda.shape} and {step.shape}")

    def over(step):
        poles = jnp.broadcast_to(Lambda, step.shape).reshape(-1, 1)
        return Diagonal(*(a.reshape(step.shape) for a in discretize(poles, step.reshape(-1))))

    once = over(step)
    if rule is Rule.DIRAC:
        once = once._replace(gain=jnp.ones_like(once.gain))
    if dt is None:
        return once
    each = over(jnp.asarray(dt, jnp.float32)[..., None] * step[None, None])
    return each if rule in (Rule.ZOH, Rule.BILINEAR) else each._replace(gain=once.gain)


def clip_real_part(Lambda: jax.Array, most: float = -1e-4) -> jax.Array:
    """Keep poles left of a line; poles beyond it get no gradient for their real part.

    Args:
      Lambda: (P,) complex.
      most: the largest real part.

    Returns:
      (P,) complex.
    """
    real = jnp.where(Lambda.real > most, jnp.asarray(most, Lambda.real.dtype), Lambda.real)
    return jax.lax.complex(real, Lambda.imag)


def hippo_blocks(
    states: int, blocks: int, conjugate: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Give modes and eigenvectors of HiPPO-LegS's normal part, repeated for each block.

    Args:
      states: P, the modes that are kept.
      blocks: how many copies of one smaller matrix stand on the diagonal.
      conjugate: keep one mode of each pair, those with negative frequency, the fastest first.

    Returns:
      Lambda: (P,) complex128.
      V: (R, P) complex128, eigenvectors as columns, R = 2P real states with conjugate, P without.

    Raises:
      ValueError: blocks do not divide P.
    """
    if blocks < 1 or states < blocks or states % blocks:
        raise ValueError(f"{blocks} blocks do not divide {states} states")
    kept = states // blocks
    size = 2 * kept if conjugate else kept
    A, _ = hippo_legs_matrix(size)
    root = np.sqrt(np.arange(size) + 0.5)
    normal = A + np.outer(root, root)
    # The symmetric part is -1/2; what is left is skew, and i times it is Hermitian.
    frequencies, V = np.linalg.eigh(-1j * (normal - normal.T) / 2)
    Lambda = -0.5 + 1j * frequencies[:kept]
    return np.tile(Lambda, blocks), np.kron(np.eye(blocks), V[:, :kept])


def draw_input_map(key: jax.Array, V: np.ndarray, features: int) -> jax.Array:
    """Draw B = V* R with R real, truncated normal of variance 1 / rows.

    Args:
      key: PRNG key, consumed.
      V: (R, P) from `hippo_blocks`.
      features: H.

    Returns:
      (P, H) complex64.
    """
    real = jax.nn.initializers.lecun_normal()(key, (V.shape[0], features), jnp.float32)
    return _product(V.conj().T, real)


def draw_readout(key: jax.Array, V: np.ndarray, features: int, kind: str) -> jax.Array:
    """Draw C by one of S5's three rules.

    Args:
      key: PRNG key, consumed.
      V: (R, P) from `hippo_blocks`.
      features: H.
      kind: `trunc_standard_normal`, which despite its name has variance 1 / R in each part: it is a
        lecun normal for each feature on its own; `lecun_normal`, one for all of them, of variance
        1 / (R H); both in real coordinates, times V. `complex_normal`: variance 1, in the modes.

    Returns:
      (H, P) complex64.

    Raises:
      ValueError: another kind.
    """
    rows, modes = V.shape
    if kind == "complex_normal":
        parts = jax.random.normal(key, (features, modes, 2)) * np.float32(np.sqrt(0.5))
        return jax.lax.complex(parts[..., 0], parts[..., 1])
    if kind not in ("trunc_standard_normal", "lecun_normal"):
        raise ValueError(
            f"unknown readout {kind!r}; expected trunc_standard_normal, lecun_normal, "
            "complex_normal"
        )
    # One draw of (1, R, 2) has fan-in R, one of (H, R, 2) has fan-in R H.
    fan_in = rows if kind == "trunc_standard_normal" else rows * features
    draw = jax.nn.initializers.variance_scaling(rows / fan_in, "fan_in", "truncated_normal")
    parts = draw(key, (rows, 2 * features), jnp.float32).reshape(rows, features, 2)
    return _product(V.T, jax.lax.complex(parts[..., 0], parts[..., 1])).T


def _product(matrix, array):
    return jnp.matmul(
        jnp.asarray(matrix, jnp.complex64), array.astype(jnp.complex64), precision="highest"
    )
