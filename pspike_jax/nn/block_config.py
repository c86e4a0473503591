"""Which choices the blocks of a P-SpikeSSM leave open, and what fits together.

Samplers are numbered in order of use: the input, the input of a second branch, the output, the
output of the second branch. Under `noise_sharing="official"` the program's two uniforms serve
them all: the first the input and every output, the second the input of the second branch, or the
output where there is one branch only.
"""

import dataclasses

import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.neurons import initial_state
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.nn import lif
from pspike_jax.nn.dense import ACTIVATIONS
from pspike_jax.nn.fields import (
    check_choice,
    check_dropout,
    check_flag,
    check_state_size,
    check_step_sizes,
    check_whole,
)
from pspike_jax.nn.ssm import DIAGONAL_INITIALIZERS

DPLR_ENGINES = (Engine.AUTO, Engine.CHUNKED, Engine.FFT)
SSM_BRANCHES = ("ssm", "ssm_reverse")
SITES = ("input", "input_reverse", "output", "output_reverse")

# Which uniform each site compares with: {noise_sharing: {bidirectional: {site: sampler}}}.
SAMPLERS = {
    "independent": {
        False: {"input": 0, "output": 1},
        True: {"input": 0, "input_reverse": 1, "output": 2, "output_reverse": 3},
    },
    "official": {
        False: {"input": 0, "output": 1},
        True: {"input": 0, "input_reverse": 1, "output": 0, "output_reverse": 0},
    },
}


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """What the blocks of a P-SpikeSSM compute; see the table of fields in the README.

    Attributes:
      block: "paper" or "official", the order of operations.
      neuron: "probabilistic", or "lif" for the paper's baseline in the paper's block.
      d_model: H.
      d_state: N, real state size, even.
      n_layers: number of blocks.
      norm: "batch" or "layer".
      prenorm: normalise the input of a block rather than its output.
      bidirectional: a second branch with its own SSM, reversed in time in "paper".
      causal: kernels look back only.
      residual: add a block's input to its output.
      dropout: rate in [0, 1).
      shared_dynamics: features share A, B (and P); dt and C stay their own.
      parametrization: "diagonal" (zero-order hold) or "dplr" (bilinear).
      initializer: starting poles, "legs", "lin" or "inv"; "dplr" has "legs" alone.
      noise_sharing: "independent" or "official", see the module docstring.
      surrogate: name in `functional.SURROGATES`.
      activation: name in `nn.dense.ACTIVATIONS`, after the mixer.
      mixer: "dense" or "none".
      dt_min: smallest initial step size.
      dt_max: largest initial step size.
      l_max: longest input of a length-attuned kernel; None takes the length at initialisation.
      engine: how SSMs are evaluated; "dplr" has "auto", "chunked" and "fft" alone.
      remat: "none", or "block" to recompute a block's values in the backward pass.
    """

    block: str
    neuron: str
    d_model: int
    d_state: int
    n_layers: int
    norm: str
    prenorm: bool
    bidirectional: bool
    causal: bool
    residual: bool
    dropout: float
    shared_dynamics: bool
    parametrization: str
    initializer: str
    noise_sharing: str
    surrogate: str
    activation: str
    mixer: str
    dt_min: float
    dt_max: float
    l_max: int | None
    engine: str
    remat: str

    def __post_init__(self):
        diagonal = self.parametrization == "diagonal"
        choices = {
            "block": ("paper", "official"),
            "neuron": ("probabilistic", "lif"),
            "norm": ("batch", "layer"),
            "parametrization": ("diagonal", "dplr"),
            "noise_sharing": SAMPLERS,
            "surrogate": SURROGATES,
            "activation": ACTIVATIONS,
            "mixer": ("dense", "none"),
            "engine": tuple(engine.value for engine in (Engine if diagonal else DPLR_ENGINES)),
            "remat": ("none", "block"),
        }
        for name, allowed in choices.items():
            check_choice(name, getattr(self, name), allowed)
        check_choice("init", self.initializer, DIAGONAL_INITIALIZERS if diagonal else ("legs",))
        for name in ("d_model", "n_layers"):
            check_whole(name, getattr(self, name))
        for name in ("prenorm", "bidirectional", "causal", "residual", "shared_dynamics"):
            check_flag(name, getattr(self, name))
        check_whole("l_max", self.l_max, optional=True)
        check_state_size(self.d_state)
        check_step_sizes(self.dt_min, self.dt_max)
        check_dropout(self.dropout)
        if self.block == "paper" and self.bidirectional and self.causal:
            raise ValueError("bidirectional=True reads the future; it needs causal=False")
        if self.block == "official" and self.neuron == "lif":
            raise ValueError("neuron='lif' belongs to block='paper'")

    def zero_state(self, batch_size: int) -> dict:
        """Return the state of one causal block before the first step.

        Args:
          batch_size: B.

        Returns:
          {branch: (B, H, N/2) complex64}, and {site: membrane and spikes, (B, H)} for LIF.
        """
        branches = SSM_BRANCHES if self.bidirectional else SSM_BRANCHES[:1]
        shape = (batch_size, self.d_model, self.d_state // 2)
        state = {name: jnp.zeros(shape, jnp.complex64) for name in branches}
        if self.neuron == "lif":
            resting = lambda: initial_state(lif.NEURON, batch_size, self.d_model)
            state |= {site: resting() for site in self.samplers}
        return state

    @property
    def samplers(self) -> dict[str, int]:
        """Index of the uniform that each site compares with."""
        return SAMPLERS[self.noise_sharing][self.bidirectional]
