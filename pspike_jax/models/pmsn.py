"""PMSN: parallel multi-compartment spiking neurons (Chen et al., arXiv 2408.14917).

Layers of a product, a norm and neurons; the outputs are a linear map of the last spikes. A neuron
is a row of coupled compartments, a rectifier, and a spike wherever the sum of what passed the
rectifier crosses a multiple of the threshold, see `functional.compartments`. Written from a third
party's program (github liyc5929/neuroseqbench) as recorded; the authors' own was not to be had.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Block, Chain, Pass
from pspike_jax.nn.dense import linear
from pspike_jax.nn.fields import check_step_sizes
from pspike_jax.nn.mixers.compartments import CompartmentSSM
from pspike_jax.nn.mixers.diagonal import zero_order_hold
from pspike_jax.nn.norm import Normalization
from pspike_jax.nn.threshold_sites import SumSite


@dataclasses.dataclass(frozen=True, kw_only=True)
class PMSNConfig(Config):
    """Fields of PMSN's networks."""

    d_model: int = option(256, "features H: neurons of a layer")
    n_layers: int = option(3, "number of layers")
    compartments: int = option(4, "of each neuron")
    norm: str = option("batch", "in front of every layer's neurons", choices=("batch", "layer"))
    dropout: float = option(0.0, "rate at which spikes are dropped", low=0, high=1, ends="[)")
    threshold: float = option(1.0, "V of the neurons", low=0, ends="(]")
    surrogate: str = option("window", "backward rule of a spike", choices=SURROGATES)
    dt_min: float = option(1e-3, "smallest initial step size", low=0, ends="(]")
    dt_max: float = option(1e-1, "largest initial step size", low=0, ends="(]")
    engine: str = option("auto", "how they are evaluated", choices=[e.value for e in Engine])

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        check_step_sizes(self.dt_min, self.dt_max)


class PMSNBlock(Block):
    """Product, norm, neurons: one layer.

    Attributes:
      config: the model's.
      first: the encoder is this layer's product.
      fan_out: neurons, or outputs, behind it.
    """

    config: PMSNConfig
    first: bool
    fan_out: int

    @nn.compact
    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass):
        """Run one layer, as `nn.block` says."""
        config, before = self.config, state or {}
        if not self.first:
            width = x.shape[-1]
            x = nn.Dropout(config.dropout, broadcast_dims=(1,))(x, deterministic=not ctx.train)
            spiking = not (ctx.train and config.dropout)  # what dropout scales is not 0 or 1
            x = linear(config.d_model, width, "linear", x.dtype, spiking=spiking)(x)
        current = Normalization(config.norm, name="norm")(x, ctx.mask, ctx.train)
        mixer = make_mixer(config, name="compartments")
        y, compartments = mixer(current, before.get("compartments"), ctx)
        spikes, total, record = self._site(name="neurons")(jax.nn.relu(y), before.get("sum"), ctx)
        final = {"compartments": compartments, "sum": total}
        macs = {"state": mixer.macs_per_step}
        return spikes.astype(x.dtype), final, {"sites": {"hidden": record}, "macs": macs}

    @nn.nowrap
    def _site(self, **kwargs) -> SumSite:
        config = self.config
        return SumSite(config.d_model, self.fan_out, config.surrogate, config.threshold, **kwargs)

    @nn.nowrap
    def zero_state(self, batch_size: int) -> dict:
        """Return the state before the first step of a stream."""
        return {
            "compartments": make_mixer(self.config, parent=None).zero_state(batch_size),
            "sum": self._site(parent=None).zero_state(batch_size),
        }


def make_mixer(config: PMSNConfig, **kwargs) -> CompartmentSSM:
    """Return the compartments of a layer; keyword arguments are those of every module."""
    steps = {"dt_min": config.dt_min, "dt_max": config.dt_max, "engine": config.engine}
    return CompartmentSSM(config.d_model, config.compartments, **steps, **kwargs)


class PMSN(SequenceModel):
    """A network of multi-compartment neurons; see the module docstring."""

    config: PMSNConfig

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        return frozenset({"streaming", "resets"})

    @nn.nowrap
    def make_backbone(self) -> Chain:
        """Return the layers."""
        config = self.config
        last = config.n_layers - 1
        blocks = [
            functools.partial(
                PMSNBlock, config, i == 0, config.num_outputs if i == last else config.d_model
            )
            for i in range(config.n_layers)
        ]
        return Chain(tuple(blocks), config.remat)

    @nn.nowrap
    def poles(self, params) -> jax.Array:
        """Return the discretised poles of all layers."""
        layers = range(self.config.n_layers)
        cells = [params["backbone"][f"layers_{i}"]["compartments"] for i in layers]
        names = ("A_real", "A_imag", "log_dt")
        return jnp.stack([zero_order_hold(*(cell[n] for n in names))[0] for cell in cells])


# The published sizes are not known to us; these are those of other networks for these tasks.
PRESETS = {
    "smnist": PMSNConfig(),
    "psmnist": PMSNConfig(),
    "shd": PMSNConfig(num_outputs=20, n_layers=2, dropout=0.25),
    "tiny": PMSNConfig(
        num_outputs=3, d_model=8, n_layers=2, norm="layer", threshold=0.3, dt_min=0.05, dt_max=0.5
    ),
}
