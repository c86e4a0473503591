"""Mamba (Gu & Dao, arXiv:2312.00752): selective state spaces; classifier or language model."""

import dataclasses

from pspike_jax.models.config import option
from pspike_jax.models.residual import MixerConfig, MixerModel
from pspike_jax.nn.fields import check_step_sizes
from pspike_jax.nn.mixers import SelectiveMixer


@dataclasses.dataclass(frozen=True, kw_only=True)
class MambaConfig(MixerConfig):
    """Fields of Mamba."""

    d_state: int = option(16, "N, states of one channel")
    d_conv: int = option(4, "steps that the convolution before the scan sees")
    expand: int = option(2, "channels of a mixer for each feature")
    dt_min: float = option(1e-3, "smallest initial step size", low=0, ends="(]")
    dt_max: float = option(0.1, "largest initial step size", low=0, ends="(]")

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        check_step_sizes(self.dt_min, self.dt_max)

    def make_mixer(self, **kwargs) -> SelectiveMixer:
        """Return the mixer of a block; keyword arguments are those of every module."""
        return SelectiveMixer(
            self.d_model, self.d_state, self.d_conv, self.expand, self.dt_min, self.dt_max,
            self.engine, **kwargs,
        )


class Mamba(MixerModel):
    """A stack of Mamba blocks; nothing spikes."""

    config: MambaConfig


BYTES = {"vocab_size": 256, "num_outputs": 256, "pool": "none", "head_bias": False}

PRESETS = {
    "classifier": MambaConfig(),
    # A small causal model of bytes.
    "language": MambaConfig(**BYTES),
    # The smallest size of the paper; its vocabulary is that of GPT-NeoX, filled up to 50,280.
    "language_130m": MambaConfig(
        **BYTES | {"vocab_size": 50280, "num_outputs": 50280}, d_model=768, n_layers=24,
        remat="block",
    ),
    "tiny": MambaConfig(
        num_outputs=3, d_model=8, d_state=4, n_layers=2, dt_min=0.05, dt_max=0.5
    ),
}
