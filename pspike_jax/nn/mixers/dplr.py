"""The diagonal-plus-low-rank state space layer; see diagonal.py for what layers have in common."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim

from pspike_jax.functional.chunk_states import as_reals
from pspike_jax.functional.convolution import convolve
from pspike_jax.functional.discretization import discretize_bilinear_dplr
from pspike_jax.functional.dplr import dplr_kernel, length_attuned
from pspike_jax.functional.dplr_chunked import (
    RealSystem,
    chunked_dplr,
    real_bilinear_dplr,
    unattuned,
)
from pspike_jax.functional.engine import Engine, parse_engine
from pspike_jax.functional.initializers import hippo_legs_nplr, log_uniform_dt
from pspike_jax.functional.sequence_parallel import sequence_parallel_dplr
from pspike_jax.nn.block import Pass
from pspike_jax.nn.mixers.diagonal import (
    as_pairs,
    complex_normal,
    from_pairs,
    skip_parameter,
    state_macs,
)
from pspike_jax.nn.placement import of_spikes, over_time, time_parts, turned
from pspike_jax.nn.roles import Role, role

# Chunks need powers of dense transitions, however short the sequence: from this many steps for each
# state of a feature on they cost less than a convolution, on a CPU (`benchmarks.dplr_engines`).
LONG = 64


class System(NamedTuple):
    """A continuous system: one of each pair of conjugate modes.

    Attributes:
      Lambda: (H, N/2) complex, diagonal part of A.
      P: (H, N/2) complex, low-rank factor: A = Lambda - P P*.
      B: (H, N/2) complex, input map.
      dt: (H,), step size.
      C: (directions, H, N/2) complex, length-attuned readouts.
    """

    Lambda: jax.Array
    P: jax.Array
    B: jax.Array
    dt: jax.Array
    C: jax.Array

    def kernel(self, length: int) -> jax.Array:
        """Return the kernel, (H, length) or two-sided (2, H, length) float32."""
        C = self.C if self.C.shape[0] == 2 else self.C[0]
        return dplr_kernel(self.Lambda, self.P, self.P.conj(), self.B, C, self.dt, length)

    def real(self, length: int) -> RealSystem:
        """Return the discretised system that a recurrence runs."""
        Lambda, P, B, dt, C = self
        return unattuned(real_bilinear_dplr(Lambda, P, P.conj(), B, C, dt), length)


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
      engine: "chunked", which streams and which a mesh that splits time needs, "fft" for a
        convolution with the kernel, or "auto", the faster one.
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

    supports = frozenset({"streaming", "sequence"})

    def setup(self):
        copies = 1 if self.shared else self.features
        start = (np.tile(a, (copies, 1)) for a in hippo_legs_nplr(self.d_state))
        Lambda, P, B = start
        B = B.real + 1j * np.clip(B.imag, -2, 2)
        axes = ("features", "state")
        pairs = (*axes, "parts")
        dynamics = lambda value, axes: lambda _: Role(value(), axes, "dynamics")
        log_rate = lambda: jnp.log(jnp.float32(-Lambda.real))
        self.A_real = self.param("A_real", dynamics(log_rate, axes))
        self.A_imag = self.param("A_imag", dynamics(lambda: jnp.float32(-Lambda.imag), axes))
        self.P = self.param("P", dynamics(lambda: as_pairs(P), pairs))
        self.B = self.param("B", dynamics(lambda: as_pairs(B), pairs))
        step = role(self._initial_inv_dt, ("features",), "step_size")
        self.inv_dt = self.param("inv_dt", step)
        self.C = self.param("C", role(self._initial_C, (None, *pairs), "readout"))
        if self.skip:
            self.D = skip_parameter(self)

    def _initial_inv_dt(self, key):
        dt = log_uniform_dt(key, (self.features,), self.dt_min, self.dt_max)
        return dt + jnp.log(-jnp.expm1(-dt))  # the inverse of softplus

    def _initial_C(self, key):
        shape = (2 if self.two_sided else 1, self.features, self.d_state // 2, 2)
        Lambda, P, B, dt = self._continuous()
        A_bar, _ = discretize_bilinear_dplr(Lambda, P, P.conj(), B, dt)
        C = from_pairs(complex_normal(key, shape))
        return as_pairs(jnp.stack([length_attuned(c, A_bar, self.length) for c in C]))

    def _continuous(self):
        return continuous_dplr(self.A_real, self.A_imag, self.P, self.B, self.inv_dt)

    def kernel(self) -> jax.Array:
        """Return the kernel, (H, length) or two-sided (2, H, length) float32."""
        return System(*self._continuous(), from_pairs(self.C)).kernel(self.length)

    def _prepared(self, engine, steps):
        """Return what an engine needs of the system: "auto" what each platform's does."""
        given = System(*self._continuous(), from_pairs(self.C))
        kernel = lambda given: given.kernel(self.length)[..., :steps]
        real = lambda given: given.real(self.length)
        if engine is not Engine.AUTO:
            return kernel(given) if engine is Engine.FFT else real(given)
        unused = lambda f: jax.tree.map(jnp.zeros_like, jax.eval_shape(f, given))
        return jax.lax.platform_dependent(
            given,
            cpu=lambda given: (kernel(given), unused(real)),
            default=lambda given: (unused(kernel), real(given)),
        )

    def _engine(self, steps):
        engine = parse_engine(self.engine)
        # A symbol of jax.export has no size to compare.
        if engine is Engine.AUTO and not is_symbolic_dim(steps):
            if steps >= LONG * self.d_state:
                return Engine.CHUNKED
        return engine

    def __call__(
        self,
        u: jax.Array,
        state: jax.Array | None = None,
        ctx: Pass | None = None,
        *,
        reverse: bool = False,
    ):
        """Run the SSM.

        Args:
          u: (B, L, H) real; L is at most `length` where a sequence is whole.
          state: (B, H, N/2) complex64, to carry on from, or None for a whole sequence.
          ctx: the pass, without resets and dt.
          reverse: run from the last step to the first.

        Returns:
          y: (B, L, H) float32.
          state: (B, H, N/2) complex64; None of a whole sequence unless the engine is "chunked".

        Raises:
          ValueError: u is longer than the kernel.
        """
        steps = u.shape[-2]
        if state is None and steps > self.length:
            raise ValueError(
                f"input of {steps} steps, but the kernel is attuned to {self.length}: set l_max"
            )
        D = self.D if self.skip else None
        whole = state is None and time_parts() == 1
        engine = self._engine(steps) if whole else Engine.CHUNKED
        run = {Engine.AUTO: _auto, Engine.FFT: _convolved, Engine.CHUNKED: _chunked}[engine]
        system = self._prepared(engine, steps)

        def evaluate(u, given):
            system, D, state = given
            y, state = run(u, system, state, reverse)
            return y if D is None else y + D[None, None] * u.astype(jnp.float32), state

        return of_spikes(evaluate, self.spiking)(u, (system, D, state))

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return the state before the first step."""
        return jnp.zeros((batch_size, self.features, self.d_state // 2), jnp.complex64)

    @property
    def fan_out(self) -> int:
        """Real numbers that one spike of an input adds to: its feature's states."""
        return self.d_state * (2 if self.two_sided else 1)

    @property
    def macs_per_step(self) -> int:
        """Multiply-accumulates of one step, counted in diagonal form."""
        return state_macs(self.features, self.d_state, self.two_sided)

    @staticmethod
    def poles(params: dict[str, jax.Array]) -> jax.Array:
        """Return the eigenvalues (layers, H, N) of the transitions, from stacked parameters."""

        def transition(*layer):
            Lambda, P, B, dt = continuous_dplr(*layer)
            return discretize_bilinear_dplr(Lambda, P, P.conj(), B, dt)[0]

        arrays = (params[name] for name in ("A_real", "A_imag", "P", "B", "inv_dt"))
        return jnp.linalg.eigvals(jax.vmap(transition)(*arrays))


def _auto(u, prepared, state, reverse):
    """Convolve on CPUs, run chunks elsewhere: accelerators multiply matrices well, unmeasured."""
    y = jax.lax.platform_dependent(
        u,
        *prepared,
        cpu=lambda u, kernel, system: _convolved(u, kernel, None, reverse)[0],
        default=lambda u, kernel, system: _chunked(u, system, None, reverse)[0],
    )
    return y, state


def _convolved(u, kernel, state, reverse):
    return turned(convolve(turned(u, reverse), kernel), reverse), state


def _chunked(u, system, state, reverse):
    start = None if state is None else as_reals(state)

    def run(u, system, start, *, axis_name):
        if axis_name is not None:
            return sequence_parallel_dplr(u, system, start, axis_name=axis_name, reverse=reverse)
        y, state = chunked_dplr(turned(u, reverse), system, start)
        return turned(y, reverse), state

    y, final_state = over_time(run, u, system, start)
    return y, jax.lax.complex(*jnp.split(final_state, 2, axis=-1))


def continuous_dplr(A_real, A_imag, P, B, inv_dt):
    """Return Lambda, P, B, (H, N/2) complex64 each, and dt (H,), from a DPLR SSM's parameters."""
    Lambda = jax.lax.complex(-jnp.exp(A_real), -A_imag)
    # Features are tied in groups of equal size, as in the published program.
    repeats = (inv_dt.shape[0] // Lambda.shape[0], 1)
    tiled = (jnp.tile(a, repeats) for a in (Lambda, from_pairs(P), from_pairs(B)))
    return (*tiled, jax.nn.softplus(inv_dt))
