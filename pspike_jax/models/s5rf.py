"""S5-RF: resonate-and-fire neurons as S5's state space (Huber et al., arXiv 2504.00719).

A layer maps its inputs to a complex current for each neuron, which drives a damped oscillator:

    h_t = exp(lambda step) h_{t-1} + gain (B x_t),    lambda = -exp(Lambda_0) + i Lambda_1

and fires where Re o_t > 1, or |o_t| > 1, with o = h, or o = V h by S5's eigenvectors. Outputs are
leaky sums of a linear map of the last spikes, averaged over time. Written from the authors'
program (github ThomasEHuber/s5-rf) as recorded.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.initializers import log_uniform_dt
from pspike_jax.functional.multi_input import Diagonal, run_modes
from pspike_jax.functional.recurrence import linear_recurrence
from pspike_jax.functional.s5 import discretize_modes, hippo_blocks
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Block, Chain, Pass
from pspike_jax.nn.fields import check_step_sizes
from pspike_jax.nn.heads import pool_steps
from pspike_jax.nn.mixers.diagonal import as_pairs, from_pairs
from pspike_jax.nn.roles import Role, role
from pspike_jax.nn.threshold_sites import ThresholdSite

RULES = ("dirac", "zoh", "bilinear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class S5RFConfig(Config):
    """Fields of S5-RF."""

    comparable = False

    encoder: str = option(
        "none",
        "inputs drive the first layer as they are, tokens as spikes on lines of their own",
        choices=("none",),
    )
    head: str = option("leaky", "leaky sums that never fire", choices=("leaky",))
    log_softmax: bool = option(True, "of outputs that are pooled over time")
    widths: tuple[int, ...] = option((512,) * 4, "neurons of each layer")
    blocks: int = option(16, "copies of one HiPPO matrix in a layer; divides its neurons")
    rule: str = option(
        "dirac", "how the first layer's time passes; it is 'dirac' in the others", choices=RULES
    )
    readout: str = option(
        "modes", "what the first layer compares with its threshold; 'modes' in the others",
        choices=("modes", "eigenvectors"),
    )
    activation: str = option(
        "cartesian", "fire by the real part, or by the modulus", choices=("cartesian", "polar")
    )
    keep_imag: bool = option(True, "currents are complex; else their real parts")
    skip: bool = option(True, "layers but the first and the last add their inputs")
    dropout: float = option(0.0, "rate, of what a layer sends on", low=0, high=1, ends="[)")
    surrogate: str = option("multi_gaussian", "backward rule of a spike", choices=SURROGATES)
    dt_min: float = option(4e-3, "smallest initial step size", low=0, ends="(]")
    dt_max: float = option(1e-1, "largest initial step size", low=0, ends="(]")
    engine: str = option(
        "auto", "how neurons are evaluated", choices=[e.value for e in Engine if e != Engine.FFT]
    )

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        check_step_sizes(self.dt_min, self.dt_max)
        for width in self.widths:
            if self.blocks < 1 or width % self.blocks:
                raise ValueError(f"blocks is {self.blocks}; expected a divisor of {width} neurons")
        if self.skip and len(set(self.widths[:-1])) > 1:
            raise ValueError(f"widths are {self.widths}; skip=True needs layers of one width")

    @property
    def d_model(self) -> int:
        """Neurons of the last layer."""
        return self.widths[-1]


def dynamics_of(Lambda: jax.Array, log_step: jax.Array, rule: str) -> Diagonal:
    """Return the transition and the gain, (P,) each, of Lambda (P, 2) and log_step (P,)."""
    poles = jax.lax.complex(-jnp.exp(Lambda[:, 0]), Lambda[:, 1])
    step = jnp.exp(log_step)
    # An impulse of the size of the step: not S5's, whose size is 1.
    found = discretize_modes(poles, step, rule)
    return found._replace(gain=step.astype(found.gain.dtype)) if rule == "dirac" else found


class S5RFBlock(Block):
    """One layer.

    Attributes:
      config: the model's.
      index: of the layer.
    """

    config: S5RFConfig
    index: int

    @nn.compact
    def __call__(self, x: jax.Array, state: jax.Array | None, ctx: Pass):
        """Run one layer, as `nn.block` says."""
        config, width, inputs = self.config, self.config.widths[self.index], x.shape[-1]
        poles, V = hippo_blocks(width, config.blocks, conjugate=False)
        B = self.param("B", role(_input_map, ("features", "inputs", "parts"), "decay"), V, inputs)
        box = lambda value, axes: lambda _: Role(value(), axes, "dynamics")
        start = lambda: jnp.stack([jnp.log(jnp.float32(-poles.real)), jnp.float32(poles.imag)], -1)
        Lambda = self.param("Lambda", box(start, ("features", "parts")))
        log_step = self.param("log_step", role(_log_steps, ("features",), "step_size"),
                              width, config.dt_min, config.dt_max)
        dynamics = dynamics_of(Lambda, log_step, "dirac" if self.index else config.rule)
        current = complex_product(x, B, config.keep_imag)
        h, final = run_modes(
            current, dynamics, initial_state=state, resets=ctx.resets, engine=config.engine
        )
        if self._mixed:
            # Not trained, and so among what optimizers leave alone.
            mix = self.variable("batch_stats", "V", lambda: as_pairs(V)).value
            h = jnp.matmul(h, from_pairs(mix).T, precision="highest")
        drive = h.real if config.activation == "cartesian" else jnp.abs(h)
        site = ThresholdSite(width, self._fan_out, config.surrogate, 1.0, False, name="neurons")
        spikes, _, record = site(drive, None, ctx)
        out = spikes.astype(x.dtype)
        if config.skip and 0 < self.index < len(config.widths) - 1:
            out = out + x
        out = nn.Dropout(config.dropout, broadcast_dims=(1,))(out, deterministic=not ctx.train)
        macs = {"state": 6 * width, "dense": 2 * width**2 if self._mixed else 0}
        macs |= {} if self.index else {"encoder": (1 + config.keep_imag) * width * inputs}
        return out, final, {"sites": {"hidden": record}, "macs": macs}

    @property
    def _mixed(self) -> bool:
        return self.index == 0 and self.config.readout == "eigenvectors"

    @property
    def _fan_out(self) -> int:
        following = [*self.config.widths[1:], self.config.num_outputs]
        last = self.index == len(self.config.widths) - 1
        return following[self.index] * (2 if self.config.keep_imag and not last else 1)

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return neurons at rest, (B, P) complex64."""
        return jnp.zeros((batch_size, self.config.widths[self.index]), jnp.complex64)


def complex_product(x: jax.Array, B: jax.Array, keep_imag: bool) -> jax.Array:
    """Return B x (..., P) complex64 for real x (..., H) and B (P, H, 2), or its real part."""
    kernel = B.astype(x.dtype)
    real = (x @ kernel[..., 0].T).astype(jnp.float32)
    imag = (x @ kernel[..., 1].T).astype(jnp.float32) if keep_imag else jnp.zeros_like(real)
    return jax.lax.complex(real, imag)


def _input_map(key: jax.Array, V: np.ndarray, inputs: int) -> jax.Array:
    """Draw V^-1 (R + i R'), R and R' truncated normal of variance 1 / inputs; key consumed."""
    real, imag = (
        jax.nn.initializers.lecun_normal()(k, (inputs, len(V)), jnp.float32).T
        for k in jax.random.split(key)
    )
    inverse = jnp.asarray(V.conj().T, jnp.complex64)
    return as_pairs(jnp.matmul(inverse, jax.lax.complex(real, imag), precision="highest"))


def _log_steps(key, width, dt_min, dt_max):
    return jnp.log(log_uniform_dt(key, (width,), dt_min, dt_max))


class LeakySumHead(nn.Module):
    """Outputs h_t = sigmoid(tau) h_{t-1} + Re(B x_t), pooled over time.

    Attributes:
      num_outputs: K.
      pool: "mean" or "last" over valid steps, or "none" for h at every step.
      log_softmax: of pooled outputs.
    """

    num_outputs: int
    pool: str
    log_softmax: bool

    @nn.compact
    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass) -> tuple[jax.Array, dict]:
        """Map x (B, L, H) as heads do; the state is {"h": (B, K), "sum": (B, K)}."""
        K, axes = self.num_outputs, (None, "inputs", "parts")
        B = self.param("B", role(_input_map, axes, "readout"), np.eye(K), x.shape[-1])
        start = nn.initializers.constant(float(np.log(0.8 / 0.2)))
        tau = self.param("tau", role(start, (None,), "dynamics"), (K,), jnp.float32)
        h = linear_recurrence(
            jax.nn.sigmoid(tau)[None, None],
            complex_product(x, B, False).real,
            initial_state=None if state is None else state["h"],
            resets=ctx.resets,
        )
        pooled, total = pool_steps(h, self.pool, state, ctx)
        final = None if total is None else {"h": h[:, -1]} | total
        if self.log_softmax and self.pool != "none":
            pooled = jax.nn.log_softmax(pooled)
        return pooled, final

    @nn.nowrap
    def zero_state(self, batch_size: int, features: int) -> dict[str, jax.Array]:
        """Return the state before the first step."""
        del features
        zeros = jnp.zeros((batch_size, self.num_outputs), jnp.float32)
        return {"h": zeros, "sum": zeros}

    @nn.nowrap
    def macs_per_output(self, features: int) -> int:
        """Return 0: what flows into the head is spikes, counted as those of the last layer."""
        del features
        return 0


class S5RF(SequenceModel):
    """A network of S5's resonate-and-fire neurons; see the module docstring."""

    config: S5RFConfig

    @property
    def input_features(self) -> None:
        """The first layer takes as many inputs as there are."""

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        return frozenset({"streaming", "resets"})

    @nn.nowrap
    def make_backbone(self) -> Chain:
        """Return the layers."""
        layers = range(len(self.config.widths))
        blocks = tuple(functools.partial(S5RFBlock, self.config, i) for i in layers)
        return Chain(blocks, self.config.remat)

    @nn.nowrap
    def make_head(self) -> LeakySumHead:
        """Return the readout."""
        config = self.config
        return LeakySumHead(config.num_outputs, config.pool, config.log_softmax)

    @nn.nowrap
    def poles(self, params) -> jax.Array | None:
        """Return the poles (layers, P, 1) that time is stepped by; None where widths differ."""
        config = self.config
        if len(set(config.widths)) > 1:
            return None
        cells = [params["backbone"][f"layers_{i}"] for i in range(len(config.widths))]
        rules = [config.rule] + ["dirac"] * (len(cells) - 1)
        found = [dynamics_of(c["Lambda"], c["log_step"], r) for c, r in zip(cells, rules)]
        return jnp.stack([each.transition for each in found])[..., None]


_PIXELS = {"widths": (128, 128), "blocks": 8, "rule": "zoh", "readout": "eigenvectors"}

# From the program's settings; what its scripts for SHD and pixels say of steps is not known to us.
PRESETS = {
    # Steps for sequences of some dozens of steps; the published ones are for thousands.
    "default": S5RFConfig(dt_min=0.03, dt_max=0.5),
    "ssc": S5RFConfig(num_outputs=35, dropout=0.3),
    "shd": S5RFConfig(num_outputs=20, widths=(128, 128), blocks=32),
    "smnist": S5RFConfig(**_PIXELS),
    "psmnist": S5RFConfig(**_PIXELS),
    "tiny": S5RFConfig(
        num_outputs=3, widths=(8, 8), blocks=2, rule="zoh", readout="eigenvectors", dt_min=0.3,
        dt_max=1.0,
    ),
}
