"""Gated linear attention (Yang et al., arXiv:2312.06635), as classifier or language model."""

import dataclasses

from pspike_jax.models.config import option
from pspike_jax.models.mamba import BYTES
from pspike_jax.models.residual import MixerConfig, MixerModel
from pspike_jax.nn.mixers import GatedLinearAttention


@dataclasses.dataclass(frozen=True, kw_only=True)
class GLAConfig(MixerConfig):
    """Fields of gated linear attention."""

    heads: int = option(4, "H; a head's state has d_model / H columns")
    d_state: int = option(16, "N, keys of a head: rows of its state")
    d_mlp: int | None = option(352, "width of a gated map behind each mixer; None for no map")

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        self.check_divides("heads", self.d_model)

    def make_mixer(self, **kwargs) -> GatedLinearAttention:
        """Return the mixer of a block; keyword arguments are those of every module."""
        return GatedLinearAttention(
            self.d_model, self.heads, self.d_state, self.engine, **kwargs
        )


class GLA(MixerModel):
    """A stack of gated linear attention and gated maps; nothing spikes."""

    config: GLAConfig


PRESETS = {
    "classifier": GLAConfig(),
    # A small causal model of bytes.
    "language": GLAConfig(**BYTES),
    "tiny": GLAConfig(num_outputs=3, d_model=8, d_state=4, heads=2, d_mlp=12, n_layers=2),
}
