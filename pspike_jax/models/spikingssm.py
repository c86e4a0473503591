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
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.neurons import EVALUATIONS, HardResetLIF
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Block, Pass, Stack
from pspike_jax.nn.dense import linear
from pspike_jax.nn.fields import check_state_size, check_step_sizes
from pspike_jax.nn.mixers import DiagonalSSM
from pspike_jax.nn.norm import Normalization
from pspike_jax.nn.roles import role
from pspike_jax.nn.sites import NeuronSite
from pspike_jax.nn.surrogate_network import DEFAULT, SurrogateSite

NORMS = ("batch", "layer", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpikingBlockConfig(Config):
    """Fields of all families whose blocks are SpikingSSM's: what drives and what fires differ."""

    d_model: int = option(128, "features H: neurons of a layer")
    d_state: int = option(64, "N, real state size of one neuron, even")
    n_layers: int = option(4, "number of blocks")
    norm: str = option("batch", "normalization of a block", choices=NORMS)
    prenorm: bool = option(True, "normalise the input of a block rather than its output")
    causal: bool = option(False, "kernels look back only; else a second readout looks ahead")
    train_B: bool = option(False, "learn B; the poles then start below the real axis")
    dropout: float = option(
        0.0, "rate, of spikes and of a block's output; one mask a sequence", low=0, high=1, ends="[)"
    )
    mask_padding: bool = option(True, "keep padding out of kernels and batch statistics")
    surrogate: str = option("triangular", "backward rule of a spike", choices=SURROGATES)
    evaluation: str = option(
        "auto", "neurons step by step or exactly in parallel", choices=EVALUATIONS
    )
    dt_min: float = option(1e-3, "smallest initial step size", low=0, ends="(]")
    dt_max: float = option(1e-1, "largest initial step size", low=0, ends="(]")
    engine: str = option("auto", "how SSMs are evaluated", choices=[e.value for e in Engine])

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        check_state_size(self.d_state)
        check_step_sizes(self.dt_min, self.dt_max)

    @property
    def mixer_fields(self) -> dict:
        """Fields of the mixer, as `DiagonalSSM` takes them."""
        return {
            "features": self.d_model,
            "d_state": self.d_state,
            "initializer": "lin_below" if self.train_B else "lin",
            "shared": False,
            "two_sided": not self.causal,
            "skip": True,
            "train_B": self.train_B,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
            "engine": self.engine,
        }

    def mixer(self, **kwargs) -> DiagonalSSM:
        """Return what carries information over time; keyword arguments are every module's."""
        return DiagonalSSM(**self.mixer_fields, **kwargs)

    def site(self, **kwargs) -> nn.Module:
        """Return the neurons of a block; keyword arguments are every module's."""
        raise NotImplementedError

    @property
    def fan_out(self) -> int:
        """Additions of one spike: both halves of the gated product."""
        return 2 * self.d_model


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


class SpikingBlock(Block):
    """One block, as the module docstring says.

    Attributes:
      config: the model's.
    """

    config: SpikingBlockConfig

    @nn.compact
    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass):
        """Run one block, as `nn.block` says."""
        config, before = self.config, state or {}
        mask = ctx.mask if config.mask_padding else None
        norm = lambda x: x
        if config.norm != "none":
            layer = Normalization(config.norm, name="norm")
            norm = lambda x: layer(x, mask, ctx.train).astype(x.dtype)
        z = norm(x) if config.prenorm else x
        z = z if mask is None else jnp.where(mask[..., None], z, 0)
        mixer = config.mixer(name="ssm")
        y, mixed = mixer(z, before.get("ssm"), ctx)
        y = self._in_thresholds(y)
        s, fired, record = config.site(name="neurons")(y, before.get("neurons"), ctx)
        x = x + self._mix(s.astype(x.dtype), ctx)
        x = x if config.prenorm else norm(x)
        aux = {"sites": {"neurons": record}, "macs": {"state": mixer.macs_per_step}}
        return x, {"ssm": mixed, "neurons": fired}, aux

    def _in_thresholds(self, y):
        """Return currents in units of the thresholds, which resets to zero leave exact."""
        thresholds = getattr(self.config, "thresholds", 0)
        if not thresholds:
            return y
        axis = "features" if thresholds > 1 else None
        init = role(nn.initializers.zeros, (axis,), "threshold")
        log_threshold = self.param("log_threshold", init, (thresholds,), jnp.float32)
        return y / jnp.exp(log_threshold)[None, None]

    def _mix(self, s, ctx):
        """Mix spikes across neurons, gated."""
        config = self.config
        drop = nn.Dropout(config.dropout, broadcast_dims=(1,), deterministic=not ctx.train)
        dropped = ctx.train and config.dropout > 0
        product = linear(
            2 * config.d_model,
            config.d_model,
            name="output_linear",
            dtype=s.dtype,
            spiking=not dropped,
        )
        return drop(nn.glu(product(drop(s))))

    @nn.nowrap
    def zero_state(self, batch_size: int) -> dict:
        """Return the state before the first step of a stream."""
        config = self.config
        return {
            "ssm": config.mixer(parent=None).zero_state(batch_size),
            "neurons": config.site(parent=None).zero_state(batch_size),
        }


class SpikingSSM(SequenceModel):
    """SpikingSSM, and what has its blocks: S4D, reset neurons, a gated product."""

    config: SpikingBlockConfig

    @property
    def supports(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        found = {"pairs"} if self.config.pool != "none" else set()
        if self.config.causal and self.config.documents == 1:
            found.add("streaming")
        return frozenset(found)

    @nn.nowrap
    def make_backbone(self) -> Stack:
        """Return the blocks; there is no norm behind the last one."""
        config = self.config
        return Stack(functools.partial(SpikingBlock, config), config.n_layers, config.remat)

    @nn.nowrap
    def poles(self, params) -> jax.Array:
        """Return Lambda_bar of all layers."""
        return self.config.mixer(parent=None).poles(params["backbone"]["blocks"]["ssm"])


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
