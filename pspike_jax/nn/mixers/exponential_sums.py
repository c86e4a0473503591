"""LongSpike's mixer: several copies of a diagonal SSM, their poles scaled and shifted.

The kernel is a sum over terms m of S4D kernels with the poles eta_m A - omega_m and the readouts
eta_m C; B and the step sizes are the same in all. The M shifts omega and scales eta are trained and
shared by all features, each a sigmoid into (floor, limit) of `RANGES`. The program
calls this a fractional order; no order enters it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.nn.mixers.diagonal import DiagonalSSM
from pspike_jax.nn.roles import Role

# Floor and limit of what the sigmoids give.
RANGES = {"omega": (1e-6, 100.0), "eta": (1e-6, 10.0)}
# As far from 0 and 1 as a share may start, which keeps its logit finite.
MARGIN = 1e-6


def start_of_terms(terms: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the shifts and the scales that training starts from.

    Args:
      terms: M, 1 or more.

    Returns:
      omega, eta: M numbers each; one term is S4D, two are the program's.
    """
    if terms == 1:
        return (0.0,), (1.0,)
    omega = tuple(np.linspace(0.0, 0.1, terms).tolist())
    return omega, ((1.0, 0.1) if terms == 2 else (1 / terms,) * terms)


def to_logit(name: str, values: tuple[float, ...]) -> np.ndarray:
    """Return the logits whose sigmoids give values, in the range of "omega" or "eta"."""
    floor, limit = RANGES[name]
    shares = (np.asarray(values, np.float64) - floor) / (limit - floor)
    shares = np.clip(shares, MARGIN, 1 - MARGIN)
    return np.float32(np.log(shares) - np.log1p(-shares))


class ExponentialSumSSM(DiagonalSSM):
    """A diagonal SSM of `terms` times as many modes, as the module docstring says.

    Attributes:
      terms: M.
    """

    terms: int = 2

    def setup(self):
        super().setup()
        if self.terms < 1:
            raise ValueError(f"terms is {self.terms}; expected at least 1")
        starts = dict(zip(("omega", "eta"), start_of_terms(self.terms), strict=True))
        logit = lambda name: lambda _: Role(
            jnp.asarray(to_logit(name, starts[name])), (None,), "dynamics"
        )
        self.omega_logit = self.param("omega_logit", logit("omega"))
        self.eta_logit = self.param("eta_logit", logit("eta"))

    def continuous(self) -> tuple[jax.Array, jax.Array | None, jax.Array]:
        """Return poles, B or None, and C of all terms, side by side."""
        poles, B, C = super().continuous()
        omega, eta = (
            in_range(name, logit)
            for name, logit in (("omega", self.omega_logit), ("eta", self.eta_logit))
        )
        eta = eta.astype(poles.dtype)[None, :, None]
        shifted = eta * poles[:, None] - omega.astype(poles.dtype)[None, :, None]
        C = eta[None] * C[:, :, None]
        B = None if B is None else jnp.tile(B, (1, self.terms))
        flat = lambda array: array.reshape(*array.shape[:-2], -1)
        return flat(shifted), B, flat(C)

    @property
    def modes(self) -> int:
        """Conjugate pairs of a feature's state."""
        return self.terms * (self.d_state // 2)

    @staticmethod
    def poles(params: dict[str, jax.Array]) -> jax.Array:
        """Return Lambda_bar (layers, H, modes) of stacked parameters, one of each pair."""
        omega, eta = (in_range(name, params[f"{name}_logit"]) for name in ("omega", "eta"))
        A = jax.lax.complex(-jnp.exp(params["A_real"]), params["A_imag"])
        A = eta[:, None, :, None] * A[:, :, None] - omega[:, None, :, None]
        z = jnp.exp(params["log_dt"])[..., None] * A.reshape(*A.shape[:2], -1)
        return jnp.exp(z)


def in_range(name: str, logit: jax.Array) -> jax.Array:
    """Return what logits of "omega" or "eta" stand for."""
    floor, limit = RANGES[name]
    return floor + jax.nn.sigmoid(logit) * (limit - floor)
