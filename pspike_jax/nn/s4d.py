"""S4D, the dense twin: diagonal SSM, skip, GELU, gated linear map; no spikes (Gu et al. 2022)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.nn.dense import ACTIVATIONS, linear
from pspike_jax.nn.fields import (
    check_choice,
    check_dropout,
    check_flag,
    check_state_size,
    check_step_sizes,
    check_whole,
)
from pspike_jax.nn.norm import Normalization
from pspike_jax.nn.placement import place
from pspike_jax.nn.ssm import DIAGONAL_INITIALIZERS, DiagonalSSM


@dataclasses.dataclass(frozen=True)
class S4DConfig:
    """What the blocks of an S4D network compute.

    Attributes:
      d_model: H.
      d_state: N, real state size, even.
      n_layers: number of blocks.
      norm: "batch" or "layer".
      prenorm: normalise the input of a block rather than its output.
      causal: kernels look back only.
      dropout: rate in [0, 1).
      shared_dynamics: features share A.
      initializer: starting poles, "legs", "lin" or "inv".
      dt_min: smallest initial step size.
      dt_max: largest initial step size.
      engine: how the SSMs are evaluated.
    """

    d_model: int
    d_state: int
    n_layers: int
    norm: str
    prenorm: bool
    causal: bool
    dropout: float
    shared_dynamics: bool
    initializer: str
    dt_min: float
    dt_max: float
    engine: str

    def __post_init__(self):
        for name, allowed in {
            "norm": ("batch", "layer"),
            "engine": tuple(engine.value for engine in Engine),
        }.items():
            check_choice(name, getattr(self, name), allowed)
        check_choice("init", self.initializer, DIAGONAL_INITIALIZERS)
        for name in ("d_model", "n_layers"):
            check_whole(name, getattr(self, name))
        for name in ("prenorm", "causal", "shared_dynamics"):
            check_flag(name, getattr(self, name))
        check_state_size(self.d_state)
        check_step_sizes(self.dt_min, self.dt_max)
        check_dropout(self.dropout)

    def zero_state(self, batch_size: int) -> dict[str, jax.Array]:
        """Return the state of one causal block, (B, H, N/2) complex64."""
        shape = (batch_size, self.d_model, self.d_state // 2)
        return {"ssm": jnp.zeros(shape, jnp.complex64)}


class S4DLayer(nn.Module):
    """One published S4D layer: GLU(W dropout(GELU(SSM(u) + D u)) + b).

    Attributes:
      config: sizes.
    """

    config: S4DConfig

    @nn.compact
    def __call__(self, u: jax.Array, state: jax.Array | None = None, train: bool = False):
        """Run the layer.

        Args:
          u: (B, L, H).
          state: (B, H, N/2) complex64, zero if None.
          train: apply dropout, one mask for all steps.

        Returns:
          y: (B, L, H); state: (B, H, N/2) complex64.
        """
        config = self.config
        ssm = DiagonalSSM(
            features=config.d_model,
            d_state=config.d_state,
            initializer=config.initializer,
            shared=config.shared_dynamics,
            two_sided=not config.causal,
            skip=True,
            train_B=False,
            dt_min=config.dt_min,
            dt_max=config.dt_max,
            engine=config.engine,
            name="ssm",
        )
        y, state = ssm(u, state)
        y = ACTIVATIONS["gelu"](y.astype(u.dtype))
        y = nn.Dropout(config.dropout, broadcast_dims=(1,))(y, deterministic=not train)
        y = linear(2 * config.d_model, config.d_model, name="output_linear", dtype=y.dtype)(y)
        return nn.glu(y), state


class S4DBlock(nn.Module):
    """Residual block around an S4D layer.

    Attributes:
      config: sizes.
      train: dropout and batch statistics.
    """

    config: S4DConfig
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None, state: dict | None):
        """Return the block's output (B, L, H) and final state; mask (B, L) or None."""
        config = self.config
        norm = Normalization(config.norm, name="norm")
        u = norm(x, mask, self.train).astype(x.dtype) if config.prenorm else x
        if mask is not None:
            u = jnp.where(mask[..., None], u, 0)
        before = None if state is None else state["ssm"]
        y, final = S4DLayer(config, name="layer")(u, before, self.train)
        drop = nn.Dropout(config.dropout, broadcast_dims=(1,))
        x = x + drop(y, deterministic=not self.train)
        x = x if config.prenorm else norm(x, mask, self.train).astype(x.dtype)
        return x, None if state is None else {"ssm": final}


class S4DBackbone(nn.Module):
    """Blocks stacked under one scan, and a final norm where blocks normalise their inputs.

    Attributes:
      config: sizes.
    """

    config: S4DConfig

    @nn.compact
    def run(
        self, x, lengths, train, noise, sampling, example_ids, capture, key, state=None, start=0
    ):
        """Run all blocks; arguments as in `PSpikeBackbone.run`, those about spikes unused.

        Returns:
          y: (B, L, H); aux: {}, as nothing spikes; state: final state or None.
        """
        del noise, sampling, example_ids, capture, key, start
        config = self.config
        mask = None if lengths is None else jnp.arange(x.shape[1])[None, :] < lengths[:, None]
        scan = nn.scan(
            lambda block, x, state: block(place(x), mask, state),
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True},
            length=config.n_layers,
        )
        x, state = scan(S4DBlock(config, train, name="blocks"), x, state)
        if config.prenorm:
            x = Normalization(config.norm, name="norm")(x, mask, train)
        return x, {}, state
