"""Mamba-FSCIL (arXiv 2407.06136): a dual selective projector on features of a frozen network.

Features of a map of tokens become one vector that should point at its class's fixed prototype. A
second branch, which begins at exactly 0, is added when classes arrive session by session.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.activity import valid_steps
from pspike_jax.functional.simplex import directions, simplex
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.dense import linear
from pspike_jax.nn.norm import EPSILON
from pspike_jax.nn.roles import role
from pspike_jax.nn.selective_map import SelectiveMap

LEAK = 0.1  # slope of the rectifiers below 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectorConfig(Config):
    """Fields of the projector."""

    comparable = False

    num_outputs: int = option(100, "classes of all sessions, each with its prototype")
    encoder: str = option("none", "inputs are features", choices=("none",))
    head: str = option("simplex", "products with fixed prototypes", choices=("simplex",))
    pool: str = option("mean", "over tokens", choices=("mean",))
    precision: str = option("float32", "of everything", choices=("float32",))
    remat: str = option("none", "what the backward pass computes again", choices=("none",))
    height: int = option(2, "rows of the map of tokens; inputs have height * width steps")
    width: int = option(2, "columns of the map")
    d_hidden: int = option(1280, "width inside the branches' products")
    d_model: int = option(640, "features that point at prototypes, at least as many as classes")
    kind: str = option("ssm", "of the selective block", choices=("ssm", "ss2d"))
    d_state: int = option(256, "states of each feature; N")
    rank: int = option(256, "of the product that tells time steps")
    layers: int = option(2, "products of the base branch")
    new_layers: int = option(2, "products of the new branch")
    new_branch: bool = option(False, "whether the second branch is there: after the base session")
    identity_product: bool | None = option(
        None, "a linear map beside the branches; None where numbers of features differ"
    )
    detach: bool = option(False, "no gradient reaches the base branch")
    seed: int = option(1, "of the prototypes")

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        if self.vocab_size is not None:
            raise ValueError("vocab_size must be None: inputs are features")
        if not 2 <= self.num_outputs <= self.d_model:
            raise ValueError(f"num_outputs is {self.num_outputs}; expected 2 to d_model")


class Branch(nn.Module):
    """Products at each token, a learnt position code, a selective block, the mean over tokens.

    Attributes:
      config: the model's.
      layers: number of products.
      closed: the branch begins at 0.
    """

    config: ProjectorConfig
    layers: int
    closed: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Map tokens (B, L, C) to (B, d_model), and the block's parts."""
        config = self.config
        for i in range(self.layers - 1):
            x = linear(config.d_hidden, x.shape[-1], f"product_{i}")(x)
            x = jax.nn.leaky_relu(self._norm(x, i), LEAK)
        last = role(
            nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
            ("inputs", "features"),
            "decay",
        )
        x = nn.Dense(
            config.d_model, use_bias=False, dtype=jnp.float32, kernel_init=last, name="product"
        )(x)
        shape = (x.shape[1], config.d_model)
        small = role(nn.initializers.truncated_normal(0.02), (None, "features"), "no_decay")
        x = x + self.param("position", small, shape, jnp.float32)[None]
        size = (config.height, config.width)
        block = SelectiveMap(
            config.kind, size, config.d_state, config.rank, self.closed, name="block"
        )
        y, parts = block(x)
        return jnp.mean(y, axis=1), parts

    def _norm(self, x, i):
        """Normalise over all tokens and features together; gain and shift for each of both."""
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        var = jnp.mean(jnp.square(x - mean), axis=(1, 2), keepdims=True)
        shape = x.shape[1:]
        both = (
            self.param(f"norm_{i}_{name}", role(init, (None, "features"), "no_decay"), shape,
                       jnp.float32)
            for name, init in (("scale", nn.initializers.ones), ("bias", nn.initializers.zeros))
        )
        scale, bias = both
        return (x - mean) * jax.lax.rsqrt(var + EPSILON) * scale[None] + bias[None]


class MambaFSCIL(SequenceModel):
    """Features of a frozen network to products with prototypes.

    Inputs are maps of tokens (B, height * width, C), row by row, outputs (B, K) the products of
    unit features with the classes' prototypes; the objective is `SimplexRegression`. With
    `capture`, aux has "features" (B, d_model), "residual" (B, d_model), the part without the new
    branch, and "parts" {"base", "new"}, see `SelectiveMap`. Lengths tell fillers alone.
    """

    config: ProjectorConfig

    def setup(self):
        """Make the branches."""
        config = self.config
        self.base = Branch(config, config.layers)
        if config.new_branch:
            self.new = Branch(config, config.new_layers, closed=True)
        self.identity = nn.Dense(
            config.d_model, use_bias=False, dtype=jnp.float32,
            kernel_init=role(
                nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
                ("inputs", "features"), "decay",
            ),
        )

    @nn.nowrap
    def prototypes(self) -> jax.Array:
        """Return the classes' prototypes (d_model, K)."""
        config = self.config
        return jnp.asarray(simplex(config.d_model, config.num_outputs, config.seed))

    def _run(self, inputs, state, ctx):
        config, x = self.config, inputs.astype(jnp.float32)
        if x.shape[1] != config.height * config.width:
            raise ValueError(
                f"inputs have {x.shape[1]} steps; expected {config.height} * {config.width}"
            )
        mean, product = jnp.mean(x, axis=1), config.identity_product
        if product or (product is None and x.shape[-1] != config.d_model):
            mean = self.identity(mean)
        base, parts = self.base(x)
        features = residual = mean + base
        parts = {"base": parts}
        if config.new_branch:
            if config.detach:
                features = jax.lax.stop_gradient(features)
            new, parts["new"] = self.new(jax.lax.stop_gradient(x))
            features = features + new
        aux = {"sites": {}, "losses": {}, "macs": self._macs(x, ctx)}
        if ctx.capture:
            aux |= {"features": features, "residual": residual, "parts": parts}
        return directions(features) @ self.prototypes(), aux, None

    @nn.nowrap
    def _macs(self, x, ctx):
        config, d = self.config, self.config.d_model
        told = config.rank + 2 * config.d_state
        block = 2 * d**2 + 4 * d * (told + config.rank)
        inner = (config.layers - 2) * config.d_hidden**2
        dense = block + config.d_hidden * (x.shape[-1] + d) + inner
        branches = 2 if config.new_branch else 1
        each = {
            "encoder": 0, "head": config.num_outputs * d / x.shape[1],
            "state": branches * 4 * 3 * d * config.d_state, "dense": branches * dense,
        }
        steps = valid_steps(x, ctx.mask)
        return {name: steps * jnp.asarray(count, jnp.float32) for name, count in each.items()}


PRESETS = {
    "cifar": ProjectorConfig(),
    "cub": ProjectorConfig(
        num_outputs=200, height=7, width=7, d_hidden=1024, d_model=1024, kind="ss2d"
    ),
    "digits": ProjectorConfig(
        num_outputs=10, height=1, width=4, d_hidden=128, d_model=64, d_state=16, rank=8
    ),
    "tiny": ProjectorConfig(
        num_outputs=3, d_hidden=8, d_model=6, d_state=4, rank=2, new_branch=True
    ),
}
