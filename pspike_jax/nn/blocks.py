"""Blocks of P-SpikeSSM: sample -> SSM -> sample -> mix -> fuse, as the paper and as the program.

Samplers are numbered in order of use: the input, the input of a second branch, the output, the
output of the second branch. Under `noise_sharing="official"` the program's two uniforms serve
them all: the first the input and every output, the second the input of the second branch, or the
output where there is one branch only.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.nn.dense import ACTIVATIONS
from pspike_jax.nn.norm import Normalization
from pspike_jax.nn.pspike import ClampFuse, Noise, SpikeMixer, SpikeSampler
from pspike_jax.nn.ssm import DIAGONAL_INITIALIZERS, DiagonalSSM, DPLRSSM

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
      engine: how diagonal SSMs are evaluated.
      remat: "none", or "block" to recompute a block's values in the backward pass.
    """

    block: str
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
            "norm": ("batch", "layer"),
            "parametrization": ("diagonal", "dplr"),
            "initializer": DIAGONAL_INITIALIZERS if diagonal else ("legs",),
            "noise_sharing": SAMPLERS,
            "surrogate": SURROGATES,
            "activation": ACTIVATIONS,
            "mixer": ("dense", "none"),
            "remat": ("none", "block"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                expected = ", ".join(map(repr, allowed))
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {expected}")
        for name in ("d_model", "d_state", "n_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.d_state % 2:
            raise ValueError(f"d_state must be even (conjugate pairs), not {self.d_state}")
        if not 0 < self.dt_min < self.dt_max:
            raise ValueError(f"need 0 < dt_min < dt_max, not {self.dt_min} and {self.dt_max}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {self.dropout}")
        if self.l_max is not None and self.l_max < 1:
            raise ValueError(f"l_max must be at least 1 or None, not {self.l_max}")
        if self.block == "paper" and self.bidirectional and self.causal:
            raise ValueError("bidirectional=True reads the future; it needs causal=False")

    @property
    def samplers(self) -> dict[str, int]:
        """Index of the uniform that each site compares with."""
        return SAMPLERS[self.noise_sharing][self.bidirectional]


@dataclasses.dataclass(frozen=True)
class Mode:
    """How a pass is run.

    Attributes:
      train: batch statistics and dropout.
      sampling: "spikes" or "mean".
      capture: record full arrays.
      kernel_length: L of length-attuned kernels, or None where kernels are not attuned.
    """

    train: bool
    sampling: str
    capture: bool
    kernel_length: int | None


class Block(nn.Module):
    """What both orders of operations share; see `PaperBlock` and `OfficialBlock`.

    Attributes:
      config: what is computed.
      mode: how the pass is run.
    """

    config: BlockConfig
    mode: Mode

    def sample(self, site, drive, layer, noise, mask, affine=True, norm=None):
        """Return the spikes and the activity record of a site."""
        config, mode = self.config, self.mode
        reads_state = site.startswith("input")
        sampler = SpikeSampler(
            features=config.d_model,
            sampling=mode.sampling,
            surrogate=config.surrogate,
            # A spike into the SSM updates N real numbers, one out of it H columns of the mixer.
            fan_out=config.d_state if reads_state else config.d_model,
            affine=affine,
            capture=mode.capture,
            name=site,
        )
        uniform = None
        if mode.sampling == "spikes":
            uniform = noise.uniforms(layer, config.samplers[site], config.d_model)
        return sampler(drive, uniform, mask, norm)

    def ssm(self, name: str, skip: bool):
        """Return the SSM of one branch."""
        config = self.config
        common = {
            "features": config.d_model,
            "d_state": config.d_state,
            "shared": config.shared_dynamics,
            "two_sided": not (config.causal or self._reversed_branch),
            "skip": skip,
            "dt_min": config.dt_min,
            "dt_max": config.dt_max,
            "name": name,
        }
        if config.parametrization == "dplr":
            return DPLRSSM(length=self.mode.kernel_length, **common)
        return DiagonalSSM(
            initializer=config.initializer, train_B=True, engine=config.engine, **common
        )

    @property
    def _reversed_branch(self) -> bool:
        """Two branches of the paper's block look one way each, so their kernels are one-sided."""
        return self.config.block == "paper" and self.config.bidirectional

    def mix_and_fuse(self, x, spikes, mask):
        """Return the block's output from its input and the spikes of its branches."""
        config = self.config
        y = SpikeMixer(config.d_model, config.mixer, config.activation, name="mixer")(spikes)
        norm = None if config.prenorm else config.norm
        fuse = ClampFuse(config.residual, config.dropout, norm, name="fuse")
        return fuse(x, y, mask, self.mode.train)


class PaperBlock(Block):
    """The block of the paper: p = clamp(a Re(C h) + b) straight from the state."""

    @nn.compact
    def __call__(self, x, layer, noise: Noise, mask, state):
        """Run one block.

        Args:
          x: (B, L, H).
          layer: index of the block.
          noise: uniforms.
          mask: (B, L) bool of valid steps, or None.
          state: {"ssm": (B, H, N/2)} to carry on from, or None.

        Returns:
          x: (B, L, H).
          records: {site: activity}.
          state: the SSM's final state, or None where none was given.
        """
        config = self.config
        drive = x
        if config.prenorm:
            drive = Normalization(config.norm, name="norm")(x, mask, self.mode.train)
        initial = None if state is None else state["ssm"]
        records, spikes = {}, []
        for branch in ("", "_reverse") if config.bidirectional else ("",):
            site_in, site_out = "input" + branch, "output" + branch
            s, records[site_in] = self.sample(site_in, drive, layer, noise, mask)
            if mask is not None:
                s = jnp.where(mask[..., None], s, 0)
            s = s[:, ::-1] if branch else s
            y, final = self.ssm("ssm" + branch, skip=False)(s, initial)
            y = y[:, ::-1] if branch else y
            s, records[site_out] = self.sample(
                site_out, y.astype(x.dtype), layer, noise, mask
            )
            spikes.append(s)
        x = self.mix_and_fuse(x, tuple(spikes), mask)
        return x, records, None if state is None else {"ssm": final}


class OfficialBlock(Block):
    """The block of the released program, oddities included.

    The norm follows the input's affine map; GELU, the skip D and two dropouts lie between the state
    and the output's; the second branch reads the raw input without norm, is not reversed in time
    and has no affine map after its SSM.
    """

    @nn.compact
    def __call__(self, x, layer, noise: Noise, mask, state):
        """Run one block; arguments and results as in `PaperBlock`."""
        config = self.config
        norm = None
        if config.prenorm:
            normalization = Normalization(config.norm, name="norm")
            norm = functools.partial(normalization, mask=None, train=self.mode.train)
        records, spikes, final = {}, [], {}
        s, records["input"] = self.sample("input", x, layer, noise, mask, norm=norm)
        y, final["ssm"] = self.branch("ssm", s, mask, state)
        if config.bidirectional:
            s, records["input_reverse"] = self.sample("input_reverse", x, layer, noise, mask)
            y_second, final["ssm_reverse"] = self.branch("ssm_reverse", s, mask, state)
        s, records["output"] = self.sample("output", y, layer, noise, mask)
        spikes.append(s)
        if config.bidirectional:
            s, records["output_reverse"] = self.sample(
                "output_reverse", y_second, layer, noise, mask, affine=False
            )
            spikes.append(s)
        x = self.mix_and_fuse(x, tuple(spikes), None)
        return x, records, None if state is None else final

    def branch(self, name, spikes, mask, state):
        """Return dropout(dropout(GELU(SSM(spikes)))), and the SSM's final state."""
        if mask is not None:
            spikes = jnp.where(mask[..., None], spikes, 0)
        y, final = self.ssm(name, skip=True)(spikes, None if state is None else state[name])
        rate, still = self.config.dropout, not self.mode.train
        y = nn.Dropout(rate, name=f"{name}_dropout")(y, deterministic=still)
        y = ACTIVATIONS["gelu"](y)
        tied = nn.Dropout(rate, broadcast_dims=(1,), name=f"{name}_tied_dropout")
        return tied(y, deterministic=still), final


def block_state(config: BlockConfig, batch_size: int) -> dict[str, jax.Array]:
    """Return the zero state of one causal block, (B, H, N/2) complex64 for each branch."""
    names = ("ssm", "ssm_reverse") if config.bidirectional else ("ssm",)
    shape = (batch_size, config.d_model, config.d_state // 2)
    return {name: jnp.zeros(shape, jnp.complex64) for name in names}
