"""Layers of networks whose neurons reset, and their leaky readout."""

from typing import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.dropout import dropout
from pspike_jax.functional.neurons import clamp
from pspike_jax.functional.neurons.lif import ALPHA_LIMITS
from pspike_jax.functional.packed_spikes import spike_product
from pspike_jax.functional.recurrence import linear_recurrence
from pspike_jax.nn.block import Block, Pass
from pspike_jax.nn.delays import Delays
from pspike_jax.nn.dense import KERNELS
from pspike_jax.nn.heads import last_valid
from pspike_jax.nn.neuron_site import Affine, NeuronSite
from pspike_jax.nn.norm import BatchAffine, layer_norm
from pspike_jax.nn.roles import role

NORMS = ("batch", "layer", "none")
MOMENTUM = 0.95  # of running statistics, 1 - 0.05 in the authors' program
READOUT_POOLS = ("softmax_sum", "mean", "last", "max", "none")


class InputCurrent(nn.Module):
    """What flows into a layer: a product without bias, then a norm.

    Attributes:
      features: H.
      norm: "batch" (over B and L), "layer" (over H) or "none".
      dropout: rate at which the input spikes are dropped in training.
      spikes: whether the input is spikes, which the backward pass then keeps as bits.
      kernel: name in `KERNELS` of the initial distribution.
    """

    features: int
    norm: str
    dropout: float
    spikes: bool
    kernel: str = "linear"

    @nn.compact
    def __call__(self, x: jax.Array, ctx: Pass) -> tuple[jax.Array, Affine]:
        """Map inputs x (B, L, F) to currents.

        Returns:
          current: (B, L, H).
          affine: gain and shift (H,) of a batch norm, still to be applied; else None.
        """
        init = role(KERNELS[self.kernel], ("inputs", "features"), "decay")
        kernel = self.param("kernel", init, (x.shape[-1], self.features), jnp.float32)
        kernel = kernel.astype(x.dtype)
        if self.spikes:
            magnitude = 1.0
            if ctx.train and self.dropout:
                x = dropout(x, self.make_rng("dropout"), self.dropout)
                magnitude = 1 / (1 - self.dropout)
            current = spike_product(x, kernel, magnitude)
        else:
            current = x @ kernel
        current = current.astype(jnp.float32)
        if self.norm == "batch":
            return current, BatchAffine(MOMENTUM, name="norm")(current, ctx.mask, ctx.train)
        return layer_norm("norm")(current) if self.norm == "layer" else current, None


class NeuronLayer(Block):
    """Product, norm, delays, neurons: one hidden layer.

    Attributes:
      make_site: makes the layer's `NeuronSite`, given what all modules take.
      make_current: makes its `InputCurrent`.
      delays: longest delay of a neuron in steps, None for none.
    """

    make_site: Callable[..., NeuronSite]
    make_current: Callable[..., InputCurrent]
    delays: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, state, ctx: Pass):
        """Run the layer, as `nn.block` says."""
        product = self.make_current(name="input")
        current, affine = product(x, ctx)
        site = self.make_site(name="neurons")
        if self.delays:
            line, state = (None, None) if state is None else (state["line"], state["neurons"])
            current, line = Delays(self.delays, name="delay")(current, line, ctx)
        spikes, state, record = site(current, state, ctx, affine=affine)
        state = {"line": line, "neurons": state} if self.delays else state
        # A product with real inputs is what other models call their encoder.
        macs = {} if product.spikes else {"encoder": x.shape[-1] * product.features}
        return spikes.astype(x.dtype), state, {"sites": {"hidden": record}, "macs": macs}

    @nn.nowrap
    def zero_state(self, batch_size: int):
        """Return the state of neurons at rest; with delays, "line" and "neurons"."""
        neurons = self.make_site(parent=None).zero_state(batch_size)
        if not self.delays:
            return neurons
        features = self.make_current(parent=None).features
        line = Delays(self.delays, parent=None).zero_state(batch_size, features)
        return {"line": line, "neurons": neurons}


class LeakyReadout(nn.Module):
    """Outputs from leaky integrators u_t = alpha u_{t-1} + (1 - alpha) I_t that never fire.

    Attributes:
      num_outputs: K.
      pool: "softmax_sum" (published: the sum over time of softmax(u), taken as logits), or "mean",
        "last" or "max" of u over time, or "none" for u at every step.
      norm: as in `InputCurrent`.
      dropout: as in `InputCurrent`.
    """

    num_outputs: int
    pool: str
    norm: str
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass) -> tuple[jax.Array, dict]:
        """Integrate spikes x (B, L, F).

        Returns:
          outputs: (B, K) of all valid steps since the state was new; (B, L, K) without pooling.
          state: after the last step.
        """
        make = InputCurrent(self.num_outputs, self.norm, self.dropout, True, name="input")
        current, affine = make(x, ctx)
        if affine is not None:
            gain, shift = affine
            current = gain[None, None] * current + shift[None, None]
        init = role(leak_init, ("features",), "dynamics")
        alpha = self.param("alpha", init, (self.num_outputs,))
        alpha = clamp(alpha, *ALPHA_LIMITS)[None, None]
        state = self.zero_state(x.shape[0], x.shape[-1]) if state is None else state
        u = linear_recurrence(
            alpha, (1 - alpha) * current, initial_state=state["u"], engine="sequential"
        )
        outputs, total = accumulate(self.pool, state["total"], u, ctx)
        return outputs, {"u": u[:, -1], "total": total}

    @nn.nowrap
    def zero_state(self, batch_size: int, features: int) -> dict[str, jax.Array]:
        """Return the state of a new readout: potentials "u" and their "total" over time."""
        del features
        zeros = jnp.zeros((batch_size, self.num_outputs), jnp.float32)
        return {"u": zeros, "total": zeros - jnp.inf if self.pool == "max" else zeros}

    @nn.nowrap
    def macs_per_output(self, features: int) -> int:
        """Return 0: what flows into the readout is spikes, counted as those of the last layer."""
        del features
        return 0


def leak_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw decays per step uniformly from LIF's range; the key is consumed."""
    low, high = ALPHA_LIMITS
    return jax.random.uniform(key, shape, jnp.float32, minval=low, maxval=high)


def accumulate(
    pool: str, total: jax.Array, u: jax.Array, ctx: Pass
) -> tuple[jax.Array, jax.Array]:
    """Take potentials u (B, L, K) over their valid steps into outputs and a total (B, K)."""
    if pool == "none":
        return u, total
    if pool == "last":
        last = last_valid(u, ctx.lengths)
        return last, last
    values = jax.nn.softmax(u) if pool == "softmax_sum" else u
    if ctx.mask is not None:
        values = jnp.where(ctx.mask[..., None], values, -jnp.inf if pool == "max" else 0.0)
    if pool == "max":
        total = jnp.maximum(total, jnp.max(values, axis=1))
        return total, total
    total = total + jnp.sum(values, axis=1)
    if pool == "softmax_sum":
        return total, total
    steps = ctx.steps[-1] + 1 if ctx.lengths is None else ctx.lengths[:, None]
    return total / steps.astype(jnp.float32), total
