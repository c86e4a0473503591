"""LangevinFlow (arXiv 2507.11531): rates of neurons from the spikes of some of them.

A recurrent encoder reads the counts; positions and velocities that begin where its first state says
move by Langevin steps; a Transformer layer maps all three to log rates. The encoder is a GRU, as in
the program, or a layer of spiking neurons of the zoo.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.activity import valid_steps
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.models.silif import NEURONS
from pspike_jax.nn.block import Chain, Pass
from pspike_jax.nn.dense import linear
from pspike_jax.nn.gru import GRU
from pspike_jax.nn.latent_path import CHANNELS, WIDTH, Draws, LatentPath
from pspike_jax.nn.neuron_layers import InputCurrent, NeuronLayer
from pspike_jax.nn.sites import NeuronSite
from pspike_jax.nn.transformer import PostNormLayer


@dataclasses.dataclass(frozen=True, kw_only=True)
class LangevinConfig(Config):
    """Fields of LangevinFlow."""

    comparable = False

    num_outputs: int = option(182, "neurons whose log rates are told, those of the inputs first")
    encoder: str = option(
        "gru", "recurrence that reads counts; or spiking neurons", choices=("gru", *NEURONS)
    )
    head: str = option("linear", "a linear map to log rates", choices=("linear",))
    pool: str = option("none", "log rates of every step", choices=("none",))
    precision: str = option("float32", "of everything", choices=("float32",))
    remat: str = option("none", "what the backward pass computes again", choices=("none",))
    d_model: int = option(280, "encoder states, positions, velocities, each; a multiple of 4")
    latents: str = option(
        "langevin",
        "positions and velocities; 'none' hides them from the decoder, the control",
        choices=("langevin", "none"),
    )
    friction: float = option(0.55, "share of velocity lost in a step; gamma", low=0, high=1)
    step: float = option(0.01, "of positions and forces", low=0)
    forward_steps: int | None = option(None, "steps after the last count that are forecast; F")
    lag: bool = option(
        True, "the program's encoder reads the count before each step's, and the first one twice"
    )
    keep_rate: float = option(
        1.0,
        "share of counts that the encoder sees in training; 1 for no coordinated dropout",
        low=0,
        high=1,
        ends="(]",
    )
    dropout: float = option(0.05, "of encoder states and in the decoder", low=0, high=1, ends="[)")
    heads: int = option(2, "of the decoder's attention")
    feedforward: int = option(512, "width inside the decoder")
    causal: bool = option(False, "the decoder's steps see earlier ones alone; not the program's")
    kl_weight: float = option(0.1, "of the divergence from the priors", low=0)
    kl_ramp: int | None = option(None, "training passes over which it rises from 0")
    kl_variance: str = option(
        "program",
        "velocities' variance 2 gamma taken for its own logarithm, as the program does, or the "
        "divergence of their distribution given the step before",
        choices=("program", "exact"),
    )
    threshold: float = option(1.0, "of a spiking encoder's neurons")

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        if self.vocab_size is not None:
            raise ValueError("vocab_size must be None: inputs are counts")
        if self.d_model % CHANNELS or 3 * self.d_model % self.heads:
            raise ValueError(f"d_model is {self.d_model}; 4 must divide it, and heads 3 d_model")

    @property
    def ahead(self) -> int:
        """F as a number."""
        return self.forward_steps or 0


class LangevinFlow(SequenceModel):
    """Rates of neurons from counts, by an encoder and latent Langevin dynamics.

    Inputs are counts (B, L, N) as floats, outputs log rates (B, L + F, K). In training, with
    `keep_rate` q < 1, the encoder sees a count with probability q, scaled by 1 / q, and no gradient
    passes the log rate of a count that it saw but with probability 1 - q; rng stream "dropout". The
    divergence is `aux["losses"]["kl"]`. With `capture`, aux has "latents" (B, L + F, 3H) and "kl".
    """

    config: LangevinConfig

    @property
    def samplers(self) -> int:
        """The first position and velocity, and the later velocities; none for the control."""
        return 3 if self.config.latents == "langevin" else 0

    def setup(self):
        """Make the parts."""
        config = self.config
        self.cell = GRU(config.d_model) if config.encoder == "gru" else self._spiking()
        if config.latents == "langevin":
            exact = config.kl_variance == "exact"
            self.latent = LatentPath(config.d_model, config.friction, config.step, exact)
            if config.kl_ramp:
                self.passes = self.variable("batch_stats", "passes", jnp.zeros, (), jnp.float32)
        self.decoder = self._decoder()
        self.readout = linear(config.num_outputs, 3 * config.d_model)

    @nn.nowrap
    def _spiking(self, **kwargs):
        config = self.config
        neuron, kernel = NEURONS[config.encoder]
        neuron = dataclasses.replace(neuron, threshold=config.threshold)
        site = functools.partial(
            NeuronSite, neuron, config.d_model, "boxcar", 3 * config.d_model, affine=False
        )
        current = functools.partial(InputCurrent, config.d_model, "none", 0.0, False, kernel)
        return Chain((functools.partial(NeuronLayer, site, current),), **kwargs)

    @nn.nowrap
    def _decoder(self, **kwargs):
        config = self.config
        return PostNormLayer(
            config.heads, config.feedforward, config.dropout, config.causal, **kwargs
        )

    def _run(self, inputs, state, ctx):
        config = self.config
        draws = self._draws(inputs, ctx)
        seen, learnt = _coordinated(inputs.astype(jnp.float32), draws, config.keep_rate)
        ctx = _ahead(ctx, inputs.shape[1], config.ahead)
        h, aux = self._encode(_lagged(seen, ctx, config), ctx)
        if config.latents == "langevin":
            z, v, divergence = self.latent(h[:, 0], draws)
            kl = _averaged(divergence, ctx.mask)
            aux["losses"] = {"kl": self._kl_weight(ctx.train) * kl}
        else:
            z = v = jnp.zeros_like(h)
            kl = jnp.float32(0)
        latents = jnp.concatenate([z, v, h], axis=-1)
        outputs = self.readout(self.decoder(latents, ctx.mask, ctx.train))
        if learnt is not None:
            outputs = _held_back(outputs, learnt)
        if ctx.capture:
            aux |= {"latents": latents, "kl": kl}
        aux["macs"] = self._macs(inputs, latents, ctx)
        return outputs, {"sites": {}, "losses": {}} | aux, None

    def _encode(self, x, ctx):
        """Return the encoder's states, and what its neurons did."""
        config = self.config
        if config.encoder != "gru":
            h, _, aux = self.cell(x, None, ctx)
            return h.astype(jnp.float32), {"sites": aux["sites"]}
        scale = None
        if ctx.train and config.dropout:
            kept = 1 - config.dropout
            shape = (*x.shape[:2], config.d_model)
            scale = jax.random.bernoulli(self.make_rng("dropout"), jnp.float32(kept), shape)
            scale = scale.astype(jnp.float32) / kept
        return self.cell(x, scale), {}

    def _draws(self, inputs, ctx):
        """Return the draws of a pass: given, or made by the pass and the rng 'dropout'."""
        config = self.config
        if isinstance(ctx.arrays, Draws):
            return ctx.arrays
        length = inputs.shape[1] + config.ahead
        if ctx.sampling == "mean" or not self.samplers:
            draws = Draws(*(jnp.zeros(s, jnp.float32) for s in self._noise_shapes(inputs)))
        else:
            one = ctx.replace(steps=jnp.zeros(1, jnp.int32))
            later = ctx.replace(steps=jnp.arange(1, length, dtype=jnp.int32))
            z0, v0 = (self._normal(one, inputs, i, 1)[:, 0] for i in range(2))
            draws = Draws(z0, v0, self._normal(later, inputs, 2, length - 1))
        if not ctx.train or config.keep_rate == 1:
            return draws
        keys = jax.random.split(self.make_rng("dropout"))
        q = config.keep_rate
        keep, through = (
            jax.random.bernoulli(key, jnp.float32(p), inputs.shape)
            for key, p in zip(keys, (q, 1 - q))
        )
        return draws.replace(keep=keep, through=through)

    def _normal(self, ctx, inputs, sampler, length):
        """Normal draws from keyed uniforms; a number is a quantile, as everywhere."""
        u = jnp.asarray(ctx.uniforms(sampler, self.config.d_model), jnp.float32)
        u = jnp.clip(u, 2.0**-25, 1 - 2.0**-24)  # at 0 and 1 lie the infinities
        shape = (inputs.shape[0], length, self.config.d_model)
        return jnp.broadcast_to(jax.scipy.special.ndtri(u), shape)

    @nn.nowrap
    def _noise_shapes(self, inputs):
        batch, length = inputs.shape[:2]
        width = self.config.d_model
        later = (batch, length + self.config.ahead - 1, width)
        return (batch, width), (batch, width), later

    @nn.nowrap
    def _split_noise(self, noise, rows):
        if not isinstance(noise, Draws):
            if noise is not None and not jnp.ndim(noise) == 0:
                raise ValueError(f"noise must be a number or Draws, not {type(noise).__name__}")
            return super()._split_noise(noise, rows)
        shapes = self._noise_shapes(np.broadcast_to(np.float32(0), (*rows, 1)))
        given = tuple(jnp.shape(noise) for noise in (noise.z0, noise.v0, noise.v))
        if given != shapes:
            raise ValueError(f"noise has shapes {given}; expected {shapes}")
        return None, noise

    def _kl_weight(self, train):
        """Return the weight of the divergence, which rises with the passes of training."""
        weight, ramp = jnp.float32(self.config.kl_weight), self.config.kl_ramp
        if not ramp:
            return weight
        weight *= jnp.minimum(self.passes.value / ramp, 1)
        if train and not self.is_initializing():
            self.passes.value += 1
        return weight

    @nn.nowrap
    def _macs(self, inputs, latents, ctx):
        config, width, steps = self.config, self.config.d_model, valid_steps(latents, ctx.mask)
        gates = 3 * width * (inputs.shape[-1] + width)
        each = {
            "encoder": gates if config.encoder == "gru" else width * inputs.shape[-1],
            "head": 3 * width * config.num_outputs,
            "state": 2 * width * (2 * WIDTH + 2) if config.latents == "langevin" else 0,
            "dense": self._decoder(parent=None).macs_per_step(3 * width, latents.shape[1]),
        }
        return {name: steps * jnp.asarray(count, jnp.float32) for name, count in each.items()}


def _coordinated(counts, draws, rate):
    """Return what the encoder sees, and where log rates are learnt from; None for everywhere."""
    if draws.keep is None:
        return counts, None
    keep, through = draws.keep.astype(bool), draws.through.astype(bool)
    return jnp.where(keep, counts / rate, 0), ~keep | through


def _held_back(outputs, learnt):
    """Stop gradients of log rates that the encoder could have copied; values stay."""
    batch, length, neurons = learnt.shape
    more = (batch, outputs.shape[1] - length, neurons)
    learnt = jnp.concatenate([learnt, jnp.ones(more, bool)], axis=1)
    more = (batch, outputs.shape[1], outputs.shape[2] - neurons)
    learnt = jnp.concatenate([learnt, jnp.ones(more, bool)], axis=2)
    return jnp.where(learnt, outputs, jax.lax.stop_gradient(outputs))


def _ahead(ctx: Pass, length: int, forward_steps: int) -> Pass:
    """Return a pass that goes on after the counts."""
    if not forward_steps:
        return ctx
    steps = jnp.arange(length + forward_steps, dtype=jnp.int32)
    if ctx.lengths is None:
        return ctx.replace(steps=steps)
    lengths = jnp.where(ctx.lengths > 0, ctx.lengths + forward_steps, 0)
    return ctx.replace(steps=steps, lengths=lengths, mask=steps[None] < lengths[:, None])


def _lagged(x: jax.Array, ctx: Pass, config: LangevinConfig) -> jax.Array:
    """Return what the encoder reads at each step, the last count of each row in the forecast."""
    last = x.shape[1] - 1
    if ctx.lengths is not None:
        last = ctx.lengths[:, None] - config.ahead - 1
    read = jnp.clip(ctx.steps[None] - int(config.lag), 0, last)
    read = jnp.broadcast_to(jnp.maximum(read, 0), (x.shape[0], ctx.steps.shape[0]))
    return jnp.take_along_axis(x, read[..., None], axis=1)


def _averaged(divergence, mask):
    """Sum divergences of valid steps, and average over the examples that there are."""
    start, later = divergence
    if mask is None:
        return jnp.mean(start + jnp.sum(later, axis=1))
    rows = mask.any(axis=1)
    total = start + jnp.sum(jnp.where(mask[:, 1:], later, 0), axis=1)
    return jnp.sum(jnp.where(rows, total, 0)) / jnp.maximum(jnp.sum(rows, dtype=jnp.float32), 1)


_MAZE = LangevinConfig(keep_rate=0.5)
PRESETS = {
    "mc_maze": _MAZE,
    "area2_bump": dataclasses.replace(_MAZE, num_outputs=65, keep_rate=0.4),
    "mc_rtt": dataclasses.replace(_MAZE, num_outputs=130, keep_rate=0.3),
    "dmfc_rsg": dataclasses.replace(_MAZE, num_outputs=54, keep_rate=0.6, friction=0.7),
    "lorenz": LangevinConfig(num_outputs=29, d_model=32, keep_rate=0.5, dropout=0.0),
    "tiny": LangevinConfig(
        num_outputs=3, d_model=8, feedforward=16, keep_rate=0.5, friction=0.3, threshold=0.1
    ),
}
