"""What a reset-based neuron is: parameters, coefficients, and one update of its membrane.

A neuron has membrane variables (u, or u and w) and fires where its drive exceeds a threshold:

  membrane_t = update(membrane_{t-1}, spikes_{t-1}, current_t)
  spikes_t = 1[drive(membrane_t) > threshold]

Its trained parameters are unconstrained; `coefficients` maps them to the numbers that `update`
uses (clamps, exponentials), once per sequence. Neurons are frozen dataclasses of settings: equal
settings are equal neurons, so a neuron can be a static argument and a field of a module.
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.noise import uniforms

Params = dict[str, jax.Array]
Membrane = tuple[jax.Array, ...]


class NeuronState(NamedTuple):
    """What a layer of neurons carries from one step to the next.

    Attributes:
      membrane: tuple of (B, H), float32 or complex64, in the order of the neuron's equations.
      spikes: (B, H) float32, the last output; any value where a state was drawn.
    """

    membrane: Membrane
    spikes: jax.Array


@dataclasses.dataclass(frozen=True)
class Neuron(abc.ABC):
    """A kind of neuron and its settings.

    Attributes:
      recurrent: whether a matrix V feeds the layer's spikes back as currents, s_{t-1} V.
    """

    recurrent: bool = dataclasses.field(default=False, kw_only=True)

    membrane_dtypes: ClassVar[tuple[Any, ...]] = (jnp.float32,)

    @abc.abstractmethod
    def init(self, key: jax.Array, features: int) -> Params:
        """Draw the trained parameters of H neurons, each (H,); the key is consumed."""

    @abc.abstractmethod
    def coefficients(self, params: Params) -> tuple[jax.Array, ...]:
        """Map the trained parameters to the coefficients of `update`, each (H,)."""

    @abc.abstractmethod
    def update(
        self,
        coefficients: tuple[jax.Array, ...],
        membrane: Membrane,
        spikes: jax.Array,
        reset: jax.Array,
        current: jax.Array,
    ) -> Membrane:
        """Advance the membrane by one step.

        Args:
          coefficients: arrays that broadcast against the current.
          membrane: arrays of the current's shape, before the step.
          spikes: the previous step's spikes, as they drive adaptation.
          reset: the same spikes, as they reset the membrane (a constant of the backward pass
            where the reset is detached).
          current: (..., H) input current.

        Returns:
          The membrane after the step.
        """

    def drive(self, membrane: Membrane) -> jax.Array:
        """Return the real number that is compared with the threshold."""
        return membrane[0]


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
    """Return the state of neurons at rest: zeros, (B, H) each."""
    shape = (batch_size, features)
    membrane = tuple(jnp.zeros(shape, dtype) for dtype in neuron.membrane_dtypes)
    return NeuronState(membrane, jnp.zeros(shape, jnp.float32))


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
                steps=jnp.arange(rows // len(example_ids)),
                features=features,
            )
            for part in range(2 if jnp.iscomplexobj(variable) else 1)
        ]
        parts = [jnp.swapaxes(part, 0, 1).reshape(rows, features) for part in parts]
        drawn.append(jax.lax.complex(*parts) if len(parts) == 2 else parts[0])
    return jax.tree.unflatten(structure, drawn)
