"""State spaces whose A is diagonal plus low rank, A = Lambda - P Q^T: the kernel.

The bilinear rule gives x_t = A_bar x_{t-1} + B_bar u_t and the kernel K_l = C A_bar^l B_bar. Its
Fourier transform at w = exp(-i t), t = 2 pi k / L, sums the geometric series (S4, 2111.00396,
appendix C):

  K^(w) = C~ (I - w A_bar)^-1 B_bar = (2 / (1 + w)) C~ (z - dt A)^-1 dt B,
  z = 2 (1 - w) / (1 + w) = 2 i tan(t/2),    C~ = C (I - A_bar^L).

C~, the length-attuned readout, is what such models learn, so that no power of A_bar is needed.
The Woodbury identity turns the inverse into sums over poles:

  K^(w) = (2 / (1 + w)) (r_CB - r_CP r_QB / (1 + r_QP)),
  r_ab = sum_n a_n b_n dt / (z - dt Lambda_n).

Three rewritings serve float32. With c = cos(t/2) and S = sin(t/2) / dt, z = 2 i S dt / c and
R_ab = r_ab / c,

  K^(w) = (c + i sin(t/2)) (R_CB - c R_CP R_QB / (1 + c R_QP)),
  R_ab = sum_n a_n b_n / (2 i S - c Lambda_n)

has no singular point: at w = -1, where z is infinite, it gives the limit, the sum over pairs of
Re(C~_n B_n dt). As dt stands beside the frequency alone, its gradient is one sum; with dt in
numerators and poles it would be the small difference of two large ones where z is small. And for
p = Lambda_n and v = a_n b_n the halves of a pair add up to

  (4 i S Re(v) - 2 c Re(v conj(p))) / ((2 i S - c p)(2 i S - c conj(p))),

so that one complex reciprocal, shared by all R_ab, serves a pair, weighted by real numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.discretization import both_halves, over_features

# The reciprocals are (H, N, frequencies); blocks of frequencies keep that temporary small, forward
# and backward.
FREQUENCIES_PER_BLOCK = 128

HIGHEST = jax.lax.Precision.HIGHEST


def dplr_kernel(
    Lambda: jax.Array,
    P: jax.Array,
    Q: jax.Array,
    B: jax.Array,
    C_tilde: jax.Array,
    dt: jax.Array,
    length: int,
) -> jax.Array:
    """Evaluate the convolution kernel of the bilinear state space with A = Lambda - P Q^T.

    Lambda, P, Q, B and C_tilde hold one of each conjugate pair; the kernel sums both (twice the
    real part). C_tilde must be attuned to this very length, see `length_attuned`.

    Args:
      Lambda: (H, N) or (N,) complex, diagonal part of A; Re(Lambda) < 0.
      P: (H, N) or (N,) complex, left factor.
      Q: (H, N) or (N,) complex, right factor, taken without conjugation; conj(P) in S4.
      B: (H, N) or (N,) complex, input map.
      C_tilde: (H, N) complex, length-attuned readout, or (2, H, N) for two kernels at once.
      dt: (H,) real and positive, time between samples.
      length: L, number of kernel entries, 1 or more.

    Returns:
      (H, L) float32, or (2, H, L).

    Raises:
      ValueError: shapes that do not fit together, or a length below 1.
    """
    C_tilde = _checked_readout(C_tilde, "C_tilde")
    shape = C_tilde.shape[-2:]
    dt = jnp.asarray(dt, jnp.float32)
    if dt.shape != shape[:1]:
        raise ValueError(f"dt must have shape {shape[:1]}, got {dt.shape}")
    if length < 1:
        raise ValueError(f"length must be 1 or more, got {length}")
    parameters = (("Lambda", Lambda), ("P", P), ("Q", Q), ("B", B))
    Lambda, P, Q, B = (over_features(name, value, shape) for name, value in parameters)

    left = jnp.concatenate([C_tilde.reshape(-1, *shape), Q[None]])
    right = jnp.stack([B, P])
    numerators = left[:, None] * right[None]  # (kernels + 1, 2, H, N): CB, CP; QB, QP

    @jax.checkpoint
    def spectrum(angles):
        s, c = angles  # (1, 1, K) each
        sums = _cauchy_sums(numerators, Lambda, s / dt[:, None, None], c)
        CB, CP, QB, QP = sums[:-1, 0], sums[:-1, 1], sums[-1:, 0], sums[-1:, 1]
        turn, c = jax.lax.complex(c, s), c.astype(jnp.complex64)
        return turn * (CB - c * CP * QB / (1 + c * QP))

    blocks = jax.lax.map(spectrum, _half_angles(length))  # (blocks, kernels, H, K)
    spectra = jnp.moveaxis(blocks, 0, -2).reshape(*blocks.shape[1:3], -1)
    kernel = jnp.fft.irfft(spectra[..., : length // 2 + 1], n=length)
    return kernel.reshape(*C_tilde.shape[:-1], length)


def length_attuned(C: jax.Array, A_bar: jax.Array, length: int) -> jax.Array:
    """Fold the kernel's end into the readout: C_tilde = C (I - A_bar^L).

    Args:
      C: (H, N) or (2, H, N) complex, readout of the stored halves.
      A_bar: (H, 2N, 2N) complex, from `discretize_bilinear_dplr`.
      length: L, number of steps, 1 or more. Rounding of A_bar grows with L: 1.5e-4 of the peak of
        C_tilde was the largest error seen at L = 2048, for dt = 1e-3.

    Returns:
      C_tilde, complex64, of the shape of C.

    Raises:
      ValueError: shapes that do not fit together, or a length below 1.
    """
    C = _checked_readout(C, "C")
    remainder = _one_minus_power(A_bar, length, C.shape)
    full = jnp.einsum("...hi,hij->...hj", both_halves(C), remainder, precision=HIGHEST)
    return full[..., : C.shape[-1]]


def _half_angles(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sin(t/2) and cos(t/2) of the frequencies of a real FFT, each (blocks, 1, 1, K)."""
    angles = np.pi * np.arange(length // 2 + 1) / length
    size = min(FREQUENCIES_PER_BLOCK, angles.size)
    # Repeats of the last frequency fill the last block; their results are dropped.
    angles = np.pad(angles, (0, -angles.size % size), mode="edge").reshape(-1, 1, 1, size)
    return np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)


def _cauchy_sums(v: jax.Array, poles: jax.Array, s: jax.Array, c: jax.Array) -> jax.Array:
    """Sum v / (2 i s - c poles) over all modes and their conjugates.

    Args:
      v: (kernels, 2, H, N) complex, numerators.
      poles: (H, N) complex, Lambda.
      s: (H, 1, K) sine of the half angles, over dt.
      c: (1, 1, K) cosine of the half angles.

    Returns:
      (kernels, 2, H, K) complex64.
    """
    decay, turn = -poles.real[..., None] * c, poles.imag[..., None] * c  # (H, N, K)
    # The difference of squares as a product: near a resonance 2 s and turn nearly cancel.
    real, imag = decay**2 - (2 * s - turn) * (2 * s + turn), 4 * s * decay
    # The reciprocal by hand: complex division guards against overflow, at three times the cost.
    # Here the square is within float32 for abs(Lambda) and 1 / dt between 1e-9 and 1e9.
    inverse = 1 / (real**2 + imag**2)
    pairs = jnp.stack([real * inverse, -imag * inverse])
    weights = jnp.stack([-2 * (v * poles.conj()[None, None]).real, 4 * v.real])
    (cr, ci), (sr, si) = jnp.einsum("abchn,dhnk->adbchk", weights, pairs, precision=HIGHEST)
    s, c = s.swapaxes(0, 1)[None], c[None]
    return jax.lax.complex(c * cr - s * si, c * ci + s * sr)


def _one_minus_power(A_bar: jax.Array, length: int, shape: tuple[int, ...]) -> jax.Array:
    """Return I - A_bar^length, after checking that A_bar fits a readout of the given shape."""
    H, N = shape[-2:]
    if A_bar.shape != (H, 2 * N, 2 * N):
        raise ValueError(f"A_bar must have shape {(H, 2 * N, 2 * N)}, got {A_bar.shape}")
    if length < 1:
        raise ValueError(f"length must be 1 or more, got {length}")
    with jax.default_matmul_precision("highest"):
        power = jnp.linalg.matrix_power(A_bar.astype(jnp.complex64), length)
    return jnp.eye(2 * N, dtype=jnp.complex64)[None] - power


def _checked_readout(C: jax.Array, name: str) -> jax.Array:
    """Return C as complex64 if it has the shape (H, N) or (2, H, N)."""
    C = jnp.asarray(C, jnp.complex64)
    if C.ndim != 2 and (C.ndim != 3 or C.shape[0] != 2):
        raise ValueError(f"{name} must have shape (H, N) or (2, H, N), got {C.shape}")
    return C
