"""SeqBoat (arXiv 2306.11197): moving averages everywhere, attention where a router asks for it.

Each layer averages over time, and a router decides step by step whether attention is worth it. The
steps for which it is are packed into slots, attend to their neighbours among the slots, and are put
back, weighted by the router's confidence, through which alone the router learns. Nothing is drawn.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.activity import activity
from pspike_jax.functional.engine import Engine
from pspike_jax.functional.sparse_activation import choose_slots, in_place, pack, unpack
from pspike_jax.functional.window_attention import SCORES, Keys, window_attention
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Block, Pass, Stack
from pspike_jax.nn.mixers.ema import EMA, averages, narrow_normal
from pspike_jax.nn.norm import Normalization
from pspike_jax.nn.roles import role


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeqBoatConfig(Config):
    """Fields of SeqBoat."""

    d_model: int = option(128, "features H")
    d_qk: int = option(64, "features of queries and keys")
    d_state: int = option(16, "moving averages of a feature and direction")
    n_layers: int = option(6, "number of blocks")
    window: int = option(128, "how many slots away a key may be")
    max_positions: int = option(1024, "distances with a bias of their own; beyond, the last one")
    score: str = option("softmax", "weights of attention, see the page", choices=SCORES)
    norm: str = option("layer", "normalization of a block", choices=("batch", "layer"))
    prenorm: bool = option(True, "normalise the input of a block rather than its output")
    masked_norm: bool = option(True, "batch statistics leave padding out; the program counts it")
    causal: bool = option(False, "averages and attention look back only")
    dropout: float = option(0.0, "rate", low=0, high=1, ends="[)")
    temperature: float = option(
        1.0, "the router's starts at this times sqrt(d_model)", low=0, ends="()"
    )
    attend: str = option(
        "learnt",
        "which steps attend: as the router says, or, as controls, all or none",
        choices=("learnt", "always", "never"),
    )
    capacity: int | None = option(
        None,
        "slots of an example; beyond it the first active steps are kept where causal, else the "
        "most confident ones; None for as many as there are steps",
    )
    packing: str = option(
        "example",
        "'batch' leaves a batch unpacked in which an example is active throughout, as the program "
        "does: an output then depends on the other examples",
        choices=("example", "batch"),
    )
    share_weight: float = option(0.0, "weight of the mean confidence in the loss", low=0, ends="[)")
    engine: str = option("auto", "how averages are evaluated", choices=[e.value for e in Engine])

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        if self.packing == "batch" and self.capacity is not None:
            raise ValueError("packing='batch' has no capacity: slots may be all steps")


class Cache(NamedTuple):
    """What a stream keeps of a block: (B, ...) each.

    Attributes:
      ema: states of the averages.
      keys: the last active steps, newest last.
      used: how many steps were kept so far.
    """

    ema: jax.Array
    keys: Keys
    used: jax.Array


class SeqBoatBlock(Block):
    """Averages, router, attention on slots.

    Attributes:
      config: the model's.
    """

    config: SeqBoatConfig

    @nn.compact
    def __call__(self, x: jax.Array, state: Cache | None, ctx: Pass):
        """Run one block, as `nn.block` says."""
        config = self.config
        norm = Normalization(config.norm, name="norm")
        mask = ctx.mask if config.masked_norm else None
        u = norm(x, mask, ctx.train).astype(x.dtype) if config.prenorm else x
        averaged, ema = make_ema(config, name="ema")(u, None if state is None else state.ema, ctx)
        drop = nn.Dropout(config.dropout)
        mixed = drop(jax.nn.silu(averaged).astype(x.dtype), deterministic=not ctx.train)
        routed = narrow_dense(2 + config.d_model, x.dtype, "hx")(mixed)
        confidence, active = self._route(routed[..., :2], ctx)
        slots = self._slots(active, confidence, state, ctx)
        attended, keys = self._attend(mixed, slots, state, ctx)
        weight = jnp.where(slots.kept, confidence, 0)[..., None]
        branch = unpack(attended, slots) * weight.astype(x.dtype)
        hx = routed[..., 2:]
        if config.causal:
            out = drop(hx + branch, deterministic=not ctx.train) + x
        else:
            out = hx + drop(branch, deterministic=not ctx.train) + x
        out = jax.nn.silu(out)
        out = out if config.prenorm else norm(out, mask, ctx.train).astype(x.dtype)
        if state is not None:
            count = jnp.sum(slots.kept.astype(jnp.int32), axis=1, dtype="int32")
            state = Cache(ema, keys, state.used + count)
        return out, state, self._record(confidence, slots.kept, ctx)

    def _route(self, logits, ctx):
        """Return confidence and decision, (B, L) each."""
        config = self.config
        start = math.log(config.temperature * config.d_model**0.5)
        init = role(lambda _: jnp.full((1,), start, jnp.float32), (None,), "no_decay")
        scaled = (
            logits.astype(jnp.float32) / jnp.exp(self.param("log_temperature", init))[None, None]
        )
        confidence = jax.nn.softmax(scaled)[..., 1]
        active = scaled[..., 1] > scaled[..., 0]
        if config.attend != "learnt":
            active = jnp.full_like(active, config.attend == "always")
            confidence = active.astype(jnp.float32)
        return confidence, active if ctx.mask is None else active & ctx.mask

    def _slots(self, active, confidence, state, ctx):
        config, length = self.config, active.shape[1]
        count = length
        if config.capacity is not None and ctx.resets is None:
            count = min(length, config.capacity)
        slots = choose_slots(
            active,
            count,
            capacity=config.capacity,
            used=None if state is None else state.used,
            resets=ctx.resets,
            priority=None if config.causal else confidence,
        )
        if config.packing == "batch":
            return in_place(slots, active, jnp.any(jnp.all(active, axis=1)))
        return slots

    def _attend(self, mixed, slots, state, ctx):
        """Return what attention adds to each slot (B, C, H), and the keys that a stream keeps."""
        config, dtype = self.config, mixed.dtype
        inner, H = config.d_qk, config.d_model
        base = jax.nn.silu(narrow_dense(inner + 4 * H, dtype, "mx")(pack(mixed, slots)))
        z, gate, v = jnp.split(base, [inner, inner + 2 * H], axis=-1)
        scale = self.param("scale", narrow_normal(0.02, (None, None), "no_decay"), (2, inner))
        zeros = role(nn.initializers.zeros, (None, None), "no_decay")
        shift = self.param("shift", zeros, (2, inner), jnp.float32)
        z = z.astype(jnp.float32)
        q, k = (scale[i][None, None] * z + shift[i][None, None] for i in range(2))
        bias = self.param(
            "bias", narrow_normal(0.02, (None,), "no_decay"), (2 * config.max_positions - 1,)
        )
        keys = Keys(k, v.astype(jnp.float32), *_places(slots, ctx))
        cached = 0
        if state is not None:
            keys = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), state.keys, keys)
            cached = config.window
            q = jnp.pad(q, [(0, 0), (cached, 0), (0, 0)])
        how = {"window": config.window, "causal": config.causal, "score": config.score}
        found = window_attention(q, keys, bias, **how)[:, cached:].astype(dtype)
        if state is not None:
            # Filled slots are next to each other, the cached ones right before the new.
            new = jnp.sum(slots.filled.astype(jnp.int32), 1, keepdims=True, dtype="int32")
            last = new + jnp.arange(cached, dtype=jnp.int32)[None]
            take = lambda a: jnp.take_along_axis(
                a, last.reshape(last.shape + (1,) * (a.ndim - 2)), axis=1
            )
            keys = jax.tree.map(take, keys)
        return narrow_dense(H, dtype, "h")(found * gate), keys

    def _record(self, confidence, kept, ctx):
        config = self.config
        active, p = kept[..., None].astype(jnp.float32), confidence[..., None]
        macs = attention_macs(config)
        record = activity(active, p, kept[..., None], ctx.mask, macs)
        if ctx.capture:
            record |= {"spike_array": active, "probability_array": p}
        aux = {
            "sites": {"router": record},
            "macs": {
                "state": make_ema(config, parent=None).macs_per_step,
                "dense": config.d_model * (2 + config.d_model),
            },
        }
        if config.share_weight:
            share = record["probability"] / jnp.maximum(record["steps"], 1)
            aux["losses"] = {"router": config.share_weight * share}
        return aux

    @nn.nowrap
    def zero_state(self, batch_size: int) -> Cache:
        """Return the state before the first step of a stream."""
        config, shape = self.config, (batch_size, self.config.window)
        whole = jnp.zeros(shape, jnp.int32)
        keys = Keys(
            jnp.zeros((*shape, config.d_qk), jnp.float32),
            jnp.zeros((*shape, 2 * config.d_model), jnp.float32),
            whole,
            jnp.zeros(shape, bool),
            whole,
        )
        ema = make_ema(config, parent=None).zero_state(batch_size)
        return Cache(ema, keys, jnp.zeros((batch_size,), jnp.int32))


def make_ema(config: SeqBoatConfig, **kwargs) -> EMA:
    """Return the averages of a block; keyword arguments are those of every module."""
    return EMA(config.d_model, config.d_state, not config.causal, config.engine, **kwargs)


def narrow_dense(features: int, dtype, name: str) -> nn.Dense:
    """Return a dense layer that starts near zero, as all of the program's do."""
    return nn.Dense(
        features,
        dtype=dtype,
        kernel_init=narrow_normal(0.02, ("inputs", "features"), "decay"),
        bias_init=role(nn.initializers.zeros, ("features",), "no_decay"),
        name=name,
    )


def attention_macs(config: SeqBoatConfig) -> int:
    """Count the multiply-accumulates of one step that attends, its window being full."""
    H, inner = config.d_model, config.d_qk
    seen = 1 + config.window * (1 if config.causal else 2)
    return H * (inner + 4 * H) + seen * (inner + 2 * H) + 2 * H * H


def _places(slots, ctx):
    """Return positions, whether filled, and the example of each slot, (B, C) each."""
    shape = slots.kept.shape
    steps = ctx.steps if ctx.steps.ndim == 2 else jnp.broadcast_to(ctx.steps[None], shape)
    at = lambda a: jnp.take_along_axis(a, slots.source, axis=1)
    segment = jnp.zeros(shape, jnp.int32)
    if ctx.resets is not None:
        segment = jnp.cumsum(ctx.resets.astype(jnp.int32), axis=1, dtype=jnp.int32)
    return at(steps.astype(jnp.int32)), slots.filled, at(segment)


class SeqBoat(SequenceModel):
    """Moving averages with attention where a router asks for it.

    The activity of its site "router" counts the steps that attend.
    """

    config: SeqBoatConfig

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        streams = self.config.causal and self.config.packing == "example"
        return frozenset({"streaming", "resets"} if streams else ())

    @nn.nowrap
    def make_backbone(self) -> Stack:
        """Return the blocks, and a final norm where blocks normalise their inputs."""
        config = self.config
        norm = config.norm if config.prenorm else None
        return Stack(
            functools.partial(SeqBoatBlock, config),
            config.n_layers,
            config.remat,
            norm=norm,
            masked_norm=config.masked_norm,
        )

    @nn.nowrap
    def poles(self, params) -> jax.Array:
        """Return the poles of the averages that look back."""
        ema = params["backbone"]["blocks"]["ema"]
        return averages(ema["delta"][:, 0], ema["alpha"][:, 0])[0].astype(jnp.complex64)


PRESETS = {
    "default": SeqBoatConfig(),
    # Layers, averages, window, score, norm, temperature and dropout of the published script for
    # ListOps; widths are chosen here.
    "listops": SeqBoatConfig(
        d_model=80, d_qk=64, max_positions=2048, temperature=0.3, dropout=0.1, vocab_size=18
    ),
    # The published module in the sizes of its CIFAR example.
    "program": SeqBoatConfig(
        d_model=160,
        d_qk=96,
        n_layers=8,
        norm="batch",
        prenorm=False,
        masked_norm=False,
        score="relu2",
        packing="batch",
        dropout=0.1,
    ),
    "tiny": SeqBoatConfig(
        num_outputs=3,
        d_model=6,
        d_qk=4,
        d_state=3,
        n_layers=2,
        window=3,
        score="relu2",
        max_positions=8,
        causal=True,
        share_weight=0.01,
    ),
}
