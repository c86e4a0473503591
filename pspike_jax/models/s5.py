"""S5 (Smith et al. 2023, 2208.04933): one state space for all features of a layer.

encoder -> blocks (norm -> modes -> gate -> + x) -> pool -> linear.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.s5 import Rule
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import CAUSAL, SequenceModel
from pspike_jax.nn.block import Block, Pass, Stack
from pspike_jax.nn.dense import ACTIVATIONS, linear
from pspike_jax.nn.encoders import Encoder
from pspike_jax.nn.fields import check_step_sizes
from pspike_jax.nn.mixers.s5 import READOUTS, S5SSM
from pspike_jax.nn.norm import Normalization
from pspike_jax.nn.precision import PRECISIONS

GATES = ("half_glu1", "half_glu2", "full_glu", "gelu")
ENGINES = tuple(engine.value for engine in Engine if engine is not Engine.FFT)
RULES = tuple(rule.value for rule in Rule)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModesConfig(Config):
    """Fields of all families whose blocks are S5's."""

    d_model: int = option(128, "features H")
    d_state: int = option(64, "real size of the state: modes, or two for each stored one")
    conjugate: bool = option(True, "store one mode of each conjugate pair")
    rule: str = option("zoh", "discretisation, see `functional.s5`", choices=RULES)
    clip: bool = option(False, "hold real parts of poles at -1e-4 or below")
    readout: str = option("trunc_standard_normal", "how C is drawn", choices=READOUTS)
    norm: str = option("batch", "normalization of a block", choices=("batch", "layer"))
    momentum: float = option(0.95, "weight of old statistics", low=0, high=1, ends="[)")
    prenorm: bool = option(True, "normalise the input of a block rather than its output")
    dropout: float = option(0.0, "rate; one mask for all steps", low=0, high=1, ends="[)")
    sees_padding: bool = option(
        False, "statistics and anti-causal states take padded steps in, as in the program"
    )
    dt_min: float = option(1e-3, "smallest initial step size", low=0, ends="(]")
    dt_max: float = option(1e-1, "largest initial step size", low=0, ends="(]")
    engine: str = option("auto", "how the recurrence is evaluated", choices=ENGINES)

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        check_step_sizes(self.dt_min, self.dt_max)

    def make_norm(self) -> Normalization:
        """Return the norm of a block."""
        epsilon = 1e-6 if self.norm == "layer" else 1e-5  # Flax's, and the program's own
        return Normalization(
            self.norm, self.momentum, unbiased=False, epsilon=epsilon, name="norm"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class S5Config(ModesConfig):
    """Fields of S5."""

    blocks: int = option(8, "copies of one HiPPO matrix that the state starts from")
    n_layers: int = option(6, "number of blocks")
    causal: bool = option(True, "one readout, of the past; else a second one of the future")
    gate: str = option("half_glu1", "what follows the modes", choices=GATES)

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        unit = self.blocks * (2 if self.conjugate else 1)
        if self.d_state % unit:
            raise ValueError(
                f"d_state is {self.d_state}; expected a multiple of {unit}: {self.blocks} blocks"
                + (" of conjugate pairs" if self.conjugate else "")
            )

    def make_mixer(self, **kwargs) -> S5SSM:
        """Return the state space of a block; keyword arguments are those of every module."""
        return S5SSM(
            features=self.d_model,
            modes=self.d_state // 2 if self.conjugate else self.d_state,
            blocks=self.blocks,
            conjugate=self.conjugate,
            rule=self.rule,
            clip=self.clip,
            readout=self.readout,
            dt_min=self.dt_min,
            dt_max=self.dt_max,
            two_sided=not self.causal,
            engine=self.engine,
            **kwargs,
        )


class S5Block(Block):
    """Residual block around the modes.

    Attributes:
      config: the model's.
    """

    config: S5Config

    @nn.compact
    def __call__(self, x: jax.Array, state: jax.Array | None, ctx: Pass):
        """Run one block, as `nn.block` says."""
        config = self.config
        mask = None if config.sees_padding else ctx.mask
        normalize = config.make_norm()
        norm = lambda x: normalize(x, mask, ctx.train).astype(x.dtype)
        u = norm(x) if config.prenorm else x
        if mask is not None and not config.causal:
            u = jnp.where(mask[..., None], u, 0)
        mixer = config.make_mixer(name="ssm")
        y, state = mixer(u, state, ctx)
        drop = nn.Dropout(config.dropout, broadcast_dims=(1,), deterministic=not ctx.train)
        x = x + drop(gated(config.gate, y.astype(x.dtype), drop))
        dense = config.d_model**2 * {"full_glu": 2, "gelu": 0}.get(config.gate, 1)
        macs = {"state": mixer.macs_per_step, "dense": dense}
        return (x if config.prenorm else norm(x)), state, {"macs": macs}

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return the state before the first step of a stream."""
        return self.config.make_mixer(parent=None).zero_state(batch_size)


def gated(kind: str, y: jax.Array, drop: nn.Dropout) -> jax.Array:
    """Return y behind one of the gates; makes linear maps "gate" and "value" of the caller.

    Args:
      kind: one of `GATES`. With g = GELU(y): g * sigmoid(W g); y * sigmoid(W g);
        V g * sigmoid(W g); or g.
      y: (B, L, H).
      drop: acts on g.
    """
    size = y.shape[-1]
    dense = lambda name: linear(size, size, name, y.dtype, kernel="lecun")
    g = drop(ACTIVATIONS["gelu_tanh"](y))
    if kind == "gelu":
        return g
    gate = jax.nn.sigmoid(dense("gate")(g))
    if kind == "full_glu":
        return dense("value")(g) * gate
    return (g if kind == "half_glu1" else y) * gate


class S5(SequenceModel):
    """A stack of S5 blocks; nothing spikes."""

    config: S5Config

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        return S5SSM.supports if self.config.causal else S5SSM.supports - CAUSAL

    @nn.nowrap
    def make_encoder(self) -> nn.Module:
        """Return a table of tokens, or a linear map that starts as Flax's."""
        config = self.config
        if config.encoder == "none":
            return super().make_encoder()
        dtype = PRECISIONS[config.precision]
        return Encoder(config.d_model, config.vocab_size, dtype, kernel="lecun")

    @nn.nowrap
    def make_backbone(self) -> Stack:
        """Return the blocks; no norm follows the last one."""
        config = self.config
        return Stack(functools.partial(S5Block, config), config.n_layers, config.remat)

    @property
    def head_options(self) -> dict[str, Any]:
        """Outputs are a linear map that starts as Flax's."""
        return {"kernel": "lecun"}

    @nn.nowrap
    def poles(self, params) -> jax.Array:
        """Return Lambda_bar of all layers."""
        mixer = self.config.make_mixer(parent=None)
        return mixer.poles(params["backbone"]["blocks"]["ssm"])


def _published(d_model, n_layers, d_state, blocks, **fields) -> S5Config:
    """Return the settings of one of the authors' run scripts at 3c18fdb: two-sided, batch norm."""
    sizes = {"d_model": d_model, "n_layers": n_layers, "d_state": d_state, "blocks": blocks}
    return S5Config(causal=False, **sizes, **fields)


PRESETS = {
    "s5": S5Config(),
    "listops": _published(128, 8, 16, 8, gate="half_glu2", vocab_size=18),
    "text": _published(256, 6, 192, 12, gate="half_glu2", vocab_size=135, num_outputs=2),
    "retrieval": _published(128, 6, 256, 16, vocab_size=98, num_outputs=2, documents=2),
    "image": _published(512, 6, 384, 3, clip=True),
    "pathfinder": _published(192, 6, 256, 8, momentum=0.9, num_outputs=2),
    "pathx": _published(
        128, 6, 256, 16, momentum=0.9, readout="complex_normal", dt_min=1e-4, num_outputs=2
    ),
    "speech": _published(96, 6, 128, 16, num_outputs=35),
    "tiny": S5Config(
        num_outputs=3, d_model=6, d_state=8, blocks=2, n_layers=2, dt_min=0.05, dt_max=0.5
    ),
}
