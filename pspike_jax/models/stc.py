"""STC (arXiv 2406.00405): spiking cells with an autaptic circuit, which predict the next frame.

Frames go through a stack of convolutional cells; the spikes of the last one, mixed pixel by pixel,
are the next frame. Behind the frames that are given, the model sees its own predictions.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.activity import activity
from pspike_jax.models.config import Fields, option
from pspike_jax.nn.autapse import CELLS, AutapticCell
from pspike_jax.nn.dense import KERNELS
from pspike_jax.nn.precision import PRECISIONS
from pspike_jax.nn.roles import role


@dataclasses.dataclass(frozen=True, kw_only=True)
class STCConfig(Fields):
    """Fields of STC."""

    channels: int = option(1, "channels of a frame")
    widths: tuple[int, ...] = option((256, 256, 256), "features of each layer of cells")
    cell: str = option("lif", "kind of neuron in the circuit, see `nn.autapse`", choices=CELLS)
    filter_size: int = option(5, "width of the convolutions, odd")
    groups: int = option(16, "groups of own spikes' convolutions and of norms")
    patch: int = option(2, "pixels of a square of patch x patch are channels of one position")
    detach: bool = option(False, "spikes that steer the circuit are constants of the backward pass")
    precision: str = option("float32", "of convolutions", choices=PRECISIONS)
    remat: str = option(
        "none",
        "what the backward pass computes again: nothing, or steps",
        choices=("none", "block"),
    )

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        if self.filter_size % 2 == 0:
            raise ValueError(f"filter_size is {self.filter_size}; expected an odd number")
        for width in self.widths:
            if width % self.groups:
                raise ValueError(f"a width is {width}; expected a multiple of groups={self.groups}")


class FrameStep(nn.Module):
    """One step: a frame, or the last prediction, in; spikes and the next prediction out.

    Attributes:
      config: the model's.
    """

    config: STCConfig

    @nn.compact
    def __call__(self, carry, given):
        """Take (states, prediction) and (frame, share of it that is seen), as `lax.scan` does."""
        config, (states, predicted), (frame, share) = self.config, *_pair(carry, given)
        dtype = PRECISIONS[config.precision]
        x, after = share * frame + (1 - share) * predicted, []
        for i, (cell, state) in enumerate(zip(make_cells(config), states, strict=True)):
            after.append(cell.clone(name=f"cells_{i}", parent=self)(x, state))
            x = after[-1].spikes
        head = nn.Conv(
            predicted.shape[-1],
            (1, 1),
            use_bias=False,
            dtype=dtype,
            kernel_init=role(KERNELS["linear"], (None, None, "inputs", "features"), "readout"),
            name="head",
        )
        predicted = head(x.astype(dtype)).astype(jnp.float32)
        return (tuple(after), predicted), (predicted, tuple(state.spikes for state in after))


def _pair(*things):
    return things


class STC(nn.Module):
    """Convolutional spiking cells that predict the next frame.

    The activity of its layers is called "cells", stacked where all layers have one width, else
    "cells_0", "cells_1" and so on; its neurons are features times positions.

    Attributes:
      config: the fields of the family.
    """

    config: STCConfig

    @property
    def supports(self) -> frozenset[str]:
        """What the model can do beside whole sequences."""
        return frozenset({"streaming"})

    @property
    def stochastic(self) -> bool:
        """Whether a pass draws noise."""
        return False

    @nn.nowrap
    def replace(self, **fields) -> "STC":
        """Return the same model with other fields."""
        return self.clone(config=dataclasses.replace(self.config, **fields))

    def setup(self):
        step = FrameStep
        if self.config.remat == "block":
            step = nn.remat(step, prevent_cse=False)
        scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        self.steps = scan(self.config)

    def __call__(
        self,
        frames: jax.Array,
        given: int | None = None,
        share: jax.Array | None = None,
        train: bool = False,
        capture: bool = False,
    ) -> tuple[jax.Array, dict]:
        """Predict each next frame.

        Args:
          frames: (B, T, H, W, C) float; H and W are multiples of the patch.
          given: how many frames the model sees; behind them its own predictions take their place,
            and what frames hold there is not read. All if None.
          share: (B, T - 1, ...) in [0, 1] that broadcasts against patched frames: how much of each
            input is the true frame, as scheduled sampling has it; in the place of `given`.
          train: accepted, as in all models; nothing here depends on it.
          capture: add spikes to aux.

        Returns:
          predictions: (B, T - 1, H, W, C) float32, of the frames from the second on.
          aux: {"sites", "losses", "macs"} as those of sequence models, a frame being a step.

        Raises:
          ValueError: frames that do not fit, fewer than 2, or both given and share.
        """
        del train
        self._check(frames)
        if given is not None and share is not None:
            raise ValueError("given and share both say which frames are seen; expected one of them")
        inputs = patched(frames[:, :-1].astype(jnp.float32), self.config.patch)
        batch, steps = inputs.shape[:2]
        if share is None:
            seen = jnp.arange(steps, dtype=jnp.int32) < (steps if given is None else given)
            share = seen.astype(jnp.float32)[None, :, None, None, None]
        share = jnp.broadcast_to(share.astype(jnp.float32), inputs.shape)
        state = self._rest(batch, *inputs.shape[2:4])
        _, predictions, aux = self._run(state, inputs, share, capture)
        return predictions, aux

    @nn.nowrap
    def initial_state(self, batch_size: int, height: int, width: int) -> Any:
        """Return the state before the first frame of a stream of height x width pixels."""
        patch = self.config.patch
        return self._rest(batch_size, height // patch, width // patch)

    def step(self, state: Any, frame: jax.Array | None = None, capture: bool = False):
        """Continue a stream by one frame.

        Args:
          state: from `initial_state` or an earlier call.
          frame: (B, H, W, C), or None to go on from the last prediction.
          capture: as in `__call__`.

        Returns:
          state: after the frame.
          (prediction, aux): the next frame, (B, H, W, C).
        """
        share = jnp.ones_like(state[1]) if frame is not None else jnp.zeros_like(state[1])
        seen = state[1]
        if frame is not None:
            seen = patched(frame[:, None].astype(jnp.float32), self.config.patch)[:, 0]
        state, predictions, aux = self._run(state, seen[:, None], share[:, None], capture)
        return state, (predictions[:, 0], aux)

    @nn.nowrap
    def _rest(self, batch, height, width):
        config = self.config
        cells = tuple(cell.zero_state(batch, height, width) for cell in make_cells(config))
        frame = (batch, height, width, config.channels * config.patch**2)
        return cells, jnp.zeros(frame, jnp.float32)

    def _run(self, state, inputs, share, capture):
        first = lambda a: a.swapaxes(0, 1)
        state, (predictions, spikes) = self.steps(state, (first(inputs), first(share)))
        predictions, spikes = first(predictions), tuple(map(first, spikes))
        aux = {"sites": self._sites(spikes, capture), "losses": {}, "macs": self._macs(inputs)}
        return state, unpatched(predictions, self.config.patch), aux

    @nn.nowrap
    def _sites(self, spikes, capture):
        config, records = self.config, []
        following = [*config.widths[1:], config.channels * config.patch**2]
        for i, layer in enumerate(spikes):
            area = config.filter_size**2
            onward = following[i] * (area if i + 1 < len(spikes) else 1)
            fan_out = onward + 2 * area * config.widths[i] // config.groups
            flat = layer.reshape(*layer.shape[:2], -1)
            record = activity(flat, flat, jnp.ones_like(flat), None, fan_out)
            if capture:
                record |= {"spike_array": layer, "probability_array": layer}
            records.append(jax.tree.map(lambda a: a[None], record))
        if len(set(config.widths)) == 1:
            return {"cells": jax.tree.map(lambda *parts: jnp.concatenate(parts), *records)}
        return {f"cells_{i}": record for i, record in enumerate(records)}

    @nn.nowrap
    def _macs(self, inputs):
        batch, steps, height, width, channels = inputs.shape
        pixels = jnp.asarray(batch, jnp.float32) * jnp.float32(steps * height * width)
        first, _ = make_cells(self.config)[0].macs_per_position(channels)
        # Gates and membranes: a handful of products a neuron.
        return {"encoder": pixels * first, "state": pixels * 4 * sum(self.config.widths)}

    @nn.nowrap
    def _check(self, frames):
        config = self.config
        if frames.ndim != 5 or not jnp.issubdtype(frames.dtype, jnp.floating):
            raise ValueError(f"frames are {frames.dtype} {frames.shape}; expected (B, T, H, W, C)")
        _, steps, height, width, channels = frames.shape
        if (
            steps < 2
            or channels != config.channels
            or height % config.patch
            or width % config.patch
        ):
            raise ValueError(
                f"frames have shape {frames.shape}; expected 2 frames or more of "
                f"{config.channels} channels, their sides multiples of {config.patch}"
            )


def make_cells(config: STCConfig) -> list[AutapticCell]:
    """Return the cells of a model, without parents."""
    dtype = PRECISIONS[config.precision]
    shared = (config.filter_size, config.groups, config.detach, dtype)
    return [AutapticCell(config.cell, width, *shared, parent=None) for width in config.widths]


def patched(frames: jax.Array, patch: int) -> jax.Array:
    """Return frames (B, T, H, W, C) as (B, T, H / p, W / p, p p C)."""
    B, T, H, W, C = frames.shape
    cut = frames.reshape(B, T, H // patch, patch, W // patch, patch, C)
    return cut.swapaxes(3, 4).reshape(B, T, H // patch, W // patch, patch * patch * C)


def unpatched(frames: jax.Array, patch: int) -> jax.Array:
    """Turn `patched` back."""
    B, T, H, W, C = frames.shape
    cut = frames.reshape(B, T, H, W, patch, patch, C // patch**2)
    return cut.swapaxes(3, 4).reshape(B, T, H * patch, W * patch, C // patch**2)


def frame_error(predictions: jax.Array, frames: jax.Array, given: int | None = None) -> jax.Array:
    """Return the mean squared error of predictions (B, T - 1, ...) of frames (B, T, ...).

    Args:
      predictions: of the model.
      frames: the true ones.
      given: count only frames behind this many, those that are predictions of predictions.
    """
    start = 0 if given is None else given - 1
    return jnp.mean(jnp.square(predictions - frames[:, 1:])[:, start:])


PRESETS = {
    # Moving MNIST of the published scripts.
    "moving_mnist": STCConfig(),
    "kth": STCConfig(patch=4, detach=True),
    "taxibj": STCConfig(channels=2, patch=1, detach=True),
    # Digits of 8 x 8 pixels, which a CPU predicts.
    "moving_digits": STCConfig(widths=(32, 32), filter_size=5, patch=1),
    "tiny": STCConfig(widths=(4, 4), filter_size=3, groups=2, patch=1),
}
