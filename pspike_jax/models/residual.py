"""What models of mixers whose decays follow their inputs share: x + mixer(norm(x)), repeated.

Such models are classifiers where outputs are pooled, and causal language models where they are not
(pool="none", tokens in, as many outputs as tokens).
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax

from pspike_jax.functional.engine import Engine
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Block, Pass, Stack
from pspike_jax.nn.dense import linear
from pspike_jax.nn.mixers import macs_of
from pspike_jax.nn.norm import Normalization

ENGINES = (Engine.AUTO, Engine.SEQUENTIAL, Engine.ASSOCIATIVE, Engine.CHUNKED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixerConfig(Config):
    """Fields of these models; a family adds those of its mixer."""

    d_model: int = option(128, "features of the residual stream")
    n_layers: int = option(4, "number of blocks")
    norm: str = option("rms", "normalization of a block's input", choices=("rms", "layer"))
    dropout: float = option(0.0, "rate, of what blocks add", low=0, high=1, ends="[)")
    d_mlp: int | None = option(None, "width of a gated map behind each mixer; None for no map")
    head_bias: bool = option(True, "the map to outputs has a bias; language models have none")
    engine: str = option(
        "auto", "how recurrences are evaluated", choices=[engine.value for engine in ENGINES]
    )

    def make_mixer(self, **kwargs) -> nn.Module:
        """Return the mixer of a block; keyword arguments are those of every module."""
        raise NotImplementedError(f"{type(self).__name__} has no mixer")

    def check_divides(self, name: str, whole: int) -> None:
        """Raise ValueError unless a field divides a number."""
        size = getattr(self, name)
        if whole % size:
            raise ValueError(f"{name} is {size}; expected a divisor of {whole}")


class MixerBlock(Block):
    """x + mixer(norm(x)), then, where it is asked for, x + W_3 (silu(W_1 norm(x)) * W_2 norm(x)).

    Attributes:
      config: the model's.
    """

    config: MixerConfig

    @nn.compact
    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass):
        """Run one block, as `nn.block` says."""
        config = self.config
        drop = nn.Dropout(config.dropout, broadcast_dims=(1,), deterministic=not ctx.train)
        u = Normalization(config.norm, name="norm")(x).astype(x.dtype)
        before = None if state is None else state["mixer"]
        mixer = config.make_mixer(name="mixer")
        y, final = mixer(u, before, ctx)
        x = x + drop(y.astype(x.dtype))
        macs = macs_of(mixer)
        macs["dense"] = macs.get("dense", 0) + config.d_model * mixer.fan_out
        if config.d_mlp is not None:
            u = Normalization(config.norm, name="mlp_norm")(x).astype(x.dtype)
            dense = functools.partial(linear, dtype=x.dtype, bias=False)
            gate, value = (dense(config.d_mlp, config.d_model, name)(u) for name in ("gate", "up"))
            x = x + drop(dense(config.d_model, config.d_mlp, "down")(jax.nn.silu(gate) * value))
            macs["dense"] += config.d_mlp * (3 * config.d_model + 1)
        return x, {"mixer": final}, {"macs": macs}

    @nn.nowrap
    def zero_state(self, batch_size: int) -> dict:
        """Return the state before the first step of a stream."""
        return {"mixer": self.config.make_mixer(parent=None).zero_state(batch_size)}


class MixerModel(SequenceModel):
    """A stack of residual blocks around mixers, and a norm; nothing spikes."""

    config: MixerConfig

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        return frozenset(self.config.make_mixer(parent=None).supports)

    @nn.nowrap
    def make_backbone(self) -> Stack:
        """Return the blocks and a final norm."""
        config = self.config
        block = functools.partial(MixerBlock, config)
        return Stack(block, config.n_layers, config.remat, norm=config.norm)

    @property
    def head_options(self) -> dict[str, Any]:
        """Whether the map to outputs has a bias is a field."""
        return {"bias": self.config.head_bias}
