"""S4D (Gu et al. 2022, 2206.11893): the dense, non-spiking twin of a P-SpikeSSM."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import CAUSAL, SequenceModel
from pspike_jax.nn.block import Block, Pass, Stack
from pspike_jax.nn.dense import ACTIVATIONS, linear
from pspike_jax.nn.fields import check_state_size, check_step_sizes
from pspike_jax.nn.mixers.diagonal import DIAGONAL_INITIALIZERS, DiagonalSSM
from pspike_jax.nn.norm import Normalization


@dataclasses.dataclass(frozen=True, kw_only=True)
class S4DConfig(Config):
    """Fields of S4D."""

    d_model: int = option(128, "features H")
    d_state: int = option(16, "N, real state size of one feature, even")
    n_layers: int = option(4, "number of blocks")
    norm: str = option("layer", "normalization of a block", choices=("batch", "layer"))
    prenorm: bool = option(True, "normalise the input of a block rather than its output")
    causal: bool = option(True, "kernels look back only")
    dropout: float = option(0.0, "rate", low=0, high=1, ends="[)")
    shared_dynamics: bool = option(False, "features share A; dt and C stay their own")
    initializer: str = option("legs", "starting poles", choices=DIAGONAL_INITIALIZERS)
    dt_min: float = option(1e-3, "smallest initial step size", low=0, ends="(]")
    dt_max: float = option(1e-1, "largest initial step size", low=0, ends="(]")
    engine: str = option("auto", "how SSMs are evaluated", choices=[e.value for e in Engine])

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        check_state_size(self.d_state)
        check_step_sizes(self.dt_min, self.dt_max)


class S4DLayer(nn.Module):
    """One published S4D layer: GLU(W dropout(GELU(SSM(u) + D u)) + b).

    Attributes:
      config: sizes.
    """

    config: S4DConfig

    @nn.compact
    def __call__(self, u: jax.Array, state: jax.Array | None, ctx: Pass):
        """Run the layer.

        Args:
          u: (B, L, H).
          state: (B, H, N/2) complex64, zero if None.
          ctx: the pass.

        Returns:
          y: (B, L, H); state: (B, H, N/2) complex64.
        """
        config = self.config
        y, state = make_mixer(config, name="ssm")(u, state, ctx)
        y = ACTIVATIONS["gelu"](y.astype(u.dtype))
        y = nn.Dropout(config.dropout, broadcast_dims=(1,))(y, deterministic=not ctx.train)
        y = linear(2 * config.d_model, config.d_model, name="output_linear", dtype=y.dtype)(y)
        return nn.glu(y), state


def make_mixer(config: S4DConfig, **kwargs) -> DiagonalSSM:
    """Return the SSM of a layer; keyword arguments are those of every module."""
    return diagonal_mixer(
        config, shared=config.shared_dynamics, two_sided=not config.causal, **kwargs
    )


def diagonal_mixer(
    config: Config, *, shared: bool = False, two_sided: bool = False, **kwargs
) -> DiagonalSSM:
    """Return S4D's SSM of a config with fields of these names; B is 1."""
    return DiagonalSSM(
        features=config.d_model,
        d_state=config.d_state,
        initializer=config.initializer,
        shared=shared,
        two_sided=two_sided,
        skip=True,
        train_B=False,
        dt_min=config.dt_min,
        dt_max=config.dt_max,
        engine=config.engine,
        **kwargs,
    )


class S4DBlock(Block):
    """Residual block around an S4D layer.

    Attributes:
      config: the model's.
    """

    config: S4DConfig

    @nn.compact
    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass):
        """Run one block, as `nn.block` says."""
        config = self.config
        norm = Normalization(config.norm, name="norm")
        u = norm(x, ctx.mask, ctx.train).astype(x.dtype) if config.prenorm else x
        if ctx.mask is not None:
            u = jnp.where(ctx.mask[..., None], u, 0)
        before = None if state is None else state["ssm"]
        y, final = S4DLayer(config, name="layer")(u, before, ctx)
        drop = nn.Dropout(config.dropout, broadcast_dims=(1,))
        x = x + drop(y, deterministic=not ctx.train)
        x = x if config.prenorm else norm(x, ctx.mask, ctx.train).astype(x.dtype)
        macs = {
            "state": make_mixer(config, parent=None).macs_per_step,
            "dense": 2 * config.d_model**2,
        }
        return x, {"ssm": final}, {"macs": macs}

    @nn.nowrap
    def zero_state(self, batch_size: int) -> dict:
        """Return the state before the first step of a stream."""
        return {"ssm": make_mixer(self.config, parent=None).zero_state(batch_size)}


class S4D(SequenceModel):
    """A stack of S4D blocks; nothing spikes."""

    config: S4DConfig

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        return DiagonalSSM.supports if self.config.causal else DiagonalSSM.supports - CAUSAL

    @nn.nowrap
    def make_backbone(self) -> Stack:
        """Return the blocks, and a final norm where blocks normalise their inputs."""
        config = self.config
        block = functools.partial(S4DBlock, config)
        norm = config.norm if config.prenorm else None
        return Stack(block, config.n_layers, config.remat, norm=norm)

    @nn.nowrap
    def poles(self, params) -> jax.Array:
        """Return Lambda_bar of all layers."""
        return DiagonalSSM.poles(params["backbone"]["blocks"]["layer"]["ssm"])


PRESETS = {
    "s4d": S4DConfig(),
    "tiny": S4DConfig(num_outputs=3, d_model=4, d_state=4, n_layers=2, dt_min=0.05, dt_max=0.5),
}
