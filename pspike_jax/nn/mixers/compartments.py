"""The linear part of PMSN's neurons: coupled compartments in their eigenbasis."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.compartments import compartment_modes
from pspike_jax.functional.engine import Engine
from pspike_jax.nn.block import Pass
from pspike_jax.nn.mixers.diagonal import (
    as_pairs,
    from_pairs,
    log_step,
    skip_parameter,
    zero_order_hold,
)
from pspike_jax.nn.placement import System, placed_ssm
from pspike_jax.nn.roles import Role, role


class CompartmentSSM(nn.Module):
    """Compartments of each feature, zero-order hold; every mode is stored, with no factor 2.

    Attributes:
      features: H.
      compartments: N.
      dt_min: smallest initial step size.
      dt_max: largest initial step size.
      engine: how the recurrence is evaluated.
    """

    features: int
    compartments: int
    dt_min: float
    dt_max: float
    engine: Engine | str = Engine.AUTO

    def setup(self):
        A, B, C = (
            np.tile(part, (self.features, 1)) for part in compartment_modes(self.compartments)
        )
        axes = ("features", "state")
        box = lambda value, group, axes: lambda _: Role(value(), axes, group)
        real, imag = (lambda: jnp.log(jnp.float32(-A.real))), (lambda: jnp.float32(A.imag))
        self.A_real = self.param("A_real", box(real, "dynamics", axes))
        self.A_imag = self.param("A_imag", box(imag, "dynamics", axes))
        self.B = self.param("B", box(lambda: as_pairs(B), "dynamics", (*axes, "parts")))
        self.C = self.param("C", box(lambda: as_pairs(C), "readout", (*axes, "parts")))
        self.log_dt = self.param("log_dt", role(log_step, ("features",), "step_size"), self)
        self.D = skip_parameter(self)

    def system(self) -> System:
        """Return the discretised system."""
        Lambda_bar, gain = zero_order_hold(self.A_real, self.A_imag, self.log_dt)
        return System(Lambda_bar, gain * from_pairs(self.B), from_pairs(self.C), self.D)

    def __call__(
        self, u: jax.Array, state: jax.Array | None, ctx: Pass, *, reverse: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Map u (B, L, H) to y (B, L, H) float32 and the state (B, H, N) after the last step."""
        return placed_ssm(
            u, self.system(), state, resets=ctx.resets, engine=self.engine, reverse=reverse
        )

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return the state before the first step."""
        return jnp.zeros((batch_size, self.features, self.compartments), jnp.complex64)

    @property
    def macs_per_step(self) -> int:
        """Multiply-accumulates of a step: a complex product and a real part for each mode."""
        return (4 + 2) * self.features * self.compartments
