"""SPikE-SSM (arXiv 2410.17268), a reconstruction: S4D layers that drive refractory neurons.

No program of the authors exists, and of the paper only its abstract was read: neurons with a reset
and a refractory period, whose thresholds and refractory magnitudes are trained, on the outputs of
S4D layers, evaluated in parallel. Everything else here is SpikingSSM's block. The neuron

    u_t = tau (u_{t-1} - V s_{t-1}) + y_t
    a_t = rho a_{t-1} + s_{t-1},    s_t = 1[u_t - kappa a_t >= V]

trains V and kappa, one of each a neuron, in their logarithms. Where the paper evaluates it by
bounds that are drawn together a few times, here it is exact: by a scan, or in parallel with a
proof, see `functional.neurons.parallel`.
"""

import dataclasses

from pspike_jax.functional.neurons import RefractoryLIF
from pspike_jax.models.config import option
from pspike_jax.models.spiking_block import SpikingBlockConfig, SpikingStack
from pspike_jax.models.spikingssm import TASKS, TINY
from pspike_jax.nn.neuron_site import NeuronSite


@dataclasses.dataclass(frozen=True, kw_only=True)
class SPikESSMConfig(SpikingBlockConfig):
    """Fields of the reconstruction."""

    leak: float = option(0.125, "tau, what a step leaves of a membrane", low=0, high=1, ends="()")
    trained_leak: bool = option(False, "each neuron trains its tau, as a logit")
    threshold: float = option(1.0, "V at the start of training", low=0, ends="(]")
    magnitude: float = option(0.5, "kappa at the start of training", low=0, ends="(]")
    refractory_decay: float = option(
        0.6, "rho, what a step leaves of the refractory trace", low=0, high=1, ends="[)"
    )
    detach_reset: bool = option(True, "the reset is a constant of the backward pass")

    def site(self, **kwargs) -> NeuronSite:
        """Return the neurons of a block; keyword arguments are every module's."""
        neuron = RefractoryLIF(
            self.leak,
            self.magnitude,
            self.refractory_decay,
            threshold=self.threshold,
            trained_leak=self.trained_leak,
            trained_threshold=True,
            trained_magnitude=True,
        )
        return NeuronSite(
            neuron,
            self.d_model,
            self.surrogate,
            self.fan_out,
            affine=False,
            detach_reset=self.detach_reset,
            evaluation=self.evaluation,
            **kwargs,
        )


class SPikESSM(SpikingStack):
    """SPikE-SSM, a reconstruction from its abstract: S4D and refractory neurons."""

    config: SPikESSMConfig


PRESETS = {
    "default": SPikESSMConfig(),
    # The paper's sizes are not known: SpikingSSM's.
    **{task: SPikESSMConfig(**fields) for task, fields in TASKS.items()},
    "tiny": SPikESSMConfig(**TINY, threshold=0.3, evaluation="parallel", detach_reset=False),
}
