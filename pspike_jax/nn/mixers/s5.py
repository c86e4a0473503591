"""The state space of S5: complex modes that all features drive and read."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.initializers import log_uniform_dt
from pspike_jax.functional.multi_input import Diagonal
from pspike_jax.functional.s5 import (
    clip_real_part,
    discretize_modes,
    draw_input_map,
    draw_readout,
    hippo_blocks,
)
from pspike_jax.nn.block import Pass
from pspike_jax.nn.mixers.diagonal import as_pairs, from_pairs, skip_parameter
from pspike_jax.nn.mixers.oscillator import run_mixing, stepwise
from pspike_jax.nn.roles import Role, role

READOUTS = ("trunc_standard_normal", "lecun_normal", "complex_normal")


class S5SSM(nn.Module):
    """P modes x' = Lambda x + B u, y = 2 Re(C x) + D u; without the 2 where no pairs are meant.

    Attributes:
      features: H.
      modes: P.
      outputs: numbers that are read of the modes; None for H.
      blocks: copies of one HiPPO matrix, a divisor of P.
      conjugate: a mode stands for a conjugate pair.
      rule: how a step passes, a value of `functional.s5.Rule`.
      clip: real parts are held at -1e-4 or below.
      readout: how C is drawn.
      dt_min, dt_max: of the initial step sizes.
      two_sided: a second readout, of the anti-causal states, current step included.
      skip: add D u.
      engine: how the recurrence is evaluated; chunked where the mesh splits time.
      spiking: inputs are spikes, kept as bits for the backward pass.
    """

    features: int
    modes: int
    outputs: int | None = None
    blocks: int = 1
    conjugate: bool = True
    rule: str = "zoh"
    clip: bool = False
    readout: str = "trunc_standard_normal"
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    two_sided: bool = False
    skip: bool = True
    engine: Engine = Engine.AUTO
    spiking: bool = False

    supports = frozenset({"streaming", "resets", "dt", "sequence"})

    def setup(self):
        Lambda, V = hippo_blocks(self.modes, self.blocks, self.conjugate)
        state, features = ("state",), self.features
        part = lambda value: lambda _: Role(jnp.float32(value), state, "dynamics")
        self.Lambda_re = self.param("Lambda_re", part(Lambda.real))
        self.Lambda_im = self.param("Lambda_im", part(Lambda.imag))
        B = role(_as_pairs(draw_input_map), ("state", "inputs", "parts"), "dynamics")
        self.B = self.param("B", B, V, features)
        C = role(_as_pairs(self._draw_readouts), (None, "features", "state", "parts"), "readout")
        self.C = self.param("C", C, V, self.outputs or features)
        self.log_step = self.param("log_step", role(self._draw_steps, state, "step_size"))
        if self.skip:
            self.D = skip_parameter(self)

    def _draw_readouts(self, key, V, features):
        keys = jax.random.split(key, 2 if self.two_sided else 1)
        return jnp.stack([draw_readout(one, V, features, self.readout) for one in keys])

    def _draw_steps(self, key):
        return jnp.log(log_uniform_dt(key, (self.modes,), self.dt_min, self.dt_max))

    def __call__(
        self,
        u: jax.Array,
        state: jax.Array | None = None,
        ctx: Pass | None = None,
        *,
        reverse: bool = False,
    ):
        """Run the modes.

        Args:
          u: (B, L, H) real.
          state: (B, P) complex64; zero if None.
          ctx: the pass; its resets start the states anew, its dt stretches the steps.
          reverse: run from the last step to the first.

        Returns:
          y: (B, L, H) float32.
          state: (B, P) complex64, after the last step.
        """
        resets, dt = (None, None) if ctx is None else (ctx.resets, ctx.dt)
        C = from_pairs(self.C)
        C = 2 * C if self.conjugate else C
        D = self.D if self.skip else None
        dynamics = discretized(self.Lambda_re, self.Lambda_im, self.log_step, self, dt)
        system = dynamics, from_pairs(self.B), C if self.two_sided else C[0], D
        engine = self.engine if dt is None else stepwise(self.engine)
        return run_mixing(
            u, system, state, resets, engine, reverse=reverse, spiking=self.spiking
        )

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return the state before the first step."""
        return jnp.zeros((batch_size, self.modes), jnp.complex64)

    @property
    def macs_per_step(self) -> int:
        """Multiply-accumulates of one step.

        For each mode and direction, 4 for decaying it, 4 for the gain and 2 for each output; 2 H
        for what drives it.
        """
        directions, outputs = (2 if self.two_sided else 1), self.outputs or self.features
        return self.modes * (directions * (4 + 4 + 2 * outputs) + 2 * self.features)

    @property
    def fan_out(self) -> int:
        """Real numbers that one spike of an input adds to: the drives of all modes."""
        return 2 * self.modes

    @nn.nowrap
    def poles(self, params: dict[str, jax.Array]) -> jax.Array:
        """Return Lambda_bar (layers, 1, P) of stacked parameters, one of each pair."""
        arrays = (params[name] for name in ("Lambda_re", "Lambda_im", "log_step"))
        return jax.vmap(lambda *one: discretized(*one, self, None).transition)(*arrays)[:, None]


def discretized(Lambda_re, Lambda_im, log_step, module: S5SSM, dt) -> Diagonal:
    """Return the transition and the gain of a module's modes; dt (B, L), or None."""
    Lambda = jax.lax.complex(Lambda_re, Lambda_im)
    Lambda = clip_real_part(Lambda) if module.clip else Lambda
    return discretize_modes(Lambda, jnp.exp(log_step), module.rule, dt)


def _as_pairs(draw):
    return lambda *args: as_pairs(draw(*args))
