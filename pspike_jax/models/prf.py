"""PRF: parallel resonate-and-fire neurons in SD-TCM blocks (Huang et al., arXiv 2410.03530).

encoder -> blocks -> mean over time -> linear. A block sends its input through neurons that mix
time, and a product, then through a spatial part that mixes neurons:

    v = u + W s(u) + b        s: resonators; two directions are side by side, W (2H -> H)
    v + W' (e^alpha [v >= 1/2]) + b'              spatial "binary", "binary_vec" (alpha (H,))
    v + (W1 t(v) + b1) * (v t(W2)^T + b2)         spatial "gsu", t ternary
    v                                             spatial "identity"

and around it there is a second residual: norm(x + block(x)), or x + block(norm(x)) and a norm
behind the last block. Written from the authors' program (github HuuYuLong/prf) as recorded.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.neurons import SoftResetLIF
from pspike_jax.functional.resonators import ResettingResonator, resonator
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.functional.ternary import SHARE, largest, ternary
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Block, Pass, Stack
from pspike_jax.nn.dense import KERNELS, linear
from pspike_jax.nn.fields import check_step_sizes
from pspike_jax.nn.norm import Normalization
from pspike_jax.nn.resonators import ResonatorSite, in_reverse
from pspike_jax.nn.roles import role
from pspike_jax.nn.sites import NeuronSite
from pspike_jax.nn.threshold_sites import TernarySite, ThresholdSite, log_size

NEURONS = ("prf", "prf_train", "prf_reset", "decoupled_reset")
SPATIAL = ("binary", "binary_vec", "gsu", "identity")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PRFConfig(Config):
    """Fields of PRF's networks."""

    neuron: str = option(
        "prf", "over time: resonators, the same with trained decays, with a reset; a leaky "
        "neuron that resets by subtraction", choices=NEURONS
    )
    spatial: str = option("binary", "across neurons", choices=SPATIAL)
    bidirectional: bool = option(False, "second neurons, from the end of a sequence to its start")
    d_model: int = option(128, "features H: neurons of a layer")
    n_layers: int = option(8, "number of blocks")
    norm: str = option("batch", "normalization of a block", choices=("batch", "layer"))
    prenorm: bool = option(False, "normalise the input of a block rather than its sum with it")
    dropout: float = option(0.0, "rate, of a block's output", low=0, high=1, ends="[)")
    tau: float = option(2.0, "time constant of a neuron", low=0, ends="(]")
    fr_scale: float = option(1.0, "frequencies start below 2 pi / fr_scale", low=0, ends="(]")
    dt_min: float = option(1e-3, "smallest initial step size", low=0, ends="(]")
    dt_max: float = option(1e-1, "largest initial step size", low=0, ends="(]")
    threshold: float = option(1.0, "V of the neurons over time", low=0, ends="(]")
    surrogate: str = option("arctan", "backward rule of a spike", choices=SURROGATES)
    engine: str = option("auto", "how resonators are evaluated", choices=[e.value for e in Engine])

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        check_step_sizes(self.dt_min, self.dt_max)
        if self.neuron == "decoupled_reset" and self.tau <= 1:
            raise ValueError(f"tau is {self.tau}; a leak 1 - 1/tau needs more than 1")

    @property
    def resets(self) -> bool:
        """Whether spikes act on the neurons that make them, which then run step by step."""
        return self.neuron in ("prf_reset", "decoupled_reset")


def temporal_site(config: PRFConfig, **kwargs) -> ResonatorSite | NeuronSite:
    """Return the neurons over time; keyword arguments are those of every module."""
    start = {"tau": config.tau, "fr_scale": config.fr_scale, "dt_min": config.dt_min,
             "dt_max": config.dt_max, "threshold": config.threshold}
    if not config.resets:
        return ResonatorSite(
            config.d_model, config.d_model, config.surrogate, **start,
            trained_rate=config.neuron == "prf_train", engine=config.engine, **kwargs,
        )
    if config.neuron == "prf_reset":
        neuron = ResettingResonator(**start)
    else:
        neuron = SoftResetLIF(1 - 1 / config.tau, threshold=config.threshold)
    return NeuronSite(
        neuron, config.d_model, config.surrogate, config.d_model, affine=False,
        detach_reset=True, **kwargs,
    )


class TemporalMixer(nn.Module):
    """Neurons over time, and the product that takes their spikes in: u + W s + b.

    Attributes:
      config: the model's.
    """

    config: PRFConfig

    @nn.compact
    def __call__(self, u: jax.Array, state: dict | None, ctx: Pass):
        """Return (B, L, H), the state of the neurons, and the activity of each direction."""
        config = self.config
        # What a neuron meets in padding, one of the second direction meets before all else.
        u = u if ctx.mask is None else jnp.where(ctx.mask[..., None], u, 0)
        spikes, final, record = temporal_site(config, name="temporal")(u, state, ctx)
        sites, parts = {"temporal": record}, [spikes]
        if config.bidirectional:
            site = temporal_site(config, name="temporal_reverse")
            spikes, sites["temporal_reverse"] = in_reverse(site, u, ctx)
            parts.append(spikes)
        joined = jnp.concatenate(parts, axis=-1)
        width = joined.shape[-1]
        product = linear(config.d_model, width, "linear", u.dtype, spiking=True)
        return u + product(joined), final, sites


class SpatialMixer(nn.Module):
    """What mixes neurons within a step, see the module docstring.

    Attributes:
      config: the model's.
    """

    config: PRFConfig

    @nn.compact
    def __call__(self, v: jax.Array, ctx: Pass) -> tuple[jax.Array, dict, int]:
        """Return (B, L, H), the activity of its neurons, and multiply-accumulates of a step."""
        config, H = self.config, v.shape[-1]
        if config.spatial == "identity":
            return v, {}, 0
        if config.spatial == "gsu":
            return self._gated(v, ctx)
        site = ThresholdSite(H, H, config.surrogate, 0.5, name="spatial")
        spikes, _, record = site(v, None, ctx)
        alpha = log_size(self, "alpha", H if config.spatial == "binary_vec" else 1)
        graded = jnp.exp(alpha).astype(v.dtype)[None, None] * spikes
        return v + linear(H, H, "linear", v.dtype)(graded), {"spatial": record}, 0

    def _gated(self, v, ctx):
        config, H = self.config, v.shape[-1]
        site = TernarySite(H, H, config.surrogate, "all", name="spatial")
        graded, _, record = site(v, None, ctx)
        product = linear(H, H, "linear", v.dtype)(graded)
        kernel = self.param("gate_kernel", role(KERNELS["linear"], ("inputs", "features"), "decay"),
                            (H, H), jnp.float32)
        bias = self.param("gate_bias", role(_uniform(H), ("features",), "no_decay"), (H,))
        size = jnp.exp(log_size(self, "gate_log_size"))
        kernel = size[None] * ternary(kernel, SHARE * largest(kernel), SURROGATES[config.surrogate])
        gate = v @ kernel.astype(v.dtype) + bias.astype(v.dtype)[None, None]
        return v + product * gate, {"spatial": record}, H * H


def _uniform(fan_in):
    bound = fan_in**-0.5
    return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)


class PRFBlock(Block):
    """An SD-TCM block, with a norm and a second residual around it.

    Attributes:
      config: the model's.
    """

    config: PRFConfig

    @nn.compact
    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass):
        """Run one block, as `nn.block` says."""
        config = self.config
        norm = Normalization(config.norm, name="norm")
        u = norm(x, ctx.mask, ctx.train).astype(x.dtype) if config.prenorm else x
        before = None if state is None else state["temporal"]
        v, final, sites = TemporalMixer(config, name="time")(u, before, ctx)
        y, spatial, macs = SpatialMixer(config, name="space")(v, ctx)
        y = nn.Dropout(config.dropout, broadcast_dims=(1,))(y, deterministic=not ctx.train)
        x = x + y
        x = x if config.prenorm else norm(x, ctx.mask, ctx.train).astype(x.dtype)
        directions = 2 if config.bidirectional else 1
        # A complex product decays a membrane, and one more product takes the input in.
        state_macs = 0 if config.neuron == "decoupled_reset" else 5 * config.d_model * directions
        macs = {"state": state_macs, "dense": macs}
        return x, {"temporal": final}, {"sites": sites | spatial, "macs": macs}

    @nn.nowrap
    def zero_state(self, batch_size: int) -> dict:
        """Return the state before the first step of a stream."""
        return {"temporal": temporal_site(self.config, parent=None).zero_state(batch_size)}


class PRF(SequenceModel):
    """A network of SD-TCM blocks; see the module docstring."""

    config: PRFConfig

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        config = self.config
        found = set()
        # The ternary gate compares with the largest number of the whole batch.
        alone = config.spatial != "gsu"
        if alone and not config.resets:
            found.add("sequence")
        if alone and not config.bidirectional:
            found |= {"streaming"} if config.resets else {"streaming", "resets"}
        return frozenset(found - ({"sequence"} if config.bidirectional else set()))

    @nn.nowrap
    def make_backbone(self) -> Stack:
        """Return the blocks, and a final norm where blocks normalise their inputs."""
        config = self.config
        norm = config.norm if config.prenorm else None
        return Stack(functools.partial(PRFBlock, config), config.n_layers, config.remat, norm=norm)

    @nn.nowrap
    def poles(self, params) -> jax.Array | None:
        """Return beta of all layers, of second directions behind those of first ones."""
        if self.config.neuron == "decoupled_reset":
            return None
        blocks, names = params["backbone"]["blocks"]["time"], ("temporal", "temporal_reverse")
        cells = [blocks[name]["neuron"] for name in names if name in blocks]

        def beta(cell):
            rate = jnp.exp(cell["gamma"]) if "gamma" in cell else 1 / self.config.tau
            return resonator(cell["log_dt"], cell["theta_log"], rate)[0][..., None]

        return jnp.concatenate([beta(cell) for cell in cells], axis=1)


_RASTER = {"bidirectional": True, "n_layers": 6}
_PIXELS = {"neuron": "prf_train", "spatial": "identity", "d_model": 200, "n_layers": 4,
           "prenorm": True, "dt_min": 0.01, "dt_max": 1.0}

# Sizes from the paper's table 8, settings from the program's README.
PRESETS = {
    "listops": PRFConfig(vocab_size=18, fr_scale=12.0),
    "text": PRFConfig(num_outputs=2, vocab_size=135, fr_scale=16.0, d_model=256, n_layers=6),
    "retrieval": PRFConfig(
        num_outputs=2, vocab_size=98, documents=2, fr_scale=14.0, d_model=256, n_layers=6
    ),
    "image": PRFConfig(fr_scale=0.25, d_model=512, **_RASTER),
    # Pixels of Pathfinder are tokens: each of 256 brightnesses has an embedding.
    "pathfinder": PRFConfig(num_outputs=2, vocab_size=256, fr_scale=0.6, d_model=256, **_RASTER),
    "pathx": PRFConfig(
        num_outputs=2, vocab_size=256, fr_scale=10.0, tau=100.0, d_model=256, **_RASTER
    ),
    "smnist": PRFConfig(tau=2.0, **_PIXELS),
    "psmnist": PRFConfig(tau=5.0, **_PIXELS),
    "seqcifar": PRFConfig(neuron="prf_train", n_layers=6, tau=4.0, fr_scale=0.5),
    "tiny": PRFConfig(
        num_outputs=3, d_model=8, n_layers=2, dt_min=0.2, dt_max=1.0, threshold=0.2, norm="layer"
    ),
}
