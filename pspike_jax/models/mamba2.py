"""Mamba-2 (Dao & Gu, arXiv:2405.21060): heads of SSD; classifier or language model."""

import dataclasses

from pspike_jax.models.config import option
from pspike_jax.models.mamba import BYTES
from pspike_jax.models.residual import MixerConfig, MixerModel
from pspike_jax.nn.fields import check_step_sizes
from pspike_jax.nn.mixers import SSDMixer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mamba2Config(MixerConfig):
    """Fields of Mamba-2."""

    d_state: int = option(64, "N, rows of a head's state")
    d_conv: int = option(4, "steps that the convolution before the scan sees")
    expand: int = option(2, "channels of a mixer for each feature")
    head_features: int = option(64, "channels of a head: columns of its state")
    groups: int = option(1, "heads of a group share how they are written and read")
    learned_start: bool = option(False, "the state before the first step is learnt")
    rate_min: float = option(1.0, "smallest initial decay rate", low=0, ends="(]")
    rate_max: float = option(16.0, "largest initial decay rate", low=0, ends="(]")
    dt_min: float = option(1e-3, "smallest initial step size", low=0, ends="(]")
    dt_max: float = option(0.1, "largest initial step size", low=0, ends="(]")

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        check_step_sizes(self.dt_min, self.dt_max)
        self.check_divides("head_features", self.expand * self.d_model)
        self.check_divides("groups", self.expand * self.d_model // self.head_features)

    def make_mixer(self, **kwargs) -> SSDMixer:
        """Return the mixer of a block; keyword arguments are those of every module."""
        return SSDMixer(
            self.d_model, self.d_state, self.d_conv, self.expand, self.head_features, self.groups,
            (self.rate_min, self.rate_max), self.learned_start, self.dt_min, self.dt_max,
            self.engine, **kwargs,
        )


class Mamba2(MixerModel):
    """A stack of Mamba-2 blocks; nothing spikes."""

    config: Mamba2Config


PRESETS = {
    "classifier": Mamba2Config(),
    # A small causal model of bytes.
    "language": Mamba2Config(**BYTES),
    # The smallest size of the paper; its vocabulary is that of GPT-NeoX, filled up to 50,288.
    "language_130m": Mamba2Config(
        **BYTES | {"vocab_size": 50288, "num_outputs": 50288}, d_model=768, n_layers=24,
        d_state=128, remat="block",
    ),
    "tiny": Mamba2Config(
        num_outputs=3, d_model=8, d_state=4, head_features=4, groups=2, n_layers=2, dt_min=0.05,
        dt_max=0.5,
    ),
}
