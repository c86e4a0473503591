"""One training step of a surrogate dynamic network, see `functional.neurons.sdn_training`."""

from typing import NamedTuple

import jax
import optax

from pspike_jax.functional.neurons.neuron import Params
from pspike_jax.functional.neurons.sdn_training import Stats, sdn_loss


class SDNState(NamedTuple):
    """What a training step carries on.

    Attributes:
      params: as `init_sdn` gives them.
      stats: running mean and variance of the two batch norms.
      optimizer: state of the optimizer.
    """

    params: Params
    stats: Stats
    optimizer: optax.OptState


def sdn_optimizer(steps: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """Return AdamW at 0.01 with decay 0.01, whose rate falls by half a cosine, once an epoch."""
    cosine = optax.schedules.cosine_decay_schedule(0.01, max(1, steps // steps_per_epoch))
    return optax.adamw(lambda step: cosine(step // steps_per_epoch), weight_decay=0.01)


def sdn_step(
    optimizer: optax.GradientTransformation,
    state: SDNState,
    currents: jax.Array,
    targets: jax.Array,
) -> tuple[SDNState, jax.Array]:
    """Take one training step.

    Args:
      optimizer: from `sdn_optimizer`.
      state: before the step.
      currents: (rows, L) float32.
      targets: (rows, L), from `lif_targets`.

    Returns:
      The state after the step, and the loss before it.
    """
    gradient = jax.value_and_grad(sdn_loss, has_aux=True)
    (loss, (stats, _)), bar = gradient(state.params, state.stats, currents, targets)
    updates, moments = optimizer.update(bar, state.optimizer, state.params)
    return SDNState(optax.apply_updates(state.params, updates), stats, moments), loss
