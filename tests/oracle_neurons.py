"""Reset-based neurons in float64: a NumPy loop from the published equations, with derivatives.

Numbers are pairs of a value and a tangent, its derivative along one direction. A spike's tangent
is the surrogate's: what a backward pass gives has to agree with it in every direction.
"""

import math

import numpy as np
from oracles import double

THRESHOLD = 1.0


class Dual:
    """A float64 or complex128 array with its tangent."""

    __array_ufunc__ = None  # NumPy leaves mixed operations to this class

    def __init__(self, value, tangent=0.0):
        self.value = double(value)
        self.tangent = tangent + np.zeros_like(self.value)

    def __add__(self, other):
        other = dual(other)
        return Dual(self.value + other.value, self.tangent + other.tangent)

    def __mul__(self, other):
        other = dual(other)
        tangent = self.tangent * other.value + self.value * other.tangent
        return Dual(self.value * other.value, tangent)

    def __matmul__(self, other):
        tangent = self.tangent @ other.value + self.value @ other.tangent
        return Dual(self.value @ other.value, tangent)

    def __sub__(self, other):
        return self + dual(other) * -1.0

    def __rsub__(self, other):
        return dual(other) - self

    def __getitem__(self, index):
        return Dual(self.value[index], self.tangent[index])

    __radd__, __rmul__ = __add__, __mul__

    def real(self):
        return Dual(self.value.real, self.tangent.real)

    def exp(self):
        return Dual(np.exp(self.value), np.exp(self.value) * self.tangent)

    def clip(self, low, high):
        inside = (low <= self.value) & (self.value <= high)
        return Dual(np.clip(self.value, low, high), np.where(inside, self.tangent, 0))


def dual(x):
    """Return a number with tangent 0 where it has none."""
    return x if isinstance(x, Dual) else Dual(x)


def boxcar(v):
    """Return 1 where -1/2 < v <= 1/2."""
    return ((v > -0.5) & (v <= 0.5)).astype(float)


def triangular(v):
    """Return max(0, 1 - |v|)."""
    return np.maximum(0, 1 - np.abs(v))


def coefficients(name, params):
    """Return what the update equations use, from the published parametrization."""
    p = {key: dual(value) for key, value in params.items()}
    if name == "csilif":
        rate, dt = p["log_damping"].exp() * -1.0 + p["frequency"] * 1j, p["log_dt"].exp()
        return (rate * dt).exp(), p["b"]
    if name == "resonate_and_fire":
        return (p["damping"].clip(-np.inf, -0.1) + p["frequency"] * 1j,)
    if name == "silif":
        dt = p["log_dt"].exp()
        alpha, beta = ((p[key].exp() * dt * -1.0).exp() for key in ("log_rate_u", "log_rate_w"))
        return alpha, beta, p["a"].clip(0, 1), p["b"].clip(0, 2)
    if name == "cadlif":
        alpha, beta = p["alpha"].clip(0.36, 0.96), p["beta"].clip(0.96, 0.99)
        return alpha, beta, p["a"].clip(0, 1), p["b"].clip(0, 2)
    alpha = p["alpha"].clip(math.exp(-1 / 5), math.exp(-1 / 25))
    if name in ("lif", "rlif"):
        return (alpha,)
    beta = p["beta"].clip(math.exp(-1 / 30), math.exp(-1 / 120))
    return alpha, beta, p["a"].clip(-1, 1), p["b"].clip(0, 2)


def run(name, params, currents, state, recurrent=None, *, surrogate=boxcar, detach_reset=False):
    """Run neurons over currents (L, B, H), one step after the other.

    Args:
      name: of the neuron.
      params: its trained parameters.
      currents: (L, B, H).
      state: (membrane, spikes), (B, H) each.
      recurrent: (H, H), multiplied from the right of the spikes.
      surrogate: function of drive - threshold.
      detach_reset: whether the reset has no tangent.

    Returns:
      Spikes, a Dual for each step; the last membrane; the least |drive - threshold| on the way.
    """
    found, currents = coefficients(name, params), dual(currents)
    (u, *w), s = (dual(part) for part in state[0]), dual(state[1])
    spikes, nearest = [], np.inf
    for t in range(len(currents.value)):
        current = currents[t] if recurrent is None else currents[t] + s @ dual(recurrent)
        reset = Dual(s.value) if detach_reset else s
        if name == "csilif":
            A, b = found
            u = A * (u - reset * 0.5) + b * current
            drive = u.real() * 2.0
        elif name == "resonate_and_fire":
            u = u + (found[0] * u + current) * 0.004 - reset
            drive = u.real()
        else:
            alpha, *adaptation = found
            if adaptation:
                beta, a, b = adaptation
                w = [beta * w[0] + a * u + b * s]
                current = current - w[0]
            drive = u = alpha * (u - reset) + (1.0 - alpha) * current
        v = drive.value - THRESHOLD
        s = Dual(v > 0, surrogate(v) * drive.tangent)
        nearest = min(nearest, np.abs(v).min())
        spikes.append(s)
    return spikes, [u, *w], nearest
