"""SpikingSSM (Shen et al. 2024, arXiv 2408.14909): S4D layers whose outputs drive reset neurons.

encoder -> blocks -> mean over time -> linear. A block is

    z = norm(x),   y = SSM(z) + D z,   s = neuron(y / V),   x + GLU(W s + b)

with the S4D-Lin kernel, causal or two-sided, and hard-reset neurons of leak 0.125 and threshold 1:
V is trained in its logarithm. The neuron "bptt" is exact; "sltt" also cuts the backward pass
between steps; "sdn" is the paper's, a surrogate dynamic network that guesses the membrane in
parallel (see `functional.neurons.sdn`).

Where the authors' program is told to normalise behind a block it throws the result away: these of
its configurations run without any norm. It also lets padding into kernels and batch statistics.
The presets NAME do what the paper means, NAME_program what the program does.
"""

import dataclasses

from pspike_jax.functional.neurons import HardResetLIF
from pspike_jax.models.config import option
from pspike_jax.models.spiking_block import SpikingBlockConfig, SpikingStack
from pspike_jax.nn.neuron_site import NeuronSite
from pspike_jax.nn.surrogate_network import DEFAULT, SurrogateSite


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpikingSSMConfig(SpikingBlockConfig):
    """Fields of SpikingSSM."""

    neuron: str = option(
        "sdn", "how the reset neuron is run, see the module", choices=("sdn", "bptt", "sltt")
    )
    threshold: str = option(
        "per_neuron", "which thresholds are trained", choices=("per_neuron", "shared", "fixed")
    )
    leak: float = option(0.125, "tau, what a step leaves of a membrane", low=0, high=1, ends="()")
    network: str = option(
        DEFAULT, "of 'sdn': a network of the package, or the path of a card of one's own"
    )

    def site(self, **kwargs) -> NeuronSite | SurrogateSite:
        """Return the neurons of a block; keyword arguments are every module's."""
        if self.neuron == "sdn":
            return SurrogateSite(
                self.d_model, self.surrogate, self.fan_out, network=self.network, **kwargs
            )
        return NeuronSite(
            HardResetLIF(self.leak, detach_leak=self.neuron == "sltt"),
            self.d_model,
            self.surrogate,
            self.fan_out,
            affine=False,
            detach_reset=True,
            evaluation=self.evaluation,
            **kwargs,
        )

    @property
    def thresholds(self) -> int:
        """Number of a block's trained thresholds, 0, 1 or H."""
        return {"per_neuron": self.d_model, "shared": 1, "fixed": 0}[self.threshold]


class SpikingSSM(SpikingStack):
    """SpikingSSM: S4D layers whose outputs drive neurons that reset."""

    config: SpikingSSMConfig


# {task: fields}, as the authors' configurations have them.
TASKS = {
    "listops": {
        "n_layers": 6, "d_model": 256, "d_state": 4, "norm": "batch", "prenorm": False,
        "train_B": True, "num_outputs": 10,
    },
    "text": {
        "n_layers": 6, "d_model": 256, "d_state": 4, "norm": "batch", "train_B": True,
        "num_outputs": 2,
    },
    "retrieval": {
        "n_layers": 6, "d_model": 256, "d_state": 64, "norm": "batch", "num_outputs": 2,
        "documents": 2,
    },
    "image": {
        "n_layers": 6, "d_model": 512, "d_state": 64, "norm": "layer", "prenorm": False,
        "dropout": 0.1, "num_outputs": 10,
    },
    "pathfinder": {
        "n_layers": 6, "d_model": 256, "d_state": 64, "norm": "batch", "num_outputs": 2,
    },
    "pathx": {
        "n_layers": 6, "d_model": 256, "d_state": 64, "norm": "batch", "train_B": True,
        "dt_min": 1e-4, "num_outputs": 2,
    },
    "smnist": {
        "n_layers": 2, "d_model": 400, "d_state": 64, "norm": "layer", "prenorm": False,
        "causal": True, "dropout": 0.1, "num_outputs": 10,
    },
    "psmnist": {
        "n_layers": 4, "d_model": 256, "d_state": 64, "norm": "layer", "prenorm": False,
        "causal": True, "dropout": 0.1, "num_outputs": 10,
    },
    "sc35": {
        "n_layers": 6, "d_model": 128, "d_state": 16, "norm": "batch", "train_B": True,
        "num_outputs": 35,
    },
    "wt103": {
        "n_layers": 16, "d_model": 1024, "d_state": 64, "norm": "layer", "causal": True,
        "dropout": 0.1, "pool": "none",
    },
}
TINY = {
    "num_outputs": 3, "d_model": 8, "d_state": 4, "n_layers": 2, "norm": "layer",
    "causal": True, "dt_min": 0.05, "dt_max": 0.5,
}


def as_program(fields: dict) -> dict:
    """Return the fields of what the authors' program computes: no norm behind, padding seen."""
    norm = {} if fields.get("prenorm", True) else {"norm": "none"}
    return fields | norm | {"mask_padding": False}


def presets(kind: type[SpikingBlockConfig], tasks: dict[str, dict], tiny: dict) -> dict:
    """Return the presets of a family: default, tasks as meant and as computed, tiny."""
    return {
        "default": kind(),
        **{task: kind(**fields) for task, fields in tasks.items()},
        **{f"{task}_program": kind(**as_program(fields)) for task, fields in tasks.items()},
        "tiny": kind(**TINY | tiny),
    }


PRESETS = presets(SpikingSSMConfig, TASKS, {"train_B": True})
