"""LongSpike (He et al., arXiv 2606.12895): SpikingSSM's blocks with a sum of S4D kernels.

All is as in `models.spikingssm`, but the mixer has `terms` copies of its poles, scaled by eta and
shifted by omega, both trained: see `nn.mixers.exponential_sums`. The paper calls the kernel
fractional; no order enters the program.
"""

import dataclasses

from pspike_jax.models.config import option
from pspike_jax.models.spikingssm import TASKS, SpikingSSM, SpikingSSMConfig, presets
from pspike_jax.nn.mixers import ExponentialSumSSM


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongSpikeConfig(SpikingSSMConfig):
    """Fields of LongSpike."""

    terms: int = option(2, "copies of the poles, M")

    def mixer(self, **kwargs) -> ExponentialSumSSM:
        """Return what carries information over time; keyword arguments are every module's."""
        return ExponentialSumSSM(**self.mixer_fields, terms=self.terms, **kwargs)


class LongSpike(SpikingSSM):
    """LongSpike: SpikingSSM whose kernels are sums over scaled and shifted poles."""

    config: LongSpikeConfig


# The authors' configurations differ from SpikingSSM's in these fields.
_OTHER = {
    "text": {"d_state": 64},
    "sc35": {"d_state": 32, "train_B": False},
    "pathx": {"dt_max": 0.01},
}
PRESETS = presets(
    LongSpikeConfig,
    {task: fields | _OTHER.get(task, {}) for task, fields in TASKS.items()},
    {"neuron": "bptt"},
)
