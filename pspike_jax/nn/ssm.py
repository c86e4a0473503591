"""State space layers: they own continuous-time parameters, discretise them and call the core.

`d_state` is the real size of the state; d_state / 2 conjugate pairs are stored and the real part
is doubled here. Poles are stored as A_real = log(-Re A), which keeps them stable, and A_imag.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.chunk_states import as_reals
from pspike_jax.functional.convolution import convolve
from pspike_jax.functional.discretization import discretize_bilinear_dplr, discretize_zoh
from pspike_jax.functional.dplr import dplr_kernel, length_attuned
from pspike_jax.functional.dplr_chunked import chunked_dplr, real_bilinear_dplr, unattuned
from pspike_jax.functional.engine import Engine
from pspike_jax.functional.initializers import (
    hippo_legs_nplr,
    log_uniform_dt,
    s4d_inv,
    s4d_legs,
    s4d_lin,
)
from pspike_jax.functional.linear_ssm import linear_ssm
from pspike_jax.functional.packed_spikes import with_packed_spikes
from pspike_jax.functional.sequence_parallel import sequence_parallel_dplr, sequence_parallel_ssm
from pspike_jax.nn.placement import over_time, time_parts

DIAGONAL_INITIALIZERS = {"legs": s4d_legs, "lin": s4d_lin, "inv": s4d_inv}


def as_pairs(z: np.ndarray | jax.Array) -> jax.Array:
    """Store complex numbers (...) as float32 pairs (..., 2)."""
    return jnp.stack([z.real, z.imag], axis=-1).astype(jnp.float32)


def from_pairs(pairs: jax.Array) -> jax.Array:
    """Return the complex64 numbers (...) stored as pairs (..., 2)."""
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


def _complex_normal(key, shape):
    """Pairs whose complex number has variance 1, half of it in each part."""
    return jax.random.normal(key, shape) * np.sqrt(0.5).astype(np.float32)


class DiagonalSSM(nn.Module):
    """S4D (Gu et al. 2022): diagonal A, zero-order hold, one SSM per feature.

    Attributes:
      features: H.
      d_state: N, even.
      initializer: "legs", "lin" or "inv", the starting poles.
      shared: features share A and B (dt and C stay their own).
      two_sided: a second readout looks ahead; not causal.
      skip: add D u.
      train_B: learn B; otherwise it is 1, as in S4D.
      dt_min: smallest initial step size.
      dt_max: largest initial step size.
      engine: how the recurrence is evaluated; chunked where the mesh splits time.
      spiking: inputs are spikes, kept as bits for the backward pass.
    """

    features: int
    d_state: int
    initializer: str
    shared: bool
    two_sided: bool
    skip: bool
    train_B: bool
    dt_min: float
    dt_max: float
    engine: Engine = Engine.AUTO
    spiking: bool = False

    def setup(self):
        pairs, copies = self.d_state // 2, 1 if self.shared else self.features
        poles = np.tile(DIAGONAL_INITIALIZERS[self.initializer](self.d_state), (copies, 1))
        self.A_real = self.param("A_real", lambda _: jnp.log(jnp.float32(-poles.real)))
        self.A_imag = self.param("A_imag", lambda _: jnp.float32(poles.imag))
        if self.train_B:
            self.B = self.param("B", lambda _: as_pairs(np.ones((copies, pairs))))
        directions = 2 if self.two_sided else 1
        self.C = self.param("C", _complex_normal, (directions, self.features, pairs, 2))
        self.log_dt = self.param(
            "log_dt",
            lambda key: jnp.log(log_uniform_dt(key, (self.features,), self.dt_min, self.dt_max)),
        )
        if self.skip:
            self.D = self.param("D", nn.initializers.normal(1.0), (self.features,))

    def discretized(self) -> tuple[jax.Array, jax.Array]:
        """Return Lambda_bar and B_bar, (H, N/2) complex64 each."""
        Lambda_bar, gain = _zero_order_hold(self.A_real, self.A_imag, self.log_dt)
        return Lambda_bar, gain * from_pairs(self.B) if self.train_B else gain

    def __call__(
        self, u: jax.Array, initial_state: jax.Array | None = None, reverse: bool = False
    ):
        """Run the SSM.

        Args:
          u: (B, L, H) real.
          initial_state: (B, H, N/2) complex64; zero if None.
          reverse: run from the last step to the first.

        Returns:
          y: (B, L, H) float32.
          final_state: (B, H, N/2) complex64.
        """
        C = 2 * from_pairs(self.C)
        C = jnp.moveaxis(C, 0, 1) if self.two_sided else C[0]
        system = (*self.discretized(), C, self.D if self.skip else None)

        def run(u, system, state, *, axis_name):
            Lambda_bar, B_bar, C, D = system
            system = Lambda_bar, B_bar, jnp.moveaxis(C, 1, 0) if self.two_sided else C, D
            if axis_name is not None:
                return sequence_parallel_ssm(
                    u, *system, axis_name=axis_name, initial_state=state, reverse=reverse
                )
            u = _turned(u, reverse)
            y, state = linear_ssm(u, *system, initial_state=state, engine=self.engine)
            return _turned(y, reverse), state

        return _evaluate(lambda u, given: over_time(run, u, *given), self.spiking)(
            u, (system, initial_state)
        )


class DPLRSSM(nn.Module):
    """S4 (Gu et al. 2022): HiPPO-LegS, A = Lambda - P P*, bilinear, with a length-attuned readout.

    Parameters keep the published parametrisation: dt = softplus(inv_dt), and C is the
    length-attuned C~ = C (I - Abar^L) of the kernel length L. B starts as the published program
    starts it, its imaginary part clipped to [-2, 2]: not quite the B of HiPPO-LegS.

    Attributes:
      features: H.
      d_state: N, even.
      shared: features share A, P and B (the published n_ssm = 1).
      two_sided: a second kernel looks ahead; not causal.
      skip: add D u.
      dt_min: smallest initial step size.
      dt_max: largest initial step size.
      length: kernel length L that C~ belongs to; inputs are at most as long.
      engine: "chunked" (what "auto" takes, and all that can be where the mesh splits time), or
        "fft" for a convolution with the kernel.
      spiking: inputs are spikes, kept as bits for the backward pass.
    """

    features: int
    d_state: int
    shared: bool
    two_sided: bool
    skip: bool
    dt_min: float
    dt_max: float
    length: int
    engine: Engine = Engine.AUTO
    spiking: bool = False

    def setup(self):
        copies = 1 if self.shared else self.features
        start = (np.tile(a, (copies, 1)) for a in hippo_legs_nplr(self.d_state))
        Lambda, P, B = start
        B = B.real + 1j * np.clip(B.imag, -2, 2)
        self.A_real = self.param("A_real", lambda _: jnp.log(jnp.float32(-Lambda.real)))
        self.A_imag = self.param("A_imag", lambda _: jnp.float32(-Lambda.imag))
        self.P = self.param("P", lambda _: as_pairs(P))
        self.B = self.param("B", lambda _: as_pairs(B))
        self.inv_dt = self.param("inv_dt", self._initial_inv_dt)
        self.C = self.param("C", self._initial_C)
        if self.skip:
            self.D = self.param("D", nn.initializers.normal(1.0), (self.features,))

    def _initial_inv_dt(self, key):
        dt = log_uniform_dt(key, (self.features,), self.dt_min, self.dt_max)
        return dt + jnp.log(-jnp.expm1(-dt))  # the inverse of softplus

    def _initial_C(self, key):
        shape = (2 if self.two_sided else 1, self.features, self.d_state // 2, 2)
        Lambda, P, B, dt = self._continuous()
        A_bar, _ = discretize_bilinear_dplr(Lambda, P, P.conj(), B, dt)
        C = from_pairs(_complex_normal(key, shape))
        return as_pairs(jnp.stack([length_attuned(c, A_bar, self.length) for c in C]))

    def _continuous(self):
        return _continuous_dplr(self.A_real, self.A_imag, self.P, self.B, self.inv_dt)

    def kernel(self) -> jax.Array:
        """Return the kernel, (H, length) or two-sided (2, H, length) float32."""
        Lambda, P, B, dt = self._continuous()
        C = from_pairs(self.C)
        C = C if self.two_sided else C[0]
        return dplr_kernel(Lambda, P, P.conj(), B, C, dt, self.length)

    def __call__(
        self, u: jax.Array, initial_state: jax.Array | None = None, reverse: bool = False
    ):
        """Run the SSM.

        Args:
          u: (B, L, H) real; L is at most `length` where a sequence is whole.
          initial_state: (B, H, N/2) complex64, to carry on from, or None for a whole sequence.
          reverse: run from the last step to the first.

        Returns:
          y: (B, L, H) float32.
          final_state: (B, H, N/2) complex64; None where the engine is "fft", which has no states.

        Raises:
          ValueError: u is longer than the kernel.
        """
        steps = u.shape[-2]
        if initial_state is None and steps > self.length:
            raise ValueError(
                f"input of {steps} steps, but the kernel is attuned to {self.length}: set l_max"
            )
        D = self.D if self.skip else None
        if self.engine == Engine.FFT and initial_state is None and time_parts() == 1:
            run, system = self._convolve, self.kernel()[..., :steps]
        else:
            Lambda, P, B, dt = self._continuous()
            attuned = real_bilinear_dplr(Lambda, P, P.conj(), B, from_pairs(self.C), dt)
            run, system = self._chunked, unattuned(attuned, self.length)

        def evaluate(u, given):
            system, D, state = given
            y, state = run(u, system, state, reverse)
            return y if D is None else y + D[None, None] * u.astype(jnp.float32), state

        return _evaluate(evaluate, self.spiking)(u, (system, D, initial_state))

    @staticmethod
    def _convolve(u, kernel, state, reverse):
        return _turned(convolve(_turned(u, reverse), kernel), reverse), state

    @staticmethod
    def _chunked(u, system, state, reverse):
        start = None if state is None else as_reals(state)

        def run(u, system, start, *, axis_name):
            if axis_name is not None:
                return sequence_parallel_dplr(
                    u, system, start, axis_name=axis_name, reverse=reverse
                )
            y, state = chunked_dplr(_turned(u, reverse), system, start)
            return _turned(y, reverse), state

        y, final_state = over_time(run, u, system, start)
        return y, jax.lax.complex(*jnp.split(final_state, 2, axis=-1))


def _evaluate(function, spiking):
    """Return a function of inputs and the rest, which keeps inputs that are spikes as bits."""
    return functools.partial(with_packed_spikes, function) if spiking else function


def _turned(x, reverse):
    """Return x (B, L, H), its steps in opposite order if `reverse`."""
    return x[:, ::-1] if reverse else x


def _zero_order_hold(A_real, A_imag, log_dt):
    """Return Lambda_bar and the gain, (H, N/2) each, from a diagonal SSM's parameters."""
    poles = jax.lax.complex(-jnp.exp(A_real), A_imag)
    poles = jnp.broadcast_to(poles, (*log_dt.shape, poles.shape[-1]))
    return discretize_zoh(poles, jnp.exp(log_dt))


def _continuous_dplr(A_real, A_imag, P, B, inv_dt):
    """Return Lambda, P, B, (H, N/2) complex64 each, and dt (H,), from a DPLR SSM's parameters."""
    Lambda = jax.lax.complex(-jnp.exp(A_real), -A_imag)
    # Features are tied in groups of equal size, as in the published program.
    repeats = (inv_dt.shape[0] // Lambda.shape[0], 1)
    tiled = (jnp.tile(a, repeats) for a in (Lambda, from_pairs(P), from_pairs(B)))
    return (*tiled, jax.nn.softplus(inv_dt))


def discretized_poles(params: dict[str, jax.Array]) -> jax.Array:
    """Return the poles of stacked SSM layers, eigenvalues of the transition where it is dense.

    Args:
      params: parameters of a `DiagonalSSM` or `DPLRSSM` with a leading layer axis.

    Returns:
      (layers, H, N/2) complex64, one of each conjugate pair; (layers, H, N) where dense.
    """
    if "log_dt" in params:
        arrays = (params[name] for name in ("A_real", "A_imag", "log_dt"))
        return jax.vmap(lambda *layer: _zero_order_hold(*layer)[0])(*arrays)

    def transition(*layer):
        Lambda, P, B, dt = _continuous_dplr(*layer)
        return discretize_bilinear_dplr(Lambda, P, P.conj(), B, dt)[0]

    arrays = (params[name] for name in ("A_real", "A_imag", "P", "B", "inv_dt"))
    return jnp.linalg.eigvals(jax.vmap(transition)(*arrays))
