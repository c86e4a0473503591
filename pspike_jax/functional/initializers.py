"""Where continuous-time state spaces start: A, P, B and step sizes.

HiPPO-LegS (Gu et al., 2008.07669) is x' = A x + B u with, for n, k = 0 .. N - 1,

  A[n, k] = -sqrt((2n + 1)(2k + 1)) for n > k,  -(n + 1) for n = k,  0 for n < k,
  B[n] = sqrt(2n + 1).

With P[n] = sqrt(n + 1/2), the matrix A + P P^T is -1/2 on the diagonal plus a skew-symmetric
matrix: it is normal, and a unitary V diagonalizes it. In that basis A is Lambda - P P*, with V* P
and V* B for P and B (S4, 2111.00396, appendix C). A is real, so its modes come in conjugate pairs,
of which one is stored: N is the real, even state size and N/2 the number of stored modes.

The fixed initializers run in float64 NumPy and return complex128: eigenvectors of a large A have
no digits to spare in float32.
"""

import jax
import jax.numpy as jnp
import numpy as np


def hippo_legs_matrix(N: int) -> tuple[np.ndarray, np.ndarray]:
    """Build HiPPO-LegS, the state space that remembers its past in Legendre polynomials.

    Args:
      N: real state size, 1 or more.

    Returns:
      A: (N, N) float64, lower triangular.
      B: (N,) float64.

    Raises:
      ValueError: N is below 1.
    """
    if N < 1:
        raise ValueError(f"the state size N must be 1 or more, got {N}")
    n = np.arange(N)
    B = np.sqrt(2 * n + 1.0)
    A = -np.tril(np.outer(B, B), -1) - np.diag(n + 1.0)
    return A, B


def hippo_legs_nplr(N: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give HiPPO-LegS as normal plus low rank, A = Lambda - P P*, in the diagonalizing basis.

    Stored are the modes with negative imaginary part, the slowest first. An eigenvector is defined
    up to a phase, and so are P and B: here its first component is real and positive.

    Args:
      N: real state size, even.

    Returns:
      Lambda: (N/2,) complex128, eigenvalues of A + P P^T, whose real part is -1/2.
      P: (N/2,) complex128, the low-rank factor V* sqrt(n + 1/2).
      B: (N/2,) complex128, the input map V* sqrt(2n + 1).

    Raises:
      ValueError: N is odd or below 2.
    """
    _check_even(N)
    n = np.arange(N)
    root = np.sqrt(n + 0.5)
    skew = np.triu(np.outer(root, root), 1)
    # -i times a real skew-symmetric matrix is Hermitian, for which eigh is exact to rounding;
    # a general eigensolver would lose the pairing of the modes.
    frequencies, V = np.linalg.eigh(-1j * (skew - skew.T))
    # The first half are the negative ones, the fastest first.
    frequencies, V = frequencies[: N // 2][::-1], V[:, : N // 2][:, ::-1]
    V = V * (np.abs(V[0]) / V[0])
    return -0.5 + 1j * frequencies, V.conj().T @ root, V.conj().T @ np.sqrt(2 * n + 1.0)


def s4d_legs(N: int) -> np.ndarray:
    """Give the eigenvalues of the normal part of HiPPO-LegS (S4D-LegS, 2206.11893).

    Args:
      N: real state size, even.

    Returns:
      (N/2,) complex128, the modes with positive imaginary part, ascending; real part -1/2.

    Raises:
      ValueError: N is odd or below 2.
    """
    Lambda, _, _ = hippo_legs_nplr(N)
    return Lambda.conj()


def s4d_lin(N: int) -> np.ndarray:
    """Give S4D-Lin, -1/2 + i pi n for n = 0 .. N/2 - 1 (2206.11893).

    Args:
      N: real state size, even.

    Returns:
      (N/2,) complex128, imaginary part 0 or positive, ascending.

    Raises:
      ValueError: N is odd or below 2.
    """
    _check_even(N)
    return -0.5 + 1j * np.pi * np.arange(N // 2)


def s4d_lin_below(N: int) -> np.ndarray:
    """Give S4D-Lin below the real axis, the first mode 1e-4 away from it.

    So the S4 programs start the kernel that trains B, where SpikingSSM uses it.

    Args:
      N: real state size, even.

    Returns:
      (N/2,) complex128, imaginary part negative, descending.

    Raises:
      ValueError: N is odd or below 2.
    """
    poles = s4d_lin(N)
    return poles.real - 1j * np.maximum(poles.imag, 1e-4)


def s4d_inv(N: int) -> np.ndarray:
    """Give S4D-Inv, -1/2 + i (N / pi) (N / (2n + 1) - 1) for n = 0 .. N/2 - 1 (2206.11893).

    Args:
      N: real state size, even.

    Returns:
      (N/2,) complex128, imaginary part positive, descending as the formula counts.

    Raises:
      ValueError: N is odd or below 2.
    """
    _check_even(N)
    n = np.arange(N // 2)
    return -0.5 + 1j * (N / np.pi) * (N / (2 * n + 1) - 1)


def log_uniform_dt(
    key: jax.Array, shape: tuple[int, ...], dt_min: float, dt_max: float
) -> jax.Array:
    """Draw step sizes whose logarithm is uniform between those of dt_min and dt_max.

    Args:
      key: PRNG key, consumed.
      shape: shape of the result.
      dt_min: smallest step, positive.
      dt_max: largest step, above dt_min.

    Returns:
      float32 array of the given shape, in [dt_min, dt_max] up to rounding.

    Raises:
      ValueError: not 0 < dt_min < dt_max < infinity.
    """
    if not 0 < dt_min < dt_max < float("inf"):
        raise ValueError(f"expected 0 < dt_min < dt_max, got dt_min={dt_min}, dt_max={dt_max}")
    low, high = np.float32(np.log(dt_min)), np.float32(np.log(dt_max))
    return jnp.exp(jax.random.uniform(key, shape, jnp.float32, minval=low, maxval=high))


def _check_even(N: int):
    if N < 2 or N % 2:
        raise ValueError(f"the real state size N must be even and 2 or more, got {N}")
