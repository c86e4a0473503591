"""Reset-based neurons: a file each, and one unroll that runs any of them over time."""

from pspike_jax.functional.neurons.adlif import CONSTRAINED, AdLIF
from pspike_jax.functional.neurons.csilif import CSiLIF
from pspike_jax.functional.neurons.evaluate import (
    EVALUATIONS,
    Evaluated,
    choose_evaluation,
    evaluate,
)
from pspike_jax.functional.neurons.firing import Firing, fire
from pspike_jax.functional.neurons.leaky import HardResetLIF, RefractoryLIF, SoftResetLIF
from pspike_jax.functional.neurons.lif import LIF
from pspike_jax.functional.neurons.neuron import (
    Neuron,
    NeuronState,
    clamp,
    draw_initial_state,
    initial_state,
)
from pspike_jax.functional.neurons.parallel import Effort
from pspike_jax.functional.neurons.pendulum import Pendulum, small_swing_poles
from pspike_jax.functional.neurons.recurrent import (
    RADLIF,
    RLIF,
    init_recurrent,
    without_diagonal,
)
from pspike_jax.functional.neurons.resonate_and_fire import ResonateAndFire
from pspike_jax.functional.neurons.sdn import (
    agreement,
    sdn_history,
    sdn_membrane,
    sdn_spikes,
)
from pspike_jax.functional.neurons.sdn_training import (
    fuse,
    init_sdn,
    lif_targets,
    sdn_loss,
    training_membrane,
)
from pspike_jax.functional.neurons.silif import SiLIF
from pspike_jax.functional.neurons.stability import eigenvalues, subthreshold_transition
from pspike_jax.functional.neurons.traces import drive_traces
from pspike_jax.functional.neurons.unroll import default_section, step, unroll

__all__ = [
    "CONSTRAINED",
    "EVALUATIONS",
    "RADLIF",
    "RLIF",
    "AdLIF",
    "CSiLIF",
    "Effort",
    "Evaluated",
    "Firing",
    "HardResetLIF",
    "LIF",
    "Neuron",
    "NeuronState",
    "Pendulum",
    "RefractoryLIF",
    "ResonateAndFire",
    "SiLIF",
    "SoftResetLIF",
    "agreement",
    "choose_evaluation",
    "clamp",
    "default_section",
    "draw_initial_state",
    "drive_traces",
    "eigenvalues",
    "evaluate",
    "fire",
    "fuse",
    "init_recurrent",
    "init_sdn",
    "initial_state",
    "lif_targets",
    "sdn_history",
    "sdn_loss",
    "sdn_membrane",
    "sdn_spikes",
    "small_swing_poles",
    "step",
    "subthreshold_transition",
    "training_membrane",
    "unroll",
    "without_diagonal",
]
