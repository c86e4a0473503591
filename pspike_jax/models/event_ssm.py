"""Event-SSM (Schoene et al. 2024, 2404.18508): events as tokens, with the time between them.

embedding -> stages of blocks (norm -> modes -> gate -> + x), of which the first joins windows of
events -> pool over events or over time -> linear. `dt` is the time since the event before.
"""

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.event_pooling import mean_over_time, pool_events, pool_times, subsample
from pspike_jax.models.config import option
from pspike_jax.models.s5 import RULES, ModesConfig, gated
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Block, Chain, Pass
from pspike_jax.nn.dense import linear
from pspike_jax.nn.heads import PooledHead
from pspike_jax.nn.mixers.s5 import READOUTS, S5SSM
from pspike_jax.nn.placement import refuse_split_time
from pspike_jax.nn.roles import role

POOLINGS = ("timepool", "avgpool", "last")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventConfig(ModesConfig):
    """Fields of Event-SSM."""

    comparable = False

    d_model: int = option(64, "features of an event")
    d_state: int = option(64, "real size of the state of the first stage")
    block_size: int = option(8, "size of the HiPPO matrix whose copies the state starts from")
    n_stages: int = option(1, "stages; each begins by joining windows of events")
    stage_layers: int = option(2, "blocks of a stage")
    expansion: int = option(1, "features and states grow so from stage to stage")
    stride: int = option(8, "events of a window; 1 joins none")
    pooling: str = option("timepool", "how a window's inputs are joined", choices=POOLINGS)
    pool_by: str = option(
        "events", "pool='mean' weighs events alike, or by their time", choices=("events", "time")
    )
    rule: str = option("async", "discretisation, see `functional.s5`", choices=RULES)
    readout: str = option("lecun_normal", "how C is drawn", choices=READOUTS)
    norm: str = option("layer", "normalization of a block", choices=("batch", "layer"))
    sees_padding: bool = option(
        False, "statistics and the whole time take padded events in, as in the program"
    )
    dt_min: float = option(4e-4, "smallest initial step size", low=0, ends="(]")

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        if self.d_state % self.block_size or (self.conjugate and self.block_size % 2):
            raise ValueError(
                f"d_state is {self.d_state} and block_size {self.block_size}; expected a multiple"
                + (", and an even block of conjugate pairs" if self.conjugate else "")
            )
        if self.pool == "none" and self.stride > 1:
            raise ValueError("events that are joined have one output: no pool='none'")
        if self.expansion > 1 and self.n_stages > 3:
            raise ValueError(f"n_stages is {self.n_stages}; with an expansion at most 3")

    @property
    def sizes(self) -> list[tuple[int, int, int, int]]:
        """Features, outputs, state and stride of each block.

        As in the program, the first stage keeps the width, the second expands it, and a third
        expands the state alone.
        """
        wide, found = self.expansion * self.d_model, []
        outputs = [self.d_model] + [wide] * (self.n_stages - 1)
        features = [self.d_model, *outputs[:-1]]
        for stage, (before, after) in enumerate(zip(features, outputs)):
            state = self.d_state * self.expansion**stage
            found.append((before, after, state, self.stride))
            found += [(after, after, state, 1)] * (self.stage_layers - 1)
        return found


class EventBlock(Block):
    """Residual block around the modes, which may join windows of events.

    Attributes:
      config: the model's.
      outputs: features behind it.
      d_state: real size of the state.
      stride: events of a window.
      joined: events that a step of its input stands for.
    """

    config: EventConfig
    outputs: int
    d_state: int
    stride: int
    joined: int

    @nn.compact
    def __call__(self, x: jax.Array, state: None, ctx: Pass):
        """Run one block, as `nn.block` says."""
        config, features = self.config, x.shape[-1]
        refuse_split_time("events of any times")
        if x.shape[1] < self.stride:
            raise ValueError(f"{x.shape[1]} events are given, expected {self.stride} at least")
        dt, seen = times(ctx), self.after(ctx)
        normalize = config.make_norm()

        def norm(x, ctx):
            mask = None if config.sees_padding else ctx.mask
            return normalize(x, mask, ctx.train).astype(x.dtype)

        u = norm(x, ctx) if config.prenorm else x
        mixer = self._mixer(features)
        y, _ = mixer(u, None, ctx.replace(dt=dt))
        if self.stride > 1:
            y = subsample(y, self.stride)
            u, x = (pool_events(a, dt, self.stride, config.pooling) for a in (u, x))
        y = (y + self._skip(u.astype(jnp.float32))).astype(x.dtype)
        drop = nn.Dropout(config.dropout, broadcast_dims=(1,), deterministic=not ctx.train)
        y = drop(gated("half_glu2", y, drop))
        dense = self.outputs**2
        if features != self.outputs:
            dense += 2 * features * self.outputs
            x = linear(self.outputs, features, "widen", x.dtype, kernel="lecun")(x)
        x = x.astype(y.dtype) + y
        dense = dense / (self.joined * self.stride)
        macs = {"state": mixer.macs_per_step / self.joined, "dense": dense}
        return (x if config.prenorm else norm(x, seen)), None, {"macs": macs}

    def _mixer(self, features):
        config = self.config
        return S5SSM(
            features=features,
            modes=self.d_state // 2 if config.conjugate else self.d_state,
            outputs=self.outputs,
            blocks=self.d_state // config.block_size,
            conjugate=config.conjugate,
            rule=config.rule,
            clip=config.clip,
            readout=config.readout,
            dt_min=config.dt_min,
            dt_max=config.dt_max,
            skip=False,
            engine=config.engine,
            name="ssm",
        )

    def _skip(self, u):
        """Return D u of the joined inputs; D is a matrix where widths differ."""
        if u.shape[-1] == self.outputs:
            init = role(nn.initializers.normal(1.0), ("features",), "decay")
            return self.param("D", init, (self.outputs,), jnp.float32)[None, None] * u
        init = role(nn.initializers.glorot_normal(), ("features", "inputs"), "decay")
        D = self.param("D", init, (self.outputs, u.shape[-1]), jnp.float32)
        return jnp.einsum("blf,hf->blh", u, D)

    @nn.nowrap
    def after(self, ctx: Pass) -> Pass:
        """Return the pass of the joined events: a window that is not full does not count."""
        if self.stride == 1:
            return ctx
        steps = ctx.steps[..., : ctx.steps.shape[-1] // self.stride]
        lengths = None if ctx.lengths is None else ctx.lengths // self.stride
        mask = None if lengths is None else steps[None, :] < lengths[:, None]
        dt = pool_times(times(ctx), self.stride)
        return ctx.replace(steps=steps, lengths=lengths, mask=mask, dt=dt)


def times(ctx: Pass) -> jax.Array:
    """Return the time since the event before, (B, L) float32; 1 where none is given."""
    if ctx.dt is not None:
        return ctx.dt.astype(jnp.float32)
    return jnp.ones((ctx.example_ids.shape[0], ctx.steps.shape[-1]), jnp.float32)


class EventHead(PooledHead):
    """Pool over joined events, alike or by their time, then map linearly.

    Attributes:
      by_time: weigh events by the time before them.
      whole: divide by the time of all events, padding and cut windows included.
    """

    by_time: bool = False
    whole: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, state: None, ctx: Pass) -> tuple[jax.Array, None]:
        """Map x (B, L, H) to outputs (B, K), or (B, L, K) where nothing is pooled."""
        x = x.astype(jnp.float32)
        lengths = ctx.lengths
        if lengths is None:
            lengths = jnp.full_like(x[:, 0, 0], x.shape[1], jnp.int32)
        if self.pool == "mean" and self.by_time:
            x = mean_over_time(x, times(ctx), lengths, self.whole)
        elif self.pool == "mean":
            # A row without a full window has the mean of nothing.
            counts = ctx.mask if ctx.mask is not None else jnp.ones_like(x[..., 0], bool)
            total = jnp.sum(jnp.where(counts[..., None], x, 0), axis=1)
            x = total / jnp.maximum(lengths, 1).astype(jnp.float32)[:, None]
        elif self.pool == "last":
            last = jnp.maximum(lengths - 1, 0)[:, None, None]
            x = jnp.take_along_axis(x, last, axis=1)[:, 0]
        if self.num_outputs is None:
            return x, None
        return linear(self.num_outputs, x.shape[-1], name="linear", kernel=self.kernel)(x), None


class EventSSM(SequenceModel):
    """Blocks of modes that run from event to event, in stages of fewer and fewer events."""

    config: EventConfig

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        return frozenset({"dt"})

    @nn.nowrap
    def make_backbone(self) -> Chain:
        """Return the blocks of all stages; no norm follows the last one."""
        config = self.config
        sizes = config.sizes
        strides = [stride for *_, stride in sizes]
        joined = [1, *itertools.accumulate(strides, lambda a, b: a * b)]
        blocks = tuple(
            functools.partial(EventBlock, config, outputs, state, stride, before)
            for (_, outputs, state, stride), before in zip(sizes, joined)
        )
        return Chain(blocks, config.remat)

    @nn.nowrap
    def make_head(self) -> nn.Module:
        """Return a head that pools joined events."""
        config = self.config
        return EventHead(
            None if config.head == "none" else config.num_outputs,
            config.pool,
            kernel="lecun",
            by_time=config.pool_by == "time",
            whole=config.sees_padding,
        )


def _published(d_model, d_state, block_size, n_stages, stage_layers, stride, **fields):
    """Return the settings of one of the authors' configuration files at d9ceb07."""
    return EventConfig(
        d_model=d_model,
        d_state=d_state,
        block_size=block_size,
        n_stages=n_stages,
        stage_layers=stage_layers,
        stride=stride,
        **fields,
    )


_SHD = {"vocab_size": 700, "num_outputs": 20}
_SSC = {"vocab_size": 700, "num_outputs": 35}
PRESETS = {
    "event_ssm": EventConfig(),
    # Tiny, and medium, of the authors; stages of the tiny one are not in our notes, one is taken.
    "shd_tiny": _published(16, 16, 8, 1, 2, 32, pooling="timepool", **_SHD),
    "shd": _published(96, 128, 8, 2, 3, 8, pooling="avgpool", **_SHD),
    "ssc": _published(
        96, 128, 16, 2, 3, 8, pooling="avgpool", norm="batch", expansion=2, **_SSC
    ),
    # An event camera of 128 x 128 pixels and two polarities.
    "dvs": _published(
        128, 128, 16, 2, 3, 16, pooling="timepool", vocab_size=32_768, num_outputs=11
    ),
    "tiny": EventConfig(
        num_outputs=3, d_model=6, d_state=8, block_size=4, stage_layers=2, stride=2, dt_min=0.05,
        dt_max=0.5,
    ),
}
