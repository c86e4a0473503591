"""What a reset-based neuron is: parameters, coefficients, one update of its membrane, its drive.

A neuron has membrane variables (u, or u and w) and fires where its drive is positive:

  membrane_t = update(coefficients, membrane_{t-1}, spikes_{t-1}, current_t)
  spikes_t = 1[drive(coefficients, membrane_t) > 0]

The drive is what the threshold leaves of the membrane, so that a threshold may be a setting, a
trained coefficient, or a variable of its own. Trained parameters are unconstrained; `coefficients`
maps them to the numbers that `update` and `drive` use (clamps, exponentials), once per sequence.
Neurons are frozen dataclasses of settings: equal settings are equal neurons, so a neuron can be a
static argument and a field of a module.
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.noise import uniforms

Params = dict[str, jax.Array]
Coefficients = tuple[jax.Array, ...]
Membrane = Any  # a pytree of arrays with the batch first


class NeuronState(NamedTuple):
    """What a layer of neurons carries from one step to the next.

    Attributes:
      membrane: what `Neuron.zero_membrane` gives: mostly a tuple of (B, H), float32 or complex64,
        in the order of the neuron's equations.
      spikes: (B, H) float32, the last output; any value where a state was drawn.
    """

    membrane: Membrane
    spikes: jax.Array


@dataclasses.dataclass(frozen=True)
class Neuron(abc.ABC):
    """A kind of neuron and its settings.

    Attributes:
      recurrent: whether a matrix V feeds the layer's spikes back as currents, s_{t-1} V.
      threshold: what the membrane has to exceed; where a threshold is trained it starts here.
    """

    recurrent: bool = dataclasses.field(default=False, kw_only=True)
    threshold: float = dataclasses.field(default=1.0, kw_only=True)

    membrane_dtypes: ClassVar[tuple[Any, ...]] = (jnp.float32,)
    # Whether a neuron fires where its drive is 0: [u >= V] instead of [u > V].
    fires_at_zero: ClassVar[bool] = False
    # What a spike does to the membrane, "soft", "hard" or "refractory", where `between_spikes`
    # says it, so that `evaluate` can run parallel in time; None where it cannot.
    reset: ClassVar[str | None] = None
    # {parameter: group} for the optimizer, as in `nn.roles`; the others are "dynamics".
    groups: ClassVar[dict[str, str]] = {"log_threshold": "threshold", "log_dt": "step_size"}

    @abc.abstractmethod
    def init(self, key: jax.Array, features: int) -> Params:
        """Draw the trained parameters of H neurons, each (H,) float32; the key is consumed."""

    @abc.abstractmethod
    def coefficients(self, params: Params) -> Coefficients:
        """Map the trained parameters to the coefficients of `update` and `drive`, each (H, ...)."""

    @abc.abstractmethod
    def update(
        self,
        coefficients: Coefficients,
        membrane: Membrane,
        spikes: jax.Array,
        reset: jax.Array,
        current: jax.Array,
    ) -> Membrane:
        """Advance the membrane by one step.

        Args:
          coefficients: arrays that broadcast against the current.
          membrane: as `zero_membrane` gives it, before the step.
          spikes: the previous step's spikes, as they drive adaptation.
          reset: the same spikes, as they reset the membrane (a constant of the backward pass
            where the reset is detached).
          current: (B, H) input current.

        Returns:
          The membrane after the step.
        """

    def drive(self, coefficients: Coefficients, membrane: Membrane) -> jax.Array:
        """Return the real number, (B, H), whose sign decides: membrane less threshold."""
        del coefficients
        return membrane[0] - self.threshold

    def between_spikes(
        self, coefficients: Coefficients, spikes: jax.Array, current: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], ...]:
        """Say the update as x_t = decay x_{t-1} + input, for each variable by itself.

        Args:
          coefficients: arrays that broadcast against the current.
          spikes: those of the step before.
          current: (B, L, H) input current.

        Returns:
          (decay, input) of each membrane variable; a decay that no spike changes need not have
          the current's shape.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot run parallel in time")

    def zero_membrane(self, batch_size: int, features: int) -> Membrane:
        """Return the membrane at rest: zeros, (B, H) for each of `membrane_dtypes`."""
        shape = (batch_size, features)
        return tuple(jnp.zeros(shape, dtype) for dtype in self.membrane_dtypes)


def draw_uniform(key: jax.Array, features: int, low: float, high: float) -> jax.Array:
    """Draw (H,) float32 from U[low, high), also where JAX's default is float64; key consumed."""
    return jax.random.uniform(key, (features,), jnp.float32, minval=low, maxval=high)


def log_threshold(threshold: float, features: int) -> Params:
    """Return the parameter of a trained threshold, one for each neuron, at a positive start."""
    if threshold <= 0:
        raise ValueError(f"a trained threshold starts positive, not at {threshold}")
    return {"log_threshold": jnp.full((features,), math.log(threshold), jnp.float32)}


def add_real(z: jax.Array, x: jax.Array) -> jax.Array:
    """Add real numbers to complex ones; `+` does not where promotion is strict."""
    return jax.lax.complex(z.real + x, z.imag)


def clamp(x: jax.Array, low: float, high: float) -> jax.Array:
    """Clamp to [low, high] with derivative 1 inside and at both ends, 0 outside.

    `jnp.clip` has derivative 1/2 at its ends, where clamped parameters come to rest.
    """
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


# Range of x in decays exp(-x): float32 rounds exp(-x) to 1 below 6e-8, and 1 - exp(-x) to 1 above
# 17, and so would leave the open interval that a parametrization promises.
EXPONENT_LIMITS = (2.0**-22, 15.0)


def decay_exponent(log_rate: jax.Array, log_dt: jax.Array) -> jax.Array:
    """Return rate times step, kept within `EXPONENT_LIMITS`.

    Logarithms are added and clamped first: no finite parameters overflow, here or backward.
    """
    return jnp.exp(clamp(log_rate + log_dt, *map(math.log, EXPONENT_LIMITS)))


def initial_state(neuron: Neuron, batch_size: int, features: int) -> NeuronState:
    """Return the state of B x H neurons at rest: zeros."""
    zeros = jnp.zeros((batch_size, features), jnp.float32)
    return NeuronState(neuron.zero_membrane(batch_size, features), zeros)


def draw_initial_state(state: Any, key: jax.Array, *, example_ids: jax.Array) -> Any:
    """Draw every variable of a state from U[0, 1), as the authors do in training and testing.

    Args:
      state: tree of (B, H) arrays, or of (n B, H) where a layer makes n passes over its inputs;
        gives shapes and dtypes. Both parts of complex variables are drawn.
      key: threefry key, consumed.
      example_ids: (B,) int, the examples: a draw belongs to its example, not to its row.

    Returns:
      A tree of the same structure.
    """
    variables, structure = jax.tree.flatten(state)
    drawn = []
    for number, variable in enumerate(variables):
        rows, features = variable.shape
        parts = [
            uniforms(
                key,
                layer=number,
                sampler=part,
                example_ids=example_ids,
                steps=jnp.arange(rows // example_ids.shape[0], dtype=jnp.int32),
                features=features,
            )
            for part in range(2 if jnp.iscomplexobj(variable) else 1)
        ]
        parts = [jnp.swapaxes(part, 0, 1).reshape(rows, features) for part in parts]
        drawn.append(jax.lax.complex(*parts) if len(parts) == 2 else parts[0])
    return jax.tree.unflatten(structure, drawn)
