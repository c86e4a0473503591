"""P-SpikeSSM (Bal & Sengupta, ICLR 2025): probabilistic spiking neurons on state space models.

encoder -> blocks (sample -> SSM -> sample -> mix -> fuse) -> pool -> linear. The preset `paper` is
what the paper describes, `official` what the released program computes, see
`models.pspikessm_official`. `lif_ssm` is the paper's baseline: the same blocks, their spikes made
by leaky integrate-and-fire neurons.
"""

import dataclasses
import functools
from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.neurons import EVALUATIONS
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.models.config import Config, option
from pspike_jax.models.pspikessm_official import SAMPLERS, OfficialBlock
from pspike_jax.models.sequence import CAUSAL, SequenceModel
from pspike_jax.nn.block import Block, Pass, Stack
from pspike_jax.nn.dense import ACTIVATIONS, SpikeMixer
from pspike_jax.nn.fields import check_choice, check_state_size, check_step_sizes
from pspike_jax.nn.mixers import MIXERS, ONE_SIDED, macs_of
from pspike_jax.nn.mixers.diagonal import DIAGONAL_INITIALIZERS
from pspike_jax.nn.norm import ClampFuse, Normalization
from pspike_jax.nn.sites import GRADED_SITES, PARALLEL_SITES, SITES

NORMS = ("batch", "layer")
DPLR_ENGINES = (Engine.AUTO, Engine.CHUNKED, Engine.FFT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PSpikeConfig(Config):
    """Fields of P-SpikeSSM and lif_ssm."""

    block: str = option("paper", "order of operations", choices=("paper", "official"))
    neuron: str = option("probabilistic", "what makes spikes", choices=SITES)
    d_model: int = option(128, "features H: neurons of a layer")
    d_state: int = option(16, "N, real state size of one neuron, even")
    n_layers: int = option(4, "number of blocks")
    norm: str = option("layer", "normalization of a block", choices=NORMS)
    prenorm: bool = option(True, "normalise the input of a block rather than its output")
    bidirectional: bool = option(
        False, "a second branch with its own SSM, reversed in time in 'paper'"
    )
    causal: bool = option(True, "kernels look back only")
    residual: bool = option(True, "add a block's input to its output")
    dropout: float = option(0.0, "rate", low=0, high=1, ends="[)")
    shared_dynamics: bool = option(False, "features share A, B (and P); dt and C stay their own")
    parametrization: str = option("diagonal", "kind of sequence mixer", choices=MIXERS)
    initializer: str = option(
        "legs", "starting poles; 'dplr' has 'legs' alone", choices=DIAGONAL_INITIALIZERS
    )
    noise_sharing: str = option(
        "independent", "a uniform for each sampler, or the program's two", choices=SAMPLERS
    )
    surrogate: str = option(
        "clamp_straight_through", "backward rule of a spike", choices=SURROGATES
    )
    activation: str = option("gelu", "after the mixer across neurons", choices=ACTIVATIONS)
    mixer: str = option("dense", "across neurons", choices=("dense", "none"))
    dt_min: float = option(1e-3, "smallest initial step size", low=0, ends="(]")
    dt_max: float = option(1e-1, "largest initial step size", low=0, ends="(]")
    l_max: int | None = option(None, "longest input, which the kernel of 'dplr' is attuned to")
    evaluation: str = option(
        "auto", "neurons that reset: step by step, or exactly in parallel", choices=EVALUATIONS
    )
    engine: str = option(
        "auto", "how SSMs are evaluated", choices=[engine.value for engine in Engine]
    )

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        check_state_size(self.d_state)
        check_step_sizes(self.dt_min, self.dt_max)
        if self.parametrization in ("oscillator", "s5") and self.engine == "fft":
            raise ValueError(f"engine 'fft' cannot run parametrization={self.parametrization!r}")
        if self.parametrization == "dplr":
            check_choice("engine", self.engine, [engine.value for engine in DPLR_ENGINES])
            check_choice("initializer", self.initializer, ("legs",))
            if self.l_max is None:
                raise ValueError("l_max is None; 'dplr' needs it, the longest input in steps")
        if self.parametrization in ONE_SIDED and self.two_sided:
            raise ValueError(f"parametrization={self.parametrization!r} looks one way: causal=True")
        if self.block == "paper" and self.bidirectional and self.causal:
            raise ValueError("bidirectional=True reads the future; it needs causal=False")
        if self.block == "official" and self.neuron != "probabilistic":
            raise ValueError(f"neuron={self.neuron!r} belongs to block='paper'")

    @property
    def samplers(self) -> dict[str, int]:
        """Index of the uniform that each site compares with."""
        return SAMPLERS[self.noise_sharing][self.bidirectional]

    @property
    def two_sided(self) -> bool:
        """Whether a mixer looks both ways; the two of the paper's block look one way each."""
        return not self.causal and not (self.block == "paper" and self.bidirectional)

    def make_mixer(self, spiking: bool, **kwargs) -> nn.Module:
        """Return the sequence mixer of a block; keyword arguments are those of every module."""
        how = {"two_sided": self.two_sided, "skip": False, "spiking": spiking}
        return MIXERS[self.parametrization](self, **how, **kwargs)

    def fan_out(self, site: str) -> int:
        """Additions of one spike: what the mixer adds it to, or H neurons behind the block's."""
        if site.startswith("input"):
            return self.make_mixer(True, parent=None).fan_out
        return self.d_model if self.mixer == "dense" else 1


class PaperBlock(Block):
    """The block of the paper: p = clamp(a Re(C h) + b) straight from the state.

    Attributes:
      config: the model's.
    """

    config: PSpikeConfig

    @nn.compact
    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass):
        """Run one block, as `nn.block` says."""
        config = self.config
        drive = x
        if config.prenorm:
            drive = Normalization(config.norm, name="norm")(x, ctx.mask, ctx.train)
        before, final, sites, spikes, macs = state or {}, {}, {}, [], Counter()
        spiking = ctx.sampling == "spikes" or config.neuron != "probabilistic"
        spiking = spiking and config.neuron not in GRADED_SITES

        def fire(name, drive):
            s, final[name], sites[name] = self._site(name)(drive, before.get(name), ctx)
            return s.astype(x.dtype)

        for branch in ("", "_reverse") if config.bidirectional else ("",):
            s = fire("input" + branch, drive)
            if ctx.mask is not None:
                s = jnp.where(ctx.mask[..., None], s, 0)
            name = "ssm" + branch
            mixer = config.make_mixer(spiking, name=name)
            y, final[name] = mixer(s, before.get(name), ctx, reverse=bool(branch))
            macs.update(macs_of(mixer))
            spikes.append(fire("output" + branch, y))
        mix = SpikeMixer(config.d_model, config.mixer, config.activation, spiking, name="mixer")
        norm = None if config.prenorm else config.norm
        fuse = ClampFuse(config.residual, config.dropout, norm, name="fuse")
        x = fuse(x, mix(tuple(spikes)), ctx.mask, ctx.train)
        return x, final, {"sites": sites, "macs": dict(macs)}

    @nn.nowrap
    def _site(self, name, **kwargs):
        return SITES[self.config.neuron](self.config, name, **kwargs)

    @nn.nowrap
    def zero_state(self, batch_size: int) -> dict:
        """Return {branch: state of its mixer, site: state of its neurons}."""
        branches = ("", "_reverse") if self.config.bidirectional else ("",)
        mixer, state = self.config.make_mixer(False, parent=None), {}
        for branch in branches:
            state["ssm" + branch] = mixer.zero_state(batch_size)
            for site in ("input" + branch, "output" + branch):
                state[site] = self._site(site, parent=None).zero_state(batch_size)
        return state


class PSpikeSSM(SequenceModel):
    """P-SpikeSSM, or the same network with other neurons; see the module docstring."""

    config: PSpikeConfig

    @property
    def samplers(self) -> int:
        """Kinds of uniforms that a block draws."""
        if self.config.neuron != "probabilistic":
            return 0
        return 1 + max(self.config.samplers.values())

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        config = self.config
        found = set(config.make_mixer(False, parent=None).supports)
        if not config.causal:
            found -= CAUSAL
        if config.neuron not in PARALLEL_SITES:
            found -= {"resets", "dt", "sequence"}
        if config.neuron == "prf":
            found -= {"dt"}
        return frozenset(found)

    @nn.nowrap
    def make_backbone(self) -> Stack:
        """Return the blocks, and a final norm where blocks normalise their inputs."""
        config = self.config
        block = {"paper": PaperBlock, "official": OfficialBlock}[config.block]
        return Stack(
            functools.partial(block, config),
            config.n_layers,
            config.remat,
            norm=config.norm if config.prenorm else None,
            masked_norm=config.block == "paper",
        )

    @nn.nowrap
    def poles(self, params) -> jax.Array | None:
        """Return the poles of all layers, of second branches behind those of first ones."""
        blocks, names = params["backbone"]["blocks"], ("ssm", "ssm_reverse")
        mixer = self.config.make_mixer(False, parent=None)
        found = [mixer.poles(blocks[name]) for name in names if name in blocks]
        return None if found[0] is None else jnp.concatenate(found, axis=1)


TINY = {"num_outputs": 3, "d_model": 8, "d_state": 4, "n_layers": 2, "dt_min": 0.05, "dt_max": 0.5}

PRESETS = {
    "paper": PSpikeConfig(),
    # The ListOps configuration of the released program.
    "official": PSpikeConfig(
        block="official",
        vocab_size=18,
        norm="batch",
        prenorm=False,
        bidirectional=True,
        causal=False,
        shared_dynamics=True,
        parametrization="dplr",
        noise_sharing="official",
        l_max=2048,
    ),
    "tiny": PSpikeConfig(**TINY),
}
LIF_PRESETS = {
    "paper": PSpikeConfig(neuron="lif", surrogate="boxcar"),
    "tiny": PSpikeConfig(neuron="lif", surrogate="boxcar", **TINY),
}
