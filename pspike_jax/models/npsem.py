"""NPSEM (arXiv 2007.01290): two wide networks that play for a conditional moment. A reconstruction.

The paper has no experiments and no program was found. f reads what acts, u the instrument; both are
one hidden layer of rectifiers of which only the first weights are learnt.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.activity import valid_steps
from pspike_jax.functional.moments import reversed_gradient, two_layer
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.roles import role


@dataclasses.dataclass(frozen=True, kw_only=True)
class NPSEMConfig(Config):
    """Fields of NPSEM."""

    comparable = False

    num_outputs: int = option(2, "f and u")
    encoder: str = option("none", "both players read inputs", choices=("none",))
    head: str = option("none", "both players tell one number", choices=("none",))
    pool: str = option("last", "inputs have one step", choices=("last",))
    precision: str = option("float32", "of everything", choices=("float32",))
    remat: str = option("none", "what the backward pass computes again", choices=("none",))
    x_features: int = option(2, "of the inputs, the first ones are f's, the rest u's")
    width: int = option(256, "m, neurons of each player; even")

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        if self.num_outputs != 2 or self.vocab_size is not None:
            raise ValueError("num_outputs must be 2 and vocab_size None")
        if self.width % 2:
            raise ValueError(f"width is {self.width}; expected an even number")


class Player(nn.Module):
    """One network; its neurons start in pairs of opposite sign, so that it starts at 0.

    Attributes:
      width: m, even.
    """

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return (B,) for x (B, d)."""
        half, d = self.width // 2, x.shape[-1]

        def draw(key, shape):
            one = jax.random.normal(key, (half, d), jnp.float32) * d**-0.5
            return jnp.concatenate([one, one]).reshape(shape)

        axes = ("features", "inputs")
        weights = self.param("weights", role(draw, axes, "no_decay"), (self.width, d))
        signs = jnp.where(jnp.arange(self.width) < half, jnp.float32(1), jnp.float32(-1))
        return two_layer(weights, signs, x)


class NPSEM(SequenceModel):
    """Both players of a conditional moment; the objective is `ConditionalMoment`.

    Inputs are (B, 1, x_features + z_features), outputs (B, 2): f, and u behind a reversed gradient.
    """

    config: NPSEMConfig

    def setup(self):
        """Make the players."""
        self.f, self.u = Player(self.config.width), Player(self.config.width)

    def _run(self, inputs, state, ctx):
        x, config = inputs[:, 0].astype(jnp.float32), self.config
        if inputs.shape[1] != 1 or x.shape[-1] <= config.x_features:
            raise ValueError(
                f"inputs have shape {inputs.shape}; expected one step of more than "
                f"{config.x_features} features"
            )
        f = self.f(x[:, : config.x_features])
        u = reversed_gradient(self.u(x[:, config.x_features :]))
        each = jnp.asarray(config.width * (x.shape[-1] + 2), jnp.float32)
        macs = dict.fromkeys(("encoder", "head", "state"), jnp.float32(0))
        macs["dense"] = valid_steps(inputs, ctx.mask) * each
        return jnp.stack([f, u], axis=-1), {"sites": {}, "losses": {}, "macs": macs}, None


PRESETS = {"instrument": NPSEMConfig(), "tiny": NPSEMConfig(width=16)}
