"""Neurons of several compartments that fire by what they have gathered (PMSN, arXiv 2408.14917).

Compartments in a row, each driven by the input and by its neighbours, are a linear system whose
last compartment is read. In its eigenbasis it is diagonal, and its modes are stored one by one:
no factor 2 stands for a conjugate. What is read, y >= 0, is summed up, and there is a spike where
the sum passes one more multiple of the threshold V:

    r_t = (S_{t-1} mod V) + y_t,    S_t = y_1 + ... + y_t,    s_t = [r_t >= V],

one spike at most, however many multiples are passed.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.neurons.firing import fire
from pspike_jax.functional.surrogates import Surrogate, window


def compartment_modes(compartments: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the modes of coupled compartments where training starts.

    The matrix has -1/2 on its diagonal, 5 i above it and -5 i below it, i = 1, 2, ...

    Args:
      compartments: how many, 1 or more; as many modes.

    Returns:
      A: (N,) complex128, eigenvalues, by ascending frequency.
      B: (N,) complex128, V* 1, the input of all compartments.
      C: (N,) complex128, the last row of V, the last compartment; eigenvectors V have a phase
        each that is free, on which B C does not depend.
    """
    coupling = np.diag(5.0 * np.arange(1, compartments), 1)
    frequencies, V = np.linalg.eigh(-1j * (coupling - coupling.T))
    return -0.5 + 1j * frequencies, V.conj().T @ np.ones(compartments), V[-1]


def fire_by_sum(
    y: jax.Array,
    remainder: jax.Array | None = None,
    *,
    threshold: float,
    resets: jax.Array | None = None,
    surrogate: Surrogate = window,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Fire where the sum of y passes a multiple of the threshold.

    Sums are formed modulo the threshold, in parallel, so that no digits are lost in long sequences.

    Args:
      y: (B, L, H) float32, not negative.
      remainder: (B, H) what the steps before have left, in [0, threshold); zero if None.
      threshold: V, positive.
      resets: (B, L) bool, steps at which the sum starts anew.
      surrogate: function (r - V, 0.0) -> d spike / d y of the same step; nothing flows through the
        sum.

    Returns:
      spikes: (B, L, H) in {0, 1}; r - V: (B, L, H); remainder: (B, H) after the last step.
    """
    wrap = lambda total: jnp.where(total >= threshold, total - threshold, total)
    values = jax.lax.stop_gradient(y)
    values = values - threshold * jnp.floor(values / threshold)
    starts = jnp.zeros(y.shape[:2], bool) if resets is None else resets
    starts = jnp.broadcast_to(starts[..., None], y.shape)
    before = jnp.zeros_like(y[:, 0]) if remainder is None else remainder
    before = jnp.where(starts[:, 0], 0, before)
    values = wrap(values).at[:, 0].set(wrap(wrap(values[:, 0]) + before))

    def join(earlier, later):
        (cut, total), (cut_later, total_later) = earlier, later
        joined = jnp.where(cut_later, total_later, wrap(total + total_later))
        return cut | cut_later, joined

    _, after = jax.lax.associative_scan(join, (starts, values), axis=1)
    kept = jnp.concatenate([before[:, None], after[:, :-1]], axis=1)
    v = jnp.where(starts, 0, kept) + y - threshold
    return fire(surrogate, True, v), v, after[:, -1]
