"""The diagonal state space layer, and what it shares with the other, in dplr.py.

Layers own continuous-time parameters, discretise them and call the core.

`d_state` is the real size of the state; d_state / 2 conjugate pairs are stored and the real part
is doubled here. Poles are stored as A_real = log(-Re A), which keeps them stable, and A_imag.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.discretization import discretize_zoh
from pspike_jax.functional.engine import Engine
from pspike_jax.functional.initializers import (
    log_uniform_dt,
    s4d_inv,
    s4d_legs,
    s4d_lin,
    s4d_lin_below,
)
from pspike_jax.functional.recurrence import linear_recurrence
from pspike_jax.nn.block import Pass
from pspike_jax.nn.placement import System, placed_ssm
from pspike_jax.nn.roles import Role, role

DIAGONAL_INITIALIZERS = {
    "legs": s4d_legs,
    "lin": s4d_lin,
    "inv": s4d_inv,
    "lin_below": s4d_lin_below,
}


def as_pairs(z: np.ndarray | jax.Array) -> jax.Array:
    """Store complex numbers (...) as float32 pairs (..., 2)."""
    return jnp.stack([z.real, z.imag], axis=-1).astype(jnp.float32)


def from_pairs(pairs: jax.Array) -> jax.Array:
    """Return the complex64 numbers (...) stored as pairs (..., 2)."""
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


def complex_normal(key, shape):
    """Pairs whose complex number has variance 1, half of it in each part."""
    return jax.random.normal(key, shape, jnp.float32) * np.sqrt(0.5).astype(np.float32)


class DiagonalSSM(nn.Module):
    """S4D (Gu et al. 2022): diagonal A, zero-order hold, one SSM per feature.

    Attributes:
      features: H.
      d_state: N, even.
      initializer: name in `DIAGONAL_INITIALIZERS`, the starting poles.
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

    supports = frozenset({"streaming", "resets", "dt", "sequence"})

    def setup(self):
        pairs, copies = self.d_state // 2, 1 if self.shared else self.features
        poles = np.tile(DIAGONAL_INITIALIZERS[self.initializer](self.d_state), (copies, 1))
        axes = ("features", "state")
        dynamics = lambda value, axes=axes: lambda _: Role(value(), axes, "dynamics")
        self.A_real = self.param("A_real", dynamics(lambda: jnp.log(jnp.float32(-poles.real))))
        self.A_imag = self.param("A_imag", dynamics(lambda: jnp.float32(poles.imag)))
        if self.train_B:
            ones = lambda: as_pairs(np.ones((copies, pairs)))
            self.B = self.param("B", dynamics(ones, (*axes, "parts")))
        shape = (2 if self.two_sided else 1, self.features, pairs, 2)
        self.C = self.param("C", role(complex_normal, (None, *axes, "parts"), "readout"), shape)
        self.log_dt = self.param("log_dt", role(log_step, ("features",), "step_size"), self)
        if self.skip:
            self.D = skip_parameter(self)

    def continuous(self) -> tuple[jax.Array, jax.Array | None, jax.Array]:
        """Return the poles (H, N/2), B or None where it is 1, and C (1 or 2, H, N/2), complex64.

        B may have one row for all features. Other mixers make another number of modes here.
        """
        poles = jax.lax.complex(-jnp.exp(self.A_real), self.A_imag)
        poles = jnp.broadcast_to(poles, (self.features, poles.shape[-1]))
        return poles, from_pairs(self.B) if self.train_B else None, from_pairs(self.C)

    def discretized(self) -> tuple[jax.Array, jax.Array]:
        """Return Lambda_bar and B_bar, (H, N/2) complex64 each."""
        poles, B, _ = self.continuous()
        Lambda_bar, gain = discretize_zoh(poles, jnp.exp(self.log_dt))
        return Lambda_bar, gain if B is None else gain * B

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
          u: (B, L, H) real.
          state: (B, H, N/2) complex64; zero if None.
          ctx: the pass; its resets start the states anew, its dt stretches the steps.
          reverse: run from the last step to the first.

        Returns:
          y: (B, L, H) float32.
          state: (B, H, N/2) complex64, after the last step; None if none was given.
        """
        C = 2 * self.continuous()[2]
        D = self.D if self.skip else None
        if ctx is not None and ctx.dt is not None:
            return self._irregular(u, C[0], D, state, ctx)
        C = jnp.moveaxis(C, 0, 1) if self.two_sided else C[0]
        return placed_ssm(
            u,
            System(*self.discretized(), C, D),
            state,
            resets=None if ctx is None else ctx.resets,
            engine=self.engine,
            reverse=reverse,
            spiking=self.spiking,
        )

    def _irregular(self, u, C, D, state, ctx):
        """Run with a step size for each step: dt of the feature times ctx.dt (B, L)."""
        poles, B, _ = self.continuous()
        steps = jnp.exp(self.log_dt)[None, None] * ctx.dt.astype(jnp.float32)[..., None]
        discretize = jax.vmap(jax.vmap(discretize_zoh, (None, 0)), (None, 0))
        decay, gain = discretize(poles, steps)  # (B, L, H, N/2)
        gain = gain if B is None else gain * B[None, None]
        values = u.astype(jnp.float32)
        flat = lambda a: a.reshape(*a.shape[:-2], -1)
        states = linear_recurrence(
            flat(decay),
            flat(gain * values[..., None].astype(gain.dtype)),
            initial_state=None if state is None else flat(state),
            resets=ctx.resets,
        ).reshape(decay.shape)
        y = jnp.sum((C[None, None] * states).real, axis=-1)
        y = y if D is None else y + D[None, None] * values
        return y, states[:, -1]

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return the state before the first step."""
        return jnp.zeros((batch_size, self.features, self.modes), jnp.complex64)

    @property
    def modes(self) -> int:
        """Conjugate pairs of a feature's state."""
        return self.d_state // 2

    @property
    def macs_per_step(self) -> int:
        """Multiply-accumulates that update and read the states in one step."""
        return state_macs(self.features, 2 * self.modes, self.two_sided)

    @property
    def fan_out(self) -> int:
        """Real numbers that one spike of an input adds to: its feature's states."""
        return 2 * self.modes * (2 if self.two_sided else 1)

    @staticmethod
    def poles(params: dict[str, jax.Array]) -> jax.Array:
        """Return Lambda_bar (layers, H, N/2) of stacked parameters, one of each pair."""
        arrays = (params[name] for name in ("A_real", "A_imag", "log_dt"))
        return jax.vmap(lambda *layer: zero_order_hold(*layer)[0])(*arrays)


def state_macs(features: int, d_state: int, two_sided: bool) -> int:
    """Count the multiply-accumulates of one step of H diagonal SSMs.

    For each conjugate pair and direction, 4 for decaying it (a complex product) and 2 for reading
    out its real part.
    """
    return (4 + 2) * features * (d_state // 2) * (2 if two_sided else 1)


def log_step(key, module):
    """Draw log step sizes of a module's features; the key is consumed."""
    return jnp.log(log_uniform_dt(key, (module.features,), module.dt_min, module.dt_max))


def skip_parameter(module: nn.Module) -> jax.Array:
    """Return the parameter D (H,) of a module."""
    init = role(nn.initializers.normal(1.0), ("features",), "decay")
    return module.param("D", init, (module.features,), jnp.float32)


def zero_order_hold(A_real, A_imag, log_dt):
    """Return Lambda_bar and the gain, (H, N/2) each, from a diagonal SSM's parameters."""
    poles = jax.lax.complex(-jnp.exp(A_real), A_imag)
    poles = jnp.broadcast_to(poles, (*log_dt.shape, poles.shape[-1]))
    return discretize_zoh(poles, jnp.exp(log_dt))
