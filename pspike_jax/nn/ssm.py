"""The diagonal state space layer, and what it shares with the other, in dplr_ssm.py.

Layers own continuous-time parameters, discretise them and call the core.

`d_state` is the real size of the state; d_state / 2 conjugate pairs are stored and the real part
is doubled here. Poles are stored as A_real = log(-Re A), which keeps them stable, and A_imag.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.discretization import discretize_zoh
from pspike_jax.functional.engine import Engine
from pspike_jax.functional.initializers import log_uniform_dt, s4d_inv, s4d_legs, s4d_lin
from pspike_jax.functional.linear_ssm import linear_ssm
from pspike_jax.functional.packed_spikes import with_packed_spikes
from pspike_jax.functional.sequence_parallel import sequence_parallel_ssm
from pspike_jax.nn.placement import over_time

DIAGONAL_INITIALIZERS = {"legs": s4d_legs, "lin": s4d_lin, "inv": s4d_inv}


def as_pairs(z: np.ndarray | jax.Array) -> jax.Array:
    """Store complex numbers (...) as float32 pairs (..., 2)."""
    return jnp.stack([z.real, z.imag], axis=-1).astype(jnp.float32)


def from_pairs(pairs: jax.Array) -> jax.Array:
    """Return the complex64 numbers (...) stored as pairs (..., 2)."""
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


def complex_normal(key, shape):
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
        self.C = self.param("C", complex_normal, (directions, self.features, pairs, 2))
        self.log_dt = self.param(
            "log_dt",
            lambda key: jnp.log(log_uniform_dt(key, (self.features,), self.dt_min, self.dt_max)),
        )
        if self.skip:
            self.D = self.param("D", nn.initializers.normal(1.0), (self.features,))

    def discretized(self) -> tuple[jax.Array, jax.Array]:
        """Return Lambda_bar and B_bar, (H, N/2) complex64 each."""
        Lambda_bar, gain = zero_order_hold(self.A_real, self.A_imag, self.log_dt)
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
            u = turned(u, reverse)
            y, state = linear_ssm(u, *system, initial_state=state, engine=self.engine)
            return turned(y, reverse), state

        return of_spikes(lambda u, given: over_time(run, u, *given), self.spiking)(
            u, (system, initial_state)
        )


def of_spikes(function, spiking):
    """Return a function of inputs and the rest, which keeps inputs that are spikes as bits."""
    return functools.partial(with_packed_spikes, function) if spiking else function


def turned(x, reverse):
    """Return x (B, L, H), its steps in opposite order if `reverse`."""
    return x[:, ::-1] if reverse else x


def zero_order_hold(A_real, A_imag, log_dt):
    """Return Lambda_bar and the gain, (H, N/2) each, from a diagonal SSM's parameters."""
    poles = jax.lax.complex(-jnp.exp(A_real), A_imag)
    poles = jnp.broadcast_to(poles, (*log_dt.shape, poles.shape[-1]))
    return discretize_zoh(poles, jnp.exp(log_dt))
