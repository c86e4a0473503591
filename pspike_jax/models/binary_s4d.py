"""Binary S4D, and S4D with a gated spiking unit (Stan & Rhodes, arXiv 2401.00955).

    binary   z = norm(x)    s = [S4D(z) > theta]                x + GLU(W s + b)
    gsu      y = S4D(x)     x + GELU(norm((t w + b) * (y T + c)))

t and T are the signs of the entries of y and w that are at least 0.15 of the largest, of a step
and of the matrix; no gradient passes through them. Written from a third party's program (github
liyc5929/neuroseqbench) as recorded; the authors' own was not to be had.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.surrogates import Rectangle, Surrogate, Triangle, no_gradient
from pspike_jax.functional.ternary import SHARE, largest, ternary
from pspike_jax.models.config import Config, option
from pspike_jax.models.s4d import diagonal_mixer
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Block, Pass, Stack
from pspike_jax.nn.dense import ACTIVATIONS, linear
from pspike_jax.nn.fields import check_state_size, check_step_sizes
from pspike_jax.nn.mixers.diagonal import DIAGONAL_INITIALIZERS, DiagonalSSM
from pspike_jax.nn.norm import Normalization
from pspike_jax.nn.roles import role
from pspike_jax.nn.threshold_sites import TernarySite, ThresholdSite

SURROGATES = {"triangle": Triangle, "rectangle": Rectangle}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinaryS4DConfig(Config):
    """Fields of Binary S4D."""

    gate: str = option("glu", "behind spikes, or behind ternary ones", choices=("glu", "gsu"))
    d_model: int = option(128, "features H")
    d_state: int = option(16, "N, real state size of one feature, even")
    n_layers: int = option(4, "number of blocks")
    norm: str = option("layer", "normalization of a block", choices=("batch", "layer"))
    dropout: float = option(0.0, "rate, of a block's output", low=0, high=1, ends="[)")
    threshold: float = option(0.0, "theta, above which an output of 'glu' is a spike")
    surrogate: str = option("triangle", "backward rule of a spike of 'glu'", choices=SURROGATES)
    surrogate_width: float = option(1.0, "a of the surrogate", low=0, ends="(]")
    initializer: str = option("lin", "starting poles", choices=DIAGONAL_INITIALIZERS)
    dt_min: float = option(1e-3, "smallest initial step size", low=0, ends="(]")
    dt_max: float = option(1e-1, "largest initial step size", low=0, ends="(]")
    engine: str = option("auto", "how SSMs are evaluated", choices=[e.value for e in Engine])

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        check_state_size(self.d_state)
        check_step_sizes(self.dt_min, self.dt_max)

    @property
    def slope(self) -> Surrogate:
        """The surrogate as a function."""
        return SURROGATES[self.surrogate](self.surrogate_width)


class BinaryS4DBlock(Block):
    """One layer of either kind, see the module docstring.

    Attributes:
      config: the model's.
    """

    config: BinaryS4DConfig

    @nn.compact
    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass):
        """Run one block, as `nn.block` says."""
        config = self.config
        norm = Normalization(config.norm, name="norm")
        z = x if config.gate == "gsu" else norm(x, ctx.mask, ctx.train).astype(x.dtype)
        mixer = diagonal_mixer(config, name="ssm")
        y, final = mixer(z, None if state is None else state["ssm"], ctx)
        if config.gate == "gsu":
            y, record = self._gated(y, x.dtype, ctx)
            y = ACTIVATIONS["gelu"](norm(y, ctx.mask, ctx.train).astype(x.dtype))
        else:
            y, record = self._binary(y, x.dtype, ctx)
        drop = nn.Dropout(config.dropout, broadcast_dims=(1,))
        x = x + drop(y, deterministic=not ctx.train)
        dense = config.d_model**2 if config.gate == "gsu" else 0
        macs = {"state": mixer.macs_per_step, "dense": dense}
        return x, {"ssm": final}, {"sites": {"output": record}, "macs": macs}

    def _binary(self, y, dtype, ctx):
        config, H = self.config, self.config.d_model
        site = ThresholdSite(
            H, 2 * H, config.slope, config.threshold, fires_at_threshold=False, name="output"
        )
        spikes, _, record = site(y, None, ctx)
        product = linear(2 * H, H, "output_linear", dtype, spiking=True)
        return nn.glu(product(spikes.astype(dtype))), record

    def _gated(self, y, dtype, ctx):
        H = self.config.d_model
        site = TernarySite(H, H, "none", "step", scaled=False, name="output")
        signs, _, record = site(y, None, ctx)
        # Uniform in +-1 / sqrt(H), all three: Kaiming's with slope sqrt(5) is just that.
        draw = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -(H**-0.5), H**-0.5)
        w = self.param("w", role(draw, ("inputs", "features"), "decay"), (H, H))
        b, c = (self.param(n, role(draw, ("features",), "no_decay"), (H,)) for n in ("b", "c"))
        gates = ternary(w, SHARE * largest(w), no_gradient)
        w, b, c, gates, y = (a.astype(dtype) for a in (w, b, c, gates, y))
        return (signs.astype(dtype) @ w + b[None, None]) * (y @ gates + c[None, None]), record

    @nn.nowrap
    def zero_state(self, batch_size: int) -> dict:
        """Return the state before the first step of a stream."""
        return {"ssm": diagonal_mixer(self.config, parent=None).zero_state(batch_size)}


class BinaryS4D(SequenceModel):
    """A stack of Binary S4D blocks, or of blocks with the gated spiking unit."""

    config: BinaryS4DConfig

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        return DiagonalSSM.supports

    @nn.nowrap
    def make_backbone(self) -> Stack:
        """Return the blocks."""
        config = self.config
        block = functools.partial(BinaryS4DBlock, config)
        return Stack(block, config.n_layers, config.remat)

    @nn.nowrap
    def poles(self, params) -> jax.Array:
        """Return Lambda_bar of all layers."""
        return DiagonalSSM.poles(params["backbone"]["blocks"]["ssm"])


_TINY = {"num_outputs": 3, "d_model": 8, "d_state": 4, "n_layers": 2, "dt_min": 0.05,
         "dt_max": 0.5}
# The published sizes are not known to us: these are S4D's for the tasks.
_TASKS = {
    "listops": {"vocab_size": 18, "n_layers": 8},
    "smnist": {"d_state": 64},
    "image": {"d_model": 512, "d_state": 64, "n_layers": 6},
}

PRESETS = {name: BinaryS4DConfig(**fields) for name, fields in _TASKS.items()}
PRESETS["tiny"] = BinaryS4DConfig(**_TINY)
GSU_PRESETS = {
    name: dataclasses.replace(config, gate="gsu") for name, config in PRESETS.items()
}
