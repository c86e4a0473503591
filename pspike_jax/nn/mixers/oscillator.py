"""A bank of oscillators that all features force and read: LinOSS, D-LinOSS."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.multi_input import multi_input_ssm
from pspike_jax.functional.oscillator import (
    Oscillators,
    Scheme,
    bounded,
    discretize_oscillators,
    ring_oscillators,
    uniform_oscillators,
)
from pspike_jax.functional.sequence_parallel import sequence_parallel_multi_input
from pspike_jax.nn.block import Pass
from pspike_jax.nn.mixers.diagonal import from_pairs, skip_parameter
from pspike_jax.nn.placement import of_spikes, over_time, turned
from pspike_jax.nn.roles import Role, role

STARTS = ("ring", "uniform")
GROUPS = {"A": "dynamics", "G": "dynamics", "step": "step_size"}


class OscillatorSSM(nn.Module):
    """P oscillators forced by b = B u: y = Re(C x) + D u of their positions x.

    Attributes:
      features: H.
      oscillators: P.
      scheme: how a step is taken, a value of `functional.oscillator.Scheme`.
      start: "ring", eigenvalues on a ring of the unit disc, or "uniform", A and G from 0 up to 1.
      ring: smallest and largest modulus, smallest and largest argument of that ring.
      step_std: standard deviation of the stored step; None draws it from U(0, 1), as LinOSS does.
      two_sided: a second readout, of the anti-causal positions, current step included.
      skip: add D u.
      engine: how the recurrence is evaluated; chunked where the mesh splits time.
      spiking: inputs are spikes, kept as bits for the backward pass.
    """

    features: int
    oscillators: int
    scheme: str = "damped_imex1"
    start: str = "ring"
    ring: tuple[float, float, float, float] = (0.9, 1.0, 0.0, np.pi)
    step_std: float | None = 0.5
    two_sided: bool = False
    skip: bool = True
    engine: Engine = Engine.AUTO
    spiking: bool = False

    supports = frozenset({"streaming", "resets", "dt", "sequence"})

    def setup(self):
        features, count = self.features, self.oscillators
        self.stored = self.param("oscillators", self._draw)
        B = role(_uniform(features), ("state", "inputs", "parts"), "dynamics")
        self.B = self.param("B", B, (count, features, 2))
        C = role(_uniform(count), (None, "features", "state", "parts"), "readout")
        self.C = self.param("C", C, (2 if self.two_sided else 1, features, count, 2))
        if self.skip:
            self.D = skip_parameter(self)

    def _draw(self, key):
        """Draw A, G and step together: which values a scheme accepts depends on all three."""
        if self.start == "ring":
            r_min, r_max, theta_min, theta_max = self.ring
            drawn = ring_oscillators(
                key,
                self.oscillators,
                self.scheme,
                r_min=r_min,
                r_max=r_max,
                theta_min=theta_min,
                theta_max=theta_max,
                step_std=self.step_std,
            )
        else:
            drawn = uniform_oscillators(
                key, self.oscillators, self.scheme, step_std=self.step_std
            )
        kept = drawn._asdict()
        if not Scheme(self.scheme).damped:
            del kept["G"]
        return {name: Role(value, ("state",), GROUPS[name]) for name, value in kept.items()}

    def __call__(
        self,
        u: jax.Array,
        state: jax.Array | None = None,
        ctx: Pass | None = None,
        *,
        reverse: bool = False,
    ):
        """Run the oscillators.

        Args:
          u: (B, L, H) real.
          state: (B, P, 2) complex64, velocities and positions; zero if None.
          ctx: the pass; its resets start the states anew, its dt stretches the steps.
          reverse: run from the last step to the first.

        Returns:
          y: (B, L, H) float32.
          state: (B, P, 2) complex64, after the last step.

        Raises:
          ValueError: parameters without a stable step, where values are known (not under jit).
        """
        resets, dt = (None, None) if ctx is None else (ctx.resets, ctx.dt)
        dynamics = discretize_oscillators(effective(self.stored, self.scheme), self.scheme, dt)
        C = from_pairs(self.C)
        system = dynamics, from_pairs(self.B), C if self.two_sided else C[0]
        D = self.D if self.skip else None
        engine = stepwise(self.engine) if dt is not None else self.engine
        return run_mixing(
            u, (*system, D), state, resets, engine, reverse=reverse, spiking=self.spiking
        )

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return the state before the first step."""
        return jnp.zeros((batch_size, self.oscillators, 2), jnp.complex64)

    @property
    def macs_per_step(self) -> int:
        """Multiply-accumulates of one step.

        For each oscillator and direction, 8 for turning a complex pair by a real 2 x 2 matrix, 4
        for pushing it and 2 H for reading it; 2 H for the force.
        """
        directions, products = (2 if self.two_sided else 1), 2 * self.features
        return self.oscillators * (directions * (8 + 4 + products) + products)

    @property
    def fan_out(self) -> int:
        """Real numbers that one spike of an input adds to: the forces of all oscillators."""
        return 2 * self.oscillators

    @nn.nowrap
    def poles(self, params: dict[str, jax.Array]) -> jax.Array:
        """Return one eigenvalue of each oscillator, (layers, 1, P), from stacked parameters.

        The other is its conjugate, or, of an overdamped one, a real number below it.
        """

        def one(stored):
            kept = effective(stored, self.scheme)
            transition = discretize_oscillators(kept, self.scheme).transition
            half = jnp.trace(transition, axis1=-2, axis2=-1) / 2
            product = transition[..., 0, 0] * transition[..., 1, 1]
            product = product - transition[..., 0, 1] * transition[..., 1, 0]
            return half + jnp.sqrt((jnp.square(half) - product).astype(jnp.complex64))

        return jax.vmap(one)(params["oscillators"])[:, None]


def effective(stored: dict[str, jax.Array], scheme: str) -> Oscillators:
    """Return the parameters that a step takes, of those that are stored; see `bounded`."""
    A = stored["A"]
    return bounded(Oscillators(A, stored.get("G", jnp.zeros_like(A)), stored["step"]), scheme)


def run_mixing(u, system, state, resets, engine, *, reverse, spiking):
    """Run a state space in which features meet, over time as the mesh has it.

    Args:
      u: (B, L, H) real.
      system: (dynamics, B, C, D) of `multi_input_ssm`.
      state: before the first step, or None.
      resets: (B, L) bool, or None.
      engine: of `multi_input_ssm`.
      reverse: run from the last step to the first.
      spiking: inputs are spikes, kept as bits for the backward pass.

    Returns:
      y: (B, L, H) float32; state: after the last step, or None if none was given.
    """

    def run(u, given, state, *, axis_name):
        system, resets = given
        if axis_name is not None:
            return sequence_parallel_multi_input(
                u, *system, axis_name=axis_name, initial_state=state, reverse=reverse
            )
        u = turned(u, reverse)
        y, state = multi_input_ssm(u, *system, initial_state=state, resets=resets, engine=engine)
        return turned(y, reverse), state

    whole = lambda u, given: over_time(run, u, *given, mixes=True)
    return of_spikes(whole, spiking)(u, ((system, resets), state))


def stepwise(engine: Engine | str) -> Engine:
    """Return the engine where steps differ, which the chunked one cannot run."""
    engine = Engine(engine)
    return Engine.AUTO if engine is Engine.CHUNKED else engine


def _uniform(fan_in):
    bound = fan_in**-0.5
    return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)
