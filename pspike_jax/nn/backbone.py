"""Blocks stacked under one scan: parameters have a leading layer axis, compile time is flat."""

import dataclasses
import numbers

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.nn.block_config import SITES, BlockConfig
from pspike_jax.nn.blocks import Mode, OfficialBlock, PaperBlock
from pspike_jax.nn.fields import check_choice
from pspike_jax.nn.norm import Normalization
from pspike_jax.nn.placement import place
from pspike_jax.nn.pspike import Noise

SAMPLINGS = ("spikes", "mean")
NoiseArgument = float | jax.Array | list | tuple | None


class PSpikeBackbone(nn.Module):
    """The blocks of a P-SpikeSSM, and a final norm where blocks normalise their inputs.

    Attributes:
      config: what the blocks compute.
    """

    config: BlockConfig

    def __call__(
        self,
        x: jax.Array,
        lengths: jax.Array | None = None,
        train: bool = False,
        noise: NoiseArgument = None,
        sampling: str = "spikes",
        example_ids: jax.Array | None = None,
        capture: bool = False,
    ):
        """Run all blocks over whole sequences.

        Args:
          x: (B, L, H).
          lengths: (B,) int, valid steps of each example; all if None.
          train: batch statistics and dropout.
          noise: None draws from the rng stream "spikes"; or a number for every uniform; or for
            each block a tuple of (B, L, H) uniforms, one for each sampler in order of use.
          sampling: "spikes", or "mean" for probabilities in place of spikes.
          example_ids: (B,) int, names of the examples for the noise; arange(B) if None.
          capture: record full spike and probability arrays, and each block's output.

        Returns:
          y: (B, L, H).
          aux: {site: activity}, each entry stacked over layers.
        """
        key = None
        if noise is None and sampling == "spikes":
            key = self.make_rng("spikes")
        y, aux, _ = self.run(x, lengths, train, noise, sampling, example_ids, capture, key)
        return y, aux

    @nn.compact
    def run(
        self, x, lengths, train, noise, sampling, example_ids, capture, key, state=None, start=0
    ):
        """Run all blocks from a state; as `__call__`, with the key given.

        Args:
          x, lengths, train, noise, sampling, example_ids, capture: as in `__call__`.
          key: PRNG key for the uniforms, consumed; None where noise is given.
          state: as `block_state`, stacked over layers; None for whole sequences.
          start: time step of x's first element.

        Returns:
          y: (B, L, H); aux: {site: activity}; state: final state or None.
        """
        config = self.config
        check_choice("sampling", sampling, SAMPLINGS)
        if x.ndim != 3 or x.shape[-1] != config.d_model:
            raise ValueError(f"x has shape {x.shape}; expected (B, L, {config.d_model})")
        batch, length, _ = x.shape
        ids = jnp.arange(batch) if example_ids is None else example_ids
        steps = jnp.arange(length) + start
        mask = None if lengths is None else jnp.arange(length)[None, :] < lengths[:, None]
        number, arrays = split_noise(noise, config, x.shape)
        source = Noise(key, ids, steps, number)
        mode = Mode(train, sampling, capture, self._kernel_length(length))

        def body(block, x, per_layer):
            layer, arrays, state = per_layer
            noise = source.replace(arrays=arrays)
            x, records, state = block(place(x), layer, noise, mask, state)
            if capture:
                records["output"]["block_output"] = x
            return place(x), (records, state)

        block = self._block(mode)
        scan = nn.scan(
            body,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True},
            length=config.n_layers,
        )
        x, (aux, state) = scan(block, x, (jnp.arange(config.n_layers), arrays, state))
        if config.prenorm:
            norm_mask = mask if config.block == "paper" else None
            x = Normalization(config.norm, name="norm")(x, norm_mask, train)
        return x, aux, state

    def _block(self, mode):
        block = {"paper": PaperBlock, "official": OfficialBlock}[self.config.block]
        if self.config.remat == "block":
            block = nn.remat(block, prevent_cse=False)
        return block(self.config, mode, name="blocks")

    def _kernel_length(self, length: int) -> int | None:
        if self.config.parametrization == "diagonal" or self.config.l_max is not None:
            return self.config.l_max
        # A shape is static under jit, so an array without elements can hold the length that the
        # kernel was attuned to at initialisation.
        if not (self.is_initializing() or self.has_variable("constants", "kernel_length")):
            raise ValueError("l_max is None and the variables hold no 'constants': set l_max")
        record = self.variable("constants", "kernel_length", lambda: jnp.zeros((length, 0)))
        return record.value.shape[0]


def split_noise(noise: NoiseArgument, config: BlockConfig, shape: tuple[int, ...]):
    """Tell a number from per-block arrays, and stack the latter over layers.

    Args:
      noise: None, a number, or for each block a tuple of uniforms of the given shape.
      config: of the blocks.
      shape: (B, L, H).

    Returns:
      number: float32 scalar or None.
      arrays: tuple of (n_layers, B, L, H), one for each sampler, or None.

    Raises:
      ValueError: wrong number of blocks or samplers, wrong shapes, or a number outside [0, 1].
    """
    if noise is None:
        return None, None
    if not isinstance(noise, (list, tuple)):
        number = jnp.asarray(noise, jnp.float32)
        if number.ndim:
            raise ValueError(f"noise must be a number or a tuple per block, not {number.shape}")
        if isinstance(noise, numbers.Real) and not 0 <= noise <= 1:
            raise ValueError(f"noise is {noise}; a uniform lies between 0 and 1")
        return number, None
    samplers = 1 + max(config.samplers.values())
    if [len(arrays) for arrays in noise] != [samplers] * config.n_layers:
        raise ValueError(
            f"noise has {[len(arrays) for arrays in noise]} arrays in its blocks; "
            f"expected {samplers} in each of {config.n_layers}"
        )
    for arrays in noise:
        for array in arrays:
            if jnp.shape(array) != shape:
                raise ValueError(f"noise has shape {jnp.shape(array)}; expected {shape}")
    return None, tuple(jnp.stack(list(arrays)) for arrays in zip(*noise))


def sites(config: BlockConfig) -> tuple[str, ...]:
    """Return the names of the samplers of a block, in order of use."""
    return tuple(site for site in SITES if site in config.samplers)


def config_fields() -> tuple[str, ...]:
    """Return the names of the fields of `BlockConfig`."""
    return tuple(field.name for field in dataclasses.fields(BlockConfig))
