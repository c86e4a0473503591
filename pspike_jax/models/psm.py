"""Prefix-scannable models (arXiv:2506.10918): chunks, and what a Transformer makes of past ones.

A sequence is cut into chunks of c steps. An aggregator, a Transformer that maps two chunks to one,
folds all earlier chunks into a prefix, bracketed as `functional.prefix` says: as a tree over whole
sequences, and by a binary counter in a stream, whose memory grows with the logarithm of its length.
A causal Transformer then reads the prefix and the steps of the chunk so far.

The released program predicts tokens 2 to c of each chunk; here the last step of a chunk has an
output too, from which the first token of the next chunk may be foretold.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.prefix import Counter, empty_counter, push, tree_prefixes
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Pass
from pspike_jax.nn.encoders import Encoder
from pspike_jax.nn.placement import refuse_split_time
from pspike_jax.nn.precision import PRECISIONS
from pspike_jax.nn.roles import role
from pspike_jax.nn.gpt2 import Transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class PSMConfig(Config):
    """Fields of prefix-scannable models."""

    d_model: int = option(128, "features")
    heads: int = option(4, "attention heads")
    chunk: int = option(16, "c, steps of a chunk")
    n_layers: int = option(4, "blocks of the Transformer that reads prefixes and chunks")
    aggregator_layers: int = option(1, "blocks of the aggregator")
    l_max: int = option(1024, "longest sequence, in steps: positions are learnt; chunk divides it")
    dropout: float = option(0.0, "rate, of what blocks add", low=0, high=1, ends="[)")
    head_bias: bool = option(True, "the map to outputs has a bias; language models have none")

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        for name, whole in (("heads", "d_model"), ("chunk", "l_max")):
            if getattr(self, whole) % getattr(self, name):
                raise ValueError(
                    f"{name} is {getattr(self, name)}; expected a divisor of {whole}, "
                    f"{getattr(self, whole)}"
                )

    def make_transformer(self, n_layers: int, **kwargs) -> Transformer:
        """Return a Transformer of this many blocks."""
        remat = self.remat == "block"
        return Transformer(self.d_model, self.heads, n_layers, self.dropout, remat, **kwargs)


class Aggregator(nn.Module):
    """Two chunks to one: what a causal Transformer says at the steps of the second.

    Attributes:
      config: the model's.
    """

    config: PSMConfig

    @nn.compact
    def __call__(self, earlier: jax.Array, later: jax.Array, train: bool = False) -> jax.Array:
        """Map (..., c, d) and (..., c, d) to (..., c, d)."""
        config, shape = self.config, later.shape
        rows = jnp.concatenate([earlier, later], axis=-2).reshape(-1, 2 * config.chunk, shape[-1])
        reader = config.make_transformer(config.aggregator_layers, name="reader")
        y, _ = reader(rows, _causal(2 * config.chunk), train=train)
        return y[:, config.chunk :].reshape(shape)


class PrefixScan(nn.Module):
    """What lies between encoder and head: positions, aggregator and reader.

    Attributes:
      config: the model's.
    """

    config: PSMConfig

    def setup(self):
        config = self.config
        init = role(nn.initializers.normal(0.02), (None, "features"), "decay")
        self.positions = self.param("positions", init, (config.l_max, config.d_model), jnp.float32)
        self.aggregator = Aggregator(config)
        self.reader = config.make_transformer(config.n_layers)

    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass):
        """Run a sequence, or go on with a stream, as a block does; see `nn.block`."""
        config = self.config
        refuse_split_time("counters of chunks")
        if state is None:
            y = self._whole(x, ctx.train)
        else:
            y, state = self._stream(x, state, ctx.steps)
        keys = 2 * config.chunk
        # Two rows of the reader are computed for a step; and, for two of its aggregates, four.
        macs = 2 * config.make_transformer(config.n_layers, parent=None).macs_per_row(keys)
        aggregator = config.make_transformer(config.aggregator_layers, parent=None)
        return y, state, {"macs": {"dense": macs + 4 * aggregator.macs_per_row(keys)}}

    def prefixes(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Return (n, B, c, d) prefixes before each chunk, and the chunks with their positions.

        The first prefix, which is empty, is zeros that nothing reads.
        """
        config = self.config
        batch, length, d = x.shape
        if length > config.l_max:
            raise ValueError(f"inputs have {length} steps; l_max is {config.l_max}")
        count = -(-length // config.chunk)
        steps = count * config.chunk
        x = jnp.pad(x, ((0, 0), (0, steps - length), (0, 0)))
        cut = lambda a: jnp.moveaxis(a.reshape(-1, count, config.chunk, d), 1, 0)
        positions = self.positions.astype(x.dtype)
        chunks = cut(x + positions[None, :steps])
        leaves = cut(x) + positions[None, None, : config.chunk]
        aggregate = lambda a, b: self.aggregator(a, b, train)
        if self.is_initializing():
            aggregate(leaves[:1], leaves[:1])  # one chunk needs none
        earlier = [jnp.zeros_like(leaves[:1])]
        if count > 1:
            earlier.append(tree_prefixes(aggregate, leaves[:-1]))
        return jnp.concatenate(earlier), chunks

    def _whole(self, x, train):
        c, (batch, length, d) = self.config.chunk, x.shape
        prefixes, chunks = self.prefixes(x, train)
        count = len(chunks)
        is_prefix = jnp.arange(2 * c) < c
        hidden = is_prefix[None, None, :] & ~is_prefix[None, :, None]
        hidden = hidden & (jnp.arange(count) == 0)[:, None, None]  # none is before the first
        mask = _causal(2 * c) & ~hidden
        mask = jnp.repeat(mask, batch, axis=0)
        rows = jnp.concatenate([prefixes, chunks], axis=2).reshape(-1, 2 * c, d)
        y, _ = self.reader(rows, mask, train=train)
        y = jnp.moveaxis(y[:, c:].reshape(count, batch, c, d), 0, 1)
        return y.reshape(batch, count * c, d)[:, :length]

    def _stream(self, x, state, steps):
        """Go on step by step, in a scan."""
        c, dtype = self.config.chunk, x.dtype
        # Loops of JAX call pure functions, not modules.
        reader, reading = self.reader.unbind()
        aggregator, aggregating = self.aggregator.unbind()
        narrow = lambda a: a.astype(dtype)
        wide = lambda a: a.astype(jnp.float32)
        aggregate = lambda a, b: wide(aggregator.apply(aggregating, narrow(a), narrow(b)))
        positions = self.positions

        def finish(state):
            """Put a full chunk into the counter, and the keys of the new prefix into the cache."""
            counter, prefix = push(aggregate, Counter(*state["counter"]), state["chunk"])
            _, kept = reader.apply(reading, narrow(prefix), _causal(c))
            new = [jnp.stack([wide(pair[i]) for pair in kept]) for i in range(2)]
            keys, values = (
                jax.lax.dynamic_update_slice_in_dim(a, one, 0, 2)
                for a, one in zip((state["keys"], state["values"]), new)
            )
            return state | {"counter": tuple(counter), "keys": keys, "values": values}

        def step(state, given):
            now, t = given
            place = t % c
            at = lambda index: jax.lax.dynamic_slice_in_dim(positions, index, 1)[None]
            leaf = wide(narrow(now)[:, None] + narrow(at(place)))
            chunk = jax.lax.dynamic_update_slice_in_dim(state["chunk"], leaf, place, 1)
            key = jnp.arange(2 * c, dtype=jnp.int32)
            seen = (key <= c + place) & ((key >= c) | (t >= c))
            caches = list(zip(state["keys"], state["values"]))
            row = narrow(now)[:, None] + narrow(at(t))
            y, kept = reader.apply(reading, row, seen[None, None], caches, c + place)
            keys, values = (jnp.stack([pair[i] for pair in kept]) for i in range(2))
            state = state | {"chunk": chunk, "keys": keys, "values": values}
            return jax.lax.cond(place == c - 1, finish, lambda state: state, state), y[:, 0]

        state, y = jax.lax.scan(step, state, (x.swapaxes(0, 1), steps))
        return y.swapaxes(0, 1), state

    @nn.nowrap
    def zero_state(self, batch_size: int) -> dict:
        """Return the state before the first step of a stream; its cache is that of one chunk."""
        config = self.config
        leaf = jnp.zeros((batch_size, config.chunk, config.d_model), jnp.float32)
        counter = empty_counter(leaf, config.l_max // config.chunk)
        shape = (config.n_layers, batch_size, 2 * config.chunk, config.d_model)
        cache = jnp.zeros(shape, jnp.float32)
        return {"counter": tuple(counter), "chunk": leaf, "keys": cache, "values": cache}

    @nn.nowrap
    def after(self, ctx: Pass) -> Pass:
        """Return the pass that the head sees."""
        return ctx


class PSM(SequenceModel):
    """A prefix-scannable model with a Transformer as aggregator; nothing spikes."""

    config: PSMConfig

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        return frozenset({"streaming"})

    @nn.nowrap
    def make_encoder(self) -> nn.Module:
        """Return the table of tokens, as GPT-2 starts it, or a linear map."""
        config = self.config
        if config.encoder == "none":
            return super().make_encoder()
        dtype = PRECISIONS[config.precision]
        return Encoder(config.d_model, config.vocab_size, dtype, scale=0.02)

    @nn.nowrap
    def make_backbone(self) -> PrefixScan:
        """Return what lies between encoder and head."""
        return PrefixScan(self.config)

    @property
    def head_options(self) -> dict[str, Any]:
        """Whether the map to outputs has a bias is a field."""
        return {"bias": self.config.head_bias}

    def prefixes(self, inputs: jax.Array) -> jax.Array:
        """Return (B, n, c, d), what is known of the past before each of n chunks; first zeros."""
        return jnp.moveaxis(self.backbone.prefixes(self.encoder(inputs))[0], 0, 1)


def _causal(length: int) -> jax.Array:
    return jnp.tril(jnp.ones((1, length, length), bool))


PRESETS = {
    "classifier": PSMConfig(),
    # A small causal model of bytes.
    "language": PSMConfig(vocab_size=256, num_outputs=256, pool="none", head_bias=False),
    # Width, depth and length of the released script on WikiText-103, its default chunk, and the
    # vocabulary of GPT-2.
    "wikitext103": PSMConfig(
        vocab_size=50257, num_outputs=50257, pool="none", head_bias=False, d_model=768, heads=12,
        n_layers=12, chunk=64, l_max=512, dropout=0.1, remat="block",
    ),
    "tiny": PSMConfig(
        num_outputs=3, d_model=8, heads=2, chunk=4, n_layers=1, aggregator_layers=1, l_max=32
    ),
}
