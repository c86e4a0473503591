"""Spikes by a surrogate dynamic network, and the networks that come with the package.

A network is 153 numbers that take no gradient, so they are no parameters: they stand in the
collection "batch_stats", beside what else training does not differentiate, a copy a layer.
"""

import json
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.activity import activity
from pspike_jax.functional.neurons import sdn_history, sdn_spikes
from pspike_jax.functional.neurons.neuron import Params
from pspike_jax.functional.neurons.sdn import SHAPES, TAPS
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.nn.block import Pass
from pspike_jax.nn.dense import scale_and_shift
from pspike_jax.nn.placement import refuse_split_time

FOLDER = pathlib.Path(__file__).parents[1] / "pretrained" / "sdn"
DEFAULT = "tau_0.125"
MOST_BYTES = 1 << 20


def list_surrogate_networks() -> tuple[str, ...]:
    """Return the names of the networks that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def load_surrogate_network(name: str = DEFAULT) -> tuple[Params, dict[str, Any]]:
    """Load a network for `functional.neurons.sdn_spikes`.

    Args:
      name: one of `list_surrogate_networks()`, or the path of a card that
        `python -m experiments.train_sdn` wrote, ending in .json.

    Returns:
      params: the 153 numbers.
      card: how it was trained, and how well it agrees with the true neuron; JSON types.

    Raises:
      FileNotFoundError: nobody knows the name.
      ValueError: the card is damaged.
    """
    path = pathlib.Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"
    if not path.is_file():
        known = ", ".join(list_surrogate_networks())
        raise FileNotFoundError(
            f"no surrogate network {name!r}; expected one of {known}, or a card .json of "
            "python -m experiments.train_sdn"
        )
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} has more than {MOST_BYTES:,} bytes")
    try:
        card = json.loads(path.read_text())
        weights = card["weights"]
        params = {name: np.asarray(weights[name], np.float32) for name in SHAPES}
        wrong = [name for name, array in params.items() if array.shape != SHAPES[name]]
        if wrong or not all(np.isfinite(array).all() for array in params.values()):
            raise ValueError(f"shapes or values of {wrong or 'weights'}")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no card of a surrogate network: {error!r}") from error
    return {name: jnp.asarray(array) for name, array in params.items()}, card


class SurrogateSite(nn.Module):
    """Spikes of hard-reset neurons whose membranes a surrogate dynamic network guesses.

    Attributes:
      features: H.
      surrogate: name in `functional.SURROGATES`.
      fan_out: operations that one spike triggers, for the activity record.
      network: which network, see `load_surrogate_network`; variables may hold another.
      affine: own scale and shift of the drive.
    """

    features: int
    surrogate: str
    fan_out: int
    network: str = DEFAULT
    affine: bool = False

    @nn.compact
    def __call__(
        self, drive: jax.Array, state: jax.Array | None, ctx: Pass
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Fire.

        Args:
          drive: (B, L, H) input currents, in units of the threshold.
          state: (B, 8, H), the currents before the first step; zeros if None.
          ctx: the pass.

        Returns:
          spikes (B, L, H), the state after the last step, and counts over valid steps.
        """
        refuse_split_time("surrogate networks, which read the eight steps before each")
        drive = scale_and_shift(self, drive) if self.affine else drive
        weights = self.variable("batch_stats", "network", self._load)
        state = self.zero_state(drive.shape[0]) if state is None else state
        spikes, excess = sdn_spikes(
            weights.value, drive, state, surrogate=SURROGATES[self.surrogate]
        )
        spikes = spikes.astype(drive.dtype)
        slopes = SURROGATES[self.surrogate](excess, 0.0)
        record = activity(spikes, spikes, slopes != 0, ctx.mask, self.fan_out)
        if ctx.capture:
            record |= {"spike_array": spikes, "probability_array": spikes, "drive_array": excess}
        return spikes, sdn_history(drive, state), record

    def _load(self):
        return load_surrogate_network(self.network)[0]

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return the currents before the first step of a stream: none."""
        return jnp.zeros((batch_size, TAPS, self.features), jnp.float32)
