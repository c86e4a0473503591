"""Blocks of P-SpikeSSM: sample -> SSM -> sample -> mix -> fuse, as the paper and as the program."""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp

from pspike_jax.nn.block_config import BlockConfig
from pspike_jax.nn.dense import ACTIVATIONS
from pspike_jax.nn.dplr_ssm import DPLRSSM
from pspike_jax.nn.lif import LIFReadout
from pspike_jax.nn.norm import Normalization
from pspike_jax.nn.pspike import ClampFuse, Noise, SpikeMixer, SpikeSampler
from pspike_jax.nn.ssm import DiagonalSSM


@dataclasses.dataclass(frozen=True)
class Mode:
    """How a pass is run.

    Attributes:
      train: batch statistics and dropout.
      sampling: "spikes" or "mean".
      capture: record full arrays.
      kernel_length: L of length-attuned kernels, or None where kernels are not attuned.
    """

    train: bool
    sampling: str
    capture: bool
    kernel_length: int | None


class Block(nn.Module):
    """What both orders of operations share; see `PaperBlock` and `OfficialBlock`.

    Attributes:
      config: what is computed.
      mode: how the pass is run.
    """

    config: BlockConfig
    mode: Mode

    def fan_out(self, site: str) -> int:
        """Additions of one spike: N real numbers of each state, or H neurons behind the mixer."""
        if site.startswith("input"):
            return self.config.d_state * (2 if self._two_sided else 1)
        return self.config.d_model if self.config.mixer == "dense" else 1

    def integrate(self, site, drive, mask, state):
        """Return the LIF spikes of a site, their activity record and the neurons' final state."""
        config = self.config
        readout = LIFReadout(
            features=config.d_model,
            surrogate=config.surrogate,
            fan_out=self.fan_out(site),
            capture=self.mode.capture,
            name=site,
        )
        return readout(drive, mask, state)

    def sample(self, site, drive, draw, mask, affine=True, norm=None):
        """Return the spikes and the activity record of a site; `draw` as from `draws`."""
        config, mode = self.config, self.mode
        sampler = SpikeSampler(
            features=config.d_model,
            sampling=mode.sampling,
            surrogate=config.surrogate,
            fan_out=self.fan_out(site),
            affine=affine,
            capture=mode.capture,
            name=site,
        )
        uniform = None
        if mode.sampling == "spikes":
            uniform = draw(config.samplers[site])
        return sampler(drive, uniform, mask, norm)

    def draws(self, noise, layer):
        """Return a function of a sampler's number to its uniforms, each drawn once in a block."""
        features = self.config.d_model
        return functools.cache(lambda sampler: noise.uniforms(layer, sampler, features))

    def ssm(self, name: str, skip: bool):
        """Return the SSM of one branch."""
        config = self.config
        common = {
            "features": config.d_model,
            "d_state": config.d_state,
            "shared": config.shared_dynamics,
            "two_sided": self._two_sided,
            "skip": skip,
            "dt_min": config.dt_min,
            "dt_max": config.dt_max,
            "engine": config.engine,
            "spiking": self._spiking,
            "name": name,
        }
        if config.parametrization == "dplr":
            return DPLRSSM(length=self.mode.kernel_length, **common)
        return DiagonalSSM(initializer=config.initializer, train_B=True, **common)

    @property
    def _two_sided(self) -> bool:
        """Whether a branch looks both ways; the two of the paper's block look one way each."""
        one_way_each = self.config.block == "paper" and self.config.bidirectional
        return not (self.config.causal or one_way_each)

    @property
    def _spiking(self) -> bool:
        return self.mode.sampling == "spikes" or self.config.neuron == "lif"

    def mix_and_fuse(self, x, spikes, mask):
        """Return the block's output from its input and the spikes of its branches."""
        config = self.config
        mixer = SpikeMixer(
            config.d_model, config.mixer, config.activation, self._spiking, name="mixer"
        )
        norm = None if config.prenorm else config.norm
        fuse = ClampFuse(config.residual, config.dropout, norm, name="fuse")
        return fuse(x, mixer(spikes), mask, self.mode.train)


class PaperBlock(Block):
    """The block of the paper: p = clamp(a Re(C h) + b) straight from the state."""

    @nn.compact
    def __call__(self, x, layer, noise: Noise, mask, state):
        """Run one block.

        Args:
          x: (B, L, H).
          layer: index of the block.
          noise: uniforms.
          mask: (B, L) bool of valid steps, or None.
          state: as `BlockConfig.zero_state`, to carry on from, or None.

        Returns:
          x: (B, L, H).
          records: {site: activity}.
          state: the final state, or None where none was given.
        """
        config = self.config
        drive = x
        if config.prenorm:
            drive = Normalization(config.norm, name="norm")(x, mask, self.mode.train)
        before, final, records, spikes = state or {}, {}, {}, []
        draw = self.draws(noise, layer)

        def fire(site, drive):
            if config.neuron == "lif":
                s, records[site], final[site] = self.integrate(site, drive, mask, before.get(site))
            else:
                s, records[site] = self.sample(site, drive, draw, mask)
            return s.astype(x.dtype)

        for branch in ("", "_reverse") if config.bidirectional else ("",):
            site_in, site_out = "input" + branch, "output" + branch
            s = fire(site_in, drive)
            if mask is not None:
                s = jnp.where(mask[..., None], s, 0)
            name = "ssm" + branch
            ssm = self.ssm(name, skip=False)
            y, final[name] = ssm(s, before.get(name), reverse=bool(branch))
            spikes.append(fire(site_out, y))
        x = self.mix_and_fuse(x, tuple(spikes), mask)
        return x, records, None if state is None else final


class OfficialBlock(Block):
    """The block of the released program, oddities included.

    The norm follows the input's affine map; GELU, the skip D and two dropouts lie between the state
    and the output's; the second branch reads the raw input without norm, is not reversed in time
    and has no affine map after its SSM.
    """

    @nn.compact
    def __call__(self, x, layer, noise: Noise, mask, state):
        """Run one block; arguments and results as in `PaperBlock`."""
        config = self.config
        norm = None
        if config.prenorm:
            normalization = Normalization(config.norm, name="norm")
            norm = functools.partial(normalization, mask=None, train=self.mode.train)
        records, spikes, final = {}, [], {}
        draw = self.draws(noise, layer)
        s, records["input"] = self.sample("input", x, draw, mask, norm=norm)
        y, final["ssm"] = self.branch("ssm", s, mask, state)
        if config.bidirectional:
            s, records["input_reverse"] = self.sample("input_reverse", x, draw, mask)
            y_second, final["ssm_reverse"] = self.branch("ssm_reverse", s, mask, state)
        s, records["output"] = self.sample("output", y, draw, mask)
        spikes.append(s)
        if config.bidirectional:
            s, records["output_reverse"] = self.sample(
                "output_reverse", y_second, draw, mask, affine=False
            )
            spikes.append(s)
        x = self.mix_and_fuse(x, tuple(s.astype(x.dtype) for s in spikes), None)
        return x, records, None if state is None else final

    def branch(self, name, spikes, mask, state):
        """Return dropout(dropout(GELU(SSM(spikes)))), and the SSM's final state."""
        if mask is not None:
            spikes = jnp.where(mask[..., None], spikes, 0)
        y, final = self.ssm(name, skip=True)(spikes, None if state is None else state[name])
        rate, still = self.config.dropout, not self.mode.train
        y = nn.Dropout(rate, name=f"{name}_dropout")(y, deterministic=still)
        y = ACTIVATIONS["gelu"](y)
        tied = nn.Dropout(rate, broadcast_dims=(1,), name=f"{name}_tied_dropout")
        return tied(y, deterministic=still), final
