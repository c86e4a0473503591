"""D-LinOSS (Boyer et al. 2025, 2505.12171): damped oscillators between gated dense layers.

encoder -> blocks (norm -> oscillators -> GELU -> W1 h * sigmoid(W2 h), + x) -> pool -> linear.
Published for classes, by the mean over time, and for numbers at some of the steps, pool="none".
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.oscillator import Scheme
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Block, Pass, Stack
from pspike_jax.nn.dense import ACTIVATIONS, linear
from pspike_jax.nn.mixers.oscillator import STARTS, OscillatorSSM, effective
from pspike_jax.nn.norm import STATISTICS, Normalization

SCHEMES = tuple(scheme.value for scheme in Scheme)
ENGINES = tuple(engine.value for engine in Engine if engine is not Engine.FFT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OscillatorConfig(Config):
    """Fields of all networks of oscillators."""

    d_model: int = option(64, "features H")
    d_state: int = option(64, "oscillators P of a block")
    n_layers: int = option(4, "number of blocks")
    norm: str = option("batch", "statistics of the batch norm, see `nn.norm`", choices=STATISTICS)
    momentum: float = option(0.99, "weight of old statistics", low=0, high=1, ends="[)")
    dropout: float = option(0.1, "rate", low=0, high=1, ends="[)")
    shared_dropout: bool = option(False, "one dropout mask for all examples, as in the programs")
    activation: str = option("identity", "of the outputs", choices=("identity", "tanh"))
    engine: str = option("auto", "how oscillators are evaluated", choices=ENGINES)

    def make_mixer(self, **kwargs) -> OscillatorSSM:
        """Return the oscillators of a block; keyword arguments are those of every module."""
        raise NotImplementedError(type(self).__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DLinOSSConfig(OscillatorConfig):
    """Fields of D-LinOSS."""

    scheme: str = option(
        "damped_imex1", "how a step is taken, see `functional.oscillator`", choices=SCHEMES
    )
    start: str = option("ring", "where eigenvalues, or else A and G, start", choices=STARTS)
    r_min: float = option(0.9, "smallest modulus of the ring", low=0, ends="(]")
    r_max: float = option(1.0, "largest modulus of the ring", low=0, high=1, ends="(]")
    theta_min: float = option(0.0, "smallest argument of the ring", low=0, high=math.pi)
    theta_max: float = option(math.pi, "largest argument of the ring", low=0, high=math.pi)
    step_std: float = option(0.5, "spread of the stored step, a sigmoid's argument", low=0)

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        if self.r_min > self.r_max or self.theta_min > self.theta_max:
            raise ValueError(
                f"no ring: r {self.r_min} .. {self.r_max}, theta {self.theta_min} .. "
                f"{self.theta_max}"
            )
        if self.start == "ring" and not Scheme(self.scheme).damped:
            raise ValueError(f"start='ring' needs a damped scheme, not {self.scheme!r}")

    def make_mixer(self, **kwargs) -> OscillatorSSM:
        """Return the oscillators of a block; keyword arguments are those of every module."""
        return OscillatorSSM(
            features=self.d_model,
            oscillators=self.d_state,
            scheme=self.scheme,
            start=self.start,
            ring=(self.r_min, self.r_max, self.theta_min, self.theta_max),
            step_std=self.step_std,
            engine=self.engine,
            **kwargs,
        )


class OscillatorBlock(Block):
    """Residual block around oscillators.

    Attributes:
      config: the model's.
    """

    config: OscillatorConfig

    @nn.compact
    def __call__(self, x: jax.Array, state: jax.Array | None, ctx: Pass):
        """Run one block, as `nn.block` says."""
        config = self.config
        norm = Normalization(
            config.norm, config.momentum, affine=False, unbiased=False, name="norm"
        )
        mixer = config.make_mixer(name="ssm")
        h, state = mixer(norm(x, ctx.mask, ctx.train), state, ctx)
        # The programs split no key over the batch.
        broadcast = (0,) if config.shared_dropout else ()
        drop = nn.Dropout(config.dropout, broadcast_dims=broadcast, deterministic=not ctx.train)
        h = drop(ACTIVATIONS["gelu_tanh"](h).astype(x.dtype))
        size = config.d_model
        value = linear(size, size, name="value", dtype=x.dtype)(h)
        gate = linear(size, size, name="gate", dtype=x.dtype)(h)
        x = x + drop(value * jax.nn.sigmoid(gate))
        return x, state, {"macs": {"state": mixer.macs_per_step, "dense": 2 * size**2}}

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return the state before the first step of a stream."""
        return self.config.make_mixer(parent=None).zero_state(batch_size)


class DLinOSS(SequenceModel):
    """A stack of blocks of damped oscillators; nothing spikes."""

    config: OscillatorConfig

    def setup(self):
        super().setup()
        stacked = self.variables.get("params", {}).get("backbone", {}).get("blocks")
        if stacked is not None:  # the scan over layers sees no values to refuse
            effective(nn.meta.unbox(stacked["ssm"]["oscillators"]), self.config.scheme)

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        return OscillatorSSM.supports

    @nn.nowrap
    def make_backbone(self) -> Stack:
        """Return the blocks; no norm follows the last one."""
        config = self.config
        return Stack(functools.partial(OscillatorBlock, config), config.n_layers, config.remat)

    @property
    def head_options(self) -> dict[str, Any]:
        """Outputs have an activation."""
        return {"activation": self.config.activation}

    @nn.nowrap
    def poles(self, params) -> jax.Array:
        """Return one eigenvalue of each oscillator of all layers."""
        mixer = self.config.make_mixer(parent=None)
        return mixer.poles(params["backbone"]["blocks"]["ssm"])


PRESETS = {
    "dlinoss": DLinOSSConfig(),
    # The authors' program at 617acac, whose batch norm trains by the batch and whose running
    # variance starts at 1; and at 450b546, where training normalises by running statistics.
    "program_batch": DLinOSSConfig(norm="debiased", shared_dropout=True),
    "program_ema": DLinOSSConfig(norm="running", shared_dropout=True),
    "tiny": DLinOSSConfig(
        num_outputs=3, d_model=6, d_state=4, n_layers=2, theta_min=0.3, theta_max=2.5, dropout=0.0
    ),
}
