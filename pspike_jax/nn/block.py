"""What all families share: a pass, a block, and the one scan that stacks blocks.

A block maps (x, state, ctx) to (x, state, aux):
  x      (B, L, H), the residual stream
  state  a pytree of any shapes, before and after the steps of x; None before a whole sequence
  ctx    the `Pass`
  aux    {"sites": {site: activity}, "losses": {name: scalar}, "macs": {name: number}}, each part
         there where it has something to say; macs are multiply-accumulates of one valid step
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from pspike_jax.functional.noise import uniforms
from pspike_jax.nn.norm import Normalization
from pspike_jax.nn.placement import place


@flax.struct.dataclass
class Pass:
    """Everything that is the same for all layers of one pass over a batch.

    Attributes:
      key: threefry key of all noise of the pass; None where nothing is drawn.
      example_ids: (B,) int, names of the examples for the noise; (B, L) where rows are packed.
      steps: (L,) int, time steps since the start of the sequence; (B, L) where rows are packed.
      lengths: (B,) int, valid steps of each row, or None where all are.
      mask: (B, L) bool, the valid steps, or None where all are.
      resets: (B, L) bool, steps at which states start anew, or None.
      dt: (B, L) float, time since the step before, in units of the model's step; None for 1.
      number: scalar in the place of every uniform, or None.
      arrays: tuple of uniforms (B, L, H), one for each sampler of the layer, or None; in a pass
        over several layers they have a leading layer axis.
      layer: () int, index of the layer.
      train: batch statistics and dropout.
      sampling: "spikes", or "mean" for probabilities in place of spikes.
      capture: record full arrays.
    """

    key: jax.Array | None
    example_ids: jax.Array
    steps: jax.Array
    lengths: jax.Array | None = None
    mask: jax.Array | None = None
    resets: jax.Array | None = None
    dt: jax.Array | None = None
    number: jax.Array | None = None
    arrays: tuple[jax.Array, ...] | None = None
    layer: jax.Array | int = 0
    train: bool = flax.struct.field(pytree_node=False, default=False)
    sampling: str = flax.struct.field(pytree_node=False, default="spikes")
    capture: bool = flax.struct.field(pytree_node=False, default=False)

    def uniforms(self, sampler: int, features: int) -> jax.Array:
        """Return the uniforms (B, L, H), or the number, that a sampler compares with."""
        if self.number is not None:
            return self.number
        if self.arrays is not None:
            return self.arrays[sampler]
        return uniforms(
            self.key,
            layer=self.layer,
            sampler=sampler,
            example_ids=self.example_ids,
            steps=self.steps,
            features=features,
        )


def whole_sequences(x: jax.Array, lengths: jax.Array | None = None, **fields) -> Pass:
    """Return a pass over whole sequences, for layers that are run by themselves.

    Args:
      x: (B, L, H); gives B and L.
      lengths: (B,) int, valid steps of each row; all if None.
      **fields: further fields of the pass.
    """
    batch, length = x.shape[:2]
    steps = jnp.arange(length, dtype=jnp.int32)
    mask = None if lengths is None else steps[None, :] < lengths[:, None]
    common = {"key": None, "example_ids": jnp.arange(batch, dtype=jnp.int32), "steps": steps}
    return Pass(lengths=lengths, mask=mask, **common | fields)


class Block(nn.Module):
    """One layer of a model, as the module docstring says; families write `__call__`."""

    @nn.nowrap
    def zero_state(self, batch_size: int) -> Any:
        """Return the state before the first step of a stream."""
        raise NotImplementedError(f"{type(self).__name__} does not stream")

    @nn.nowrap
    def after(self, ctx: Pass) -> Pass:
        """Return the pass that what follows sees; blocks that shorten sequences write this."""
        return ctx


REMATS = ("auto", "none", "block")
# What "auto" lets all blocks keep for the backward pass, and about how much one keeps for each
# element of its input: temporary memory of training steps of P-SpikeSSM, `benchmarks.train_step`.
KEPT_BYTES = 4 * 2**30
BYTES_OF_AN_ELEMENT = 64


def recomputes(remat: str, x: jax.Array, n_layers: int) -> bool:
    """Return whether the backward pass recomputes a block's values.

    Args:
      remat: "none", "block", or "auto": nothing is recomputed, which is fastest, where about
        `KEPT_BYTES` hold what `n_layers` blocks keep of a batch, on all devices together.
      x: (B, L, H), the input of a block.
      n_layers: blocks of its kind.
    """
    if remat != "auto" or any(is_symbolic_dim(size) for size in x.shape):
        return remat == "block"
    return n_layers * x.size * BYTES_OF_AN_ELEMENT > KEPT_BYTES


class Stack(nn.Module):
    """Equal blocks under one scan: parameters have a leading layer axis, compile time is flat.

    Attributes:
      make_block: makes the block, given its name; a class with its fields bound.
      n_layers: number of blocks.
      remat: which values the backward pass computes again, see `recomputes`.
      norm: kind of a norm after the last block, see `Normalization`; None for none.
      masked_norm: whether that norm's batch statistics leave padding out.
    """

    make_block: Callable[..., Block]
    n_layers: int
    remat: str = "auto"
    norm: str | None = None
    masked_norm: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, state: Any, ctx: Pass) -> tuple[jax.Array, Any, dict]:
        """Run all blocks; state and sites of aux are stacked over layers."""

        def body(block, x, per_layer):
            layer, arrays, state = per_layer
            x, state, aux = block(place(x), state, ctx.replace(layer=layer, arrays=arrays))
            if ctx.capture:
                aux = aux | {"block_output": x}
            return place(x), (state, _as_arrays(aux))

        if recomputes(self.remat, x, self.n_layers):
            body = nn.remat(body, prevent_cse=False)
        scan = nn.scan(
            body,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.n_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        per_layer = (jnp.arange(self.n_layers, dtype=jnp.int32), ctx.arrays, state)
        x, (state, aux) = scan(self.make_block(name="blocks"), x, per_layer)
        if self.norm is not None:
            mask = ctx.mask if self.masked_norm else None
            x = Normalization(self.norm, name="norm")(x, mask, ctx.train)
        for part in ("losses", "macs"):
            aux[part] = {name: jnp.sum(each) for name, each in aux.get(part, {}).items()}
        return x, state, aux

    @nn.nowrap
    def zero_state(self, batch_size: int) -> Any:
        """Return the state of all blocks before the first step, stacked over layers."""
        one = self.make_block(parent=None).zero_state(batch_size)
        return jax.tree.map(lambda a: jnp.zeros((self.n_layers, *a.shape), a.dtype), one)

    @nn.nowrap
    def after(self, ctx: Pass) -> Pass:
        """Return the pass: blocks under one scan leave the length as it is."""
        return ctx


class Chain(nn.Module):
    """Blocks that differ, one after the other: layers of different widths.

    Attributes:
      make_blocks: makes each block, given its name.
      remat: as in `Stack`.
    """

    make_blocks: tuple[Callable[..., Block], ...]
    remat: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, state: Any, ctx: Pass) -> tuple[jax.Array, Any, dict]:
        """Run all blocks; the state is a list, sites of layer i are called SITE_i.

        Where all layers have one width their sites are stacked, as those of a `Stack`.
        """
        run = lambda block, *args: block(*args)
        again = nn.remat(run, prevent_cse=False)
        states, records, others, aux = [], [], [], {"losses": {}, "macs": {}}
        for i, make_block in enumerate(self.make_blocks):
            before = None if state is None else state[i]
            arrays = None if ctx.arrays is None else tuple(array[i] for array in ctx.arrays)
            block, layer = make_block(name=f"layers_{i}"), ctx.replace(layer=i, arrays=arrays)
            recompute = recomputes(self.remat, x, len(self.make_blocks))
            x, after, one = (again if recompute else run)(block, x, before, layer)
            ctx = block.after(ctx)
            states.append(after)
            one = _as_arrays(one)
            records.append(jax.tree.map(lambda a: a[None], one.pop("sites", {})))
            for part in ("losses", "macs"):
                for name, value in one.pop(part, {}).items():
                    aux[part][name] = aux[part].get(name, jnp.float32(0)) + value
            others.append(jax.tree.map(lambda a: a[None], one))
        return x, states, aux | _join(others) | {"sites": _join(records)}

    @nn.nowrap
    def zero_state(self, batch_size: int) -> list[Any]:
        """Return the states of all blocks before the first step."""
        return [make(parent=None).zero_state(batch_size) for make in self.make_blocks]

    @nn.nowrap
    def after(self, ctx: Pass) -> Pass:
        """Return the pass that a head sees."""
        for make in self.make_blocks:
            ctx = make(parent=None).after(ctx)
        return ctx


def _as_arrays(aux: dict) -> dict:
    """Return aux with float32 in the place of Python's numbers, which count operations."""
    macs = {name: jnp.asarray(n, jnp.float32) for name, n in aux.get("macs", {}).items()}
    return jax.tree.map(jnp.asarray, aux) | {"macs": macs}


def _join(records: list[dict]) -> dict:
    shapes = [jax.tree.map(jnp.shape, record) for record in records]
    if all(shape == shapes[0] for shape in shapes):
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *records)
    return {f"{site}_{i}": each for i, sites in enumerate(records) for site, each in sites.items()}
