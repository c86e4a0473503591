"""What SpikingSSM, LongSpike and SPikE-SSM share: blocks of S4D, reset neurons, a gated product.

    z = norm(x),   y = SSM(z) + D z,   s = neuron(y / V),   x + GLU(W s + b)

See `models.spikingssm` for the equations; families differ in what drives and in what fires.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.neurons import EVALUATIONS
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Block, Pass, Stack
from pspike_jax.nn.dense import linear
from pspike_jax.nn.fields import check_state_size, check_step_sizes
from pspike_jax.nn.mixers import DiagonalSSM
from pspike_jax.nn.norm import Normalization
from pspike_jax.nn.roles import role

NORMS = ("batch", "layer", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpikingBlockConfig(Config):
    """Fields of all families whose blocks are SpikingSSM's: what drives and what fires differ."""

    d_model: int = option(128, "features H: neurons of a layer")
    d_state: int = option(64, "N, real state size of one neuron, even")
    n_layers: int = option(4, "number of blocks")
    norm: str = option("batch", "normalization of a block", choices=NORMS)
    prenorm: bool = option(True, "normalise the input of a block rather than its output")
    causal: bool = option(False, "kernels look back only; else a second readout looks ahead")
    train_B: bool = option(False, "learn B; the poles then start below the real axis")
    dropout: float = option(
        0.0, "rate, of spikes and of blocks' outputs; one mask a sequence", low=0, high=1, ends="[)"
    )
    mask_padding: bool = option(True, "keep padding out of kernels and batch statistics")
    surrogate: str = option("triangular", "backward rule of a spike", choices=SURROGATES)
    evaluation: str = option(
        "auto", "neurons step by step or exactly in parallel", choices=EVALUATIONS
    )
    dt_min: float = option(1e-3, "smallest initial step size", low=0, ends="(]")
    dt_max: float = option(1e-1, "largest initial step size", low=0, ends="(]")
    engine: str = option("auto", "how SSMs are evaluated", choices=[e.value for e in Engine])

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        check_state_size(self.d_state)
        check_step_sizes(self.dt_min, self.dt_max)

    @property
    def mixer_fields(self) -> dict:
        """Fields of the mixer, as `DiagonalSSM` takes them."""
        return {
            "features": self.d_model,
            "d_state": self.d_state,
            "initializer": "lin_below" if self.train_B else "lin",
            "shared": False,
            "two_sided": not self.causal,
            "skip": True,
            "train_B": self.train_B,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
            "engine": self.engine,
        }

    def mixer(self, **kwargs) -> DiagonalSSM:
        """Return what carries information over time; keyword arguments are every module's."""
        return DiagonalSSM(**self.mixer_fields, **kwargs)

    def site(self, **kwargs) -> nn.Module:
        """Return the neurons of a block; keyword arguments are every module's."""
        raise NotImplementedError

    @property
    def fan_out(self) -> int:
        """Additions of one spike: both halves of the gated product."""
        return 2 * self.d_model


class SpikingBlock(Block):
    """One block, as the module docstring says.

    Attributes:
      config: the model's.
    """

    config: SpikingBlockConfig

    @nn.compact
    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass):
        """Run one block, as `nn.block` says."""
        config, before = self.config, state or {}
        mask = ctx.mask if config.mask_padding else None
        norm = lambda x: x
        if config.norm != "none":
            layer = Normalization(config.norm, name="norm")
            norm = lambda x: layer(x, mask, ctx.train).astype(x.dtype)
        z = norm(x) if config.prenorm else x
        z = z if mask is None else jnp.where(mask[..., None], z, 0)
        mixer = config.mixer(name="ssm")
        y, mixed = mixer(z, before.get("ssm"), ctx)
        y = self._in_thresholds(y)
        s, fired, record = config.site(name="neurons")(y, before.get("neurons"), ctx)
        x = x + self._mix(s.astype(x.dtype), ctx)
        x = x if config.prenorm else norm(x)
        aux = {"sites": {"neurons": record}, "macs": {"state": mixer.macs_per_step}}
        return x, {"ssm": mixed, "neurons": fired}, aux

    def _in_thresholds(self, y):
        """Return currents in units of the thresholds, which resets to zero leave exact."""
        thresholds = getattr(self.config, "thresholds", 0)
        if not thresholds:
            return y
        axis = "features" if thresholds > 1 else None
        init = role(nn.initializers.zeros, (axis,), "threshold")
        log_threshold = self.param("log_threshold", init, (thresholds,), jnp.float32)
        return y / jnp.exp(log_threshold)[None, None]

    def _mix(self, s, ctx):
        """Mix spikes across neurons, gated."""
        config = self.config
        drop = nn.Dropout(config.dropout, broadcast_dims=(1,), deterministic=not ctx.train)
        dropped = ctx.train and config.dropout > 0
        product = linear(
            2 * config.d_model,
            config.d_model,
            name="output_linear",
            dtype=s.dtype,
            spiking=not dropped,
        )
        return drop(nn.glu(product(drop(s))))

    @nn.nowrap
    def zero_state(self, batch_size: int) -> dict:
        """Return the state before the first step of a stream."""
        config = self.config
        return {
            "ssm": config.mixer(parent=None).zero_state(batch_size),
            "neurons": config.site(parent=None).zero_state(batch_size),
        }


class SpikingStack(SequenceModel):
    """A model of such blocks; families differ in what drives and what fires."""

    config: SpikingBlockConfig

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        return frozenset({"streaming"} if self.config.causal else ())

    @nn.nowrap
    def make_backbone(self) -> Stack:
        """Return the blocks; there is no norm behind the last one."""
        config = self.config
        return Stack(functools.partial(SpikingBlock, config), config.n_layers, config.remat)

    @nn.nowrap
    def poles(self, params) -> jax.Array:
        """Return Lambda_bar of all layers."""
        return self.config.mixer(parent=None).poles(params["backbone"]["blocks"]["ssm"])
