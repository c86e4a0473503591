"""The block of the released P-SpikeSSM program, oddities included.

Samplers are numbered in order of use: the input, the input of a second branch, the output, the
output of the second branch. Under `noise_sharing="official"` the program's two uniforms serve
them all: the first the input and every output, the second the input of the second branch, or the
output where there is one branch only.
"""

import functools
from collections import Counter
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.nn.block import Block, Pass
from pspike_jax.nn.dense import ACTIVATIONS, SpikeMixer
from pspike_jax.nn.mixers import MIXERS, macs_of
from pspike_jax.nn.norm import ClampFuse, Normalization
from pspike_jax.nn.sites import SpikeSampler

# Which uniform each site compares with: {noise_sharing: {bidirectional: {site: sampler}}}.
SAMPLERS = {
    "independent": {
        False: {"input": 0, "output": 1},
        True: {"input": 0, "input_reverse": 1, "output": 2, "output_reverse": 3},
    },
    "official": {
        False: {"input": 0, "output": 1},
        True: {"input": 0, "input_reverse": 1, "output": 0, "output_reverse": 0},
    },
}


class OfficialBlock(Block):
    """Sample -> SSM -> GELU -> sample -> mix -> fuse, as the program does it.

    The norm follows the input's affine map; GELU, the skip D and two dropouts lie between the state
    and the output's; the second branch reads the raw input without norm, is not reversed in time
    and has no affine map after its SSM.

    Attributes:
      config: the model's, a `PSpikeConfig`.
    """

    config: Any

    @nn.compact
    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass):
        """Run one block, as `nn.block` says."""
        config = self.config
        norm = None
        if config.prenorm:
            normalization = Normalization(config.norm, name="norm")
            norm = functools.partial(normalization, mask=None, train=ctx.train)
        sites, final = {}, {}
        draw = functools.cache(lambda sampler: ctx.uniforms(sampler, config.d_model))

        def fire(site, drive, affine=True, norm=None):
            noise = draw(config.samplers[site]) if ctx.sampling == "spikes" else None
            sampler = SpikeSampler(
                config.d_model, config.surrogate, config.fan_out(site), affine=affine, name=site
            )
            s, _, sites[site] = sampler(drive, None, ctx, noise=noise, norm=norm)
            return s

        s = fire("input", x, norm=norm)
        y, final["ssm"] = self._branch("ssm", s, state, ctx)
        if config.bidirectional:
            s = fire("input_reverse", x)
            second, final["ssm_reverse"] = self._branch("ssm_reverse", s, state, ctx)
        spikes = [fire("output", y)]
        if config.bidirectional:
            spikes.append(fire("output_reverse", second, affine=False))
        spiking = ctx.sampling == "spikes"
        mix = SpikeMixer(config.d_model, config.mixer, config.activation, spiking, name="mixer")
        after = None if config.prenorm else config.norm
        fuse = ClampFuse(config.residual, config.dropout, after, name="fuse")
        x = fuse(x, mix(tuple(s.astype(x.dtype) for s in spikes)), None, ctx.train)
        macs = Counter()
        for branch in final:
            macs.update(macs_of(self._mixer(None, spiking, parent=None)))
        return x, final, {"sites": sites, "macs": dict(macs)}

    def _branch(self, name, spikes, state, ctx):
        """Return dropout(dropout(GELU(SSM(spikes)))), and the SSM's final state."""
        if ctx.mask is not None:
            spikes = jnp.where(ctx.mask[..., None], spikes, 0)
        rate, still = self.config.dropout, not ctx.train
        mixer = self._mixer(name, ctx.sampling == "spikes")
        y, final = mixer(spikes, None if state is None else state[name], ctx)
        y = nn.Dropout(rate, name=f"{name}_dropout")(y, deterministic=still)
        y = ACTIVATIONS["gelu"](y)
        tied = nn.Dropout(rate, broadcast_dims=(1,), name=f"{name}_tied_dropout")
        return tied(y, deterministic=still), final

    @nn.nowrap
    def _mixer(self, name, spiking, **kwargs):
        how = {"two_sided": self.config.two_sided, "skip": True, "spiking": spiking}
        return MIXERS[self.config.parametrization](self.config, name=name, **how, **kwargs)

    @nn.nowrap
    def zero_state(self, batch_size: int) -> dict:
        """Return {branch: state of its SSM}."""
        names = ("ssm", "ssm_reverse") if self.config.bidirectional else ("ssm",)
        return {n: self._mixer(n, True, parent=None).zero_state(batch_size) for n in names}
