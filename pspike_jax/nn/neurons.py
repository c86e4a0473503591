"""Layers of reset-based neurons, and their leaky readout. Time leads here: arrays are (L, B, H)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.dropout import dropout
from pspike_jax.functional.neurons.lif import ALPHA_LIMITS
from pspike_jax.functional.neurons.firing import Firing
from pspike_jax.functional.neurons.neuron import Neuron, NeuronState, clamp
from pspike_jax.functional.packed_spikes import spike_product
from pspike_jax.functional.neurons.recurrent import init_recurrent, without_diagonal
from pspike_jax.functional.neurons.unroll import unroll
from pspike_jax.functional.recurrence import linear_recurrence
from pspike_jax.nn.activity import activity
from pspike_jax.nn.heads import last_valid
from pspike_jax.nn.norm import EPSILON, BatchAffine
from pspike_jax.nn.placement import refuse_split_time

NORMS = ("batch", "layer", "none")
MOMENTUM = 0.95  # of running statistics, 1 - 0.05 in the authors' program

# U(-1, 1) / sqrt(fan_in), PyTorch's default, and Xavier's uniform distribution.
KERNELS = {
    "linear": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
    "xavier": nn.initializers.xavier_uniform(),
}
READOUTS = ("softmax_sum", "mean", "last", "max")


Affine = tuple[jax.Array, jax.Array] | None


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
    def __call__(
        self, x: jax.Array, mask: jax.Array | None, train: bool
    ) -> tuple[jax.Array, Affine]:
        """Map inputs to currents.

        Args:
          x: (L, B, F).
          mask: (L, B) bool, the steps that a batch norm sees; all if None.
          train: batch statistics and dropout.

        Returns:
          current: (L, B, H).
          affine: gain and shift (H,) of a batch norm, still to be applied; else None.
        """
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", KERNELS[self.kernel], shape)
        if self.spikes:
            magnitude = 1.0
            if train and self.dropout:
                x = dropout(x, self.make_rng("dropout"), self.dropout)
                magnitude = 1 / (1 - self.dropout)
            current = spike_product(x, kernel, magnitude)
        else:
            current = x @ kernel
        if self.norm == "batch":
            return current, BatchAffine(MOMENTUM, name="norm")(current, mask, train)
        if self.norm == "layer":
            current = nn.LayerNorm(EPSILON, use_fast_variance=False, name="norm")(current)
        return current, None


class NeuronLayer(nn.Module):
    """Product, norm, neurons: one hidden layer.

    Attributes:
      neuron: the kind of neuron.
      features: H.
      fan_out: operations that one spike triggers, for the activity record.
      firing: what the backward pass does.
      norm: as in `InputCurrent`.
      dropout: as in `InputCurrent`.
      spikes: as in `InputCurrent`.
      kernel: as in `InputCurrent`.
      bidirectional: a second pass of the same neurons from the end of each sequence to its start;
        its spikes are H more features.
      section: steps that the backward pass recomputes at a time, see `unroll`.
    """

    neuron: Neuron
    features: int
    fan_out: int
    firing: Firing
    norm: str
    dropout: float
    spikes: bool
    kernel: str
    bidirectional: bool
    section: int | None

    @nn.compact
    def __call__(
        self, x: jax.Array, state: NeuronState, lengths: jax.Array | None, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array], NeuronState]:
        """Run the layer over whole sequences, or over a chunk of them.

        Args:
          x: (L, B, F).
          state: before the first step, (B, H) each; (2B, H) where bidirectional.
          lengths: (B,) int, valid steps of each example; all if None.
          train: batch statistics and dropout.

        Returns:
          spikes: (L, B, H), or (L, B, 2H) where bidirectional.
          activity: counts over the valid steps, see `nn.activity`.
          state: after the last step.
        """
        neuron, features = self.neuron, self.features
        refuse_split_time("neurons that reset")
        mask = valid_steps(len(x), lengths)
        current, affine = InputCurrent(
            features, self.norm, self.dropout, self.spikes, self.kernel, name="input"
        )(x, mask, train)
        params = self.param("neuron", neuron.init, features)
        recurrent = None
        if neuron.recurrent:
            recurrent = without_diagonal(self.param("recurrent", init_recurrent, features))
        if self.bidirectional:
            current = jnp.concatenate([current, reverse_steps(current, lengths)], axis=1)
        spikes, active, state = unroll(
            neuron,
            neuron.coefficients(params),
            current,
            state,
            affine=affine,
            recurrent=recurrent,
            firing=self.firing,
            section=self.section,
        )
        if self.bidirectional:
            forward, backward = jnp.split(spikes, 2, axis=1)
            spikes = jnp.concatenate([forward, reverse_steps(backward, lengths)], axis=-1)
            active = sum(jnp.split(active, 2, axis=1))
        record = activity(spikes, spikes, active[..., None], mask, self.fan_out)
        return spikes, record, state


class LeakyReadout(nn.Module):
    """Class scores from leaky integrators u_t = alpha u_{t-1} + (1 - alpha) I_t that never fire.

    Attributes:
      num_classes: number of classes.
      norm: as in `InputCurrent`.
      dropout: as in `InputCurrent`.
      readout: "softmax_sum" (published: the sum over time of softmax(u), taken as logits), or
        "mean", "last" or "max" of u over time.
    """

    num_classes: int
    norm: str
    dropout: float
    readout: str

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        state: dict[str, jax.Array],
        start: jax.Array | int,
        lengths: jax.Array | None,
        train: bool,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Integrate spikes x (L, B, F).

        Args:
          x: (L, B, F).
          state: as `readout_state`, before the first step.
          start: number of steps that the state has seen.
          lengths: (B,) int, valid steps of each example; all if None.
          train: batch statistics and dropout.

        Returns:
          logits: (B, num_classes) of all valid steps since the state was new.
          state: after the last step.
        """
        current, affine = InputCurrent(
            self.num_classes, self.norm, self.dropout, True, name="input"
        )(x, valid_steps(len(x), lengths), train)
        if affine is not None:
            gain, shift = affine
            current = gain[None, None] * current + shift[None, None]
        low, high = ALPHA_LIMITS
        alpha = self.param("alpha", leak_init, (self.num_classes,))
        alpha = clamp(alpha, low, high)[None, None]
        current = jnp.swapaxes(current.astype(jnp.float32), 0, 1)  # (B, L, classes)
        u = linear_recurrence(
            alpha, (1 - alpha) * current, initial_state=state["u"], engine="sequential"
        )
        total = accumulate(self.readout, state["total"], u, lengths)
        steps = start + (u.shape[1] if lengths is None else lengths[:, None])
        logits = total / steps if self.readout == "mean" else total
        return logits, {"u": u[:, -1], "total": total}


def leak_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw decays per step uniformly from LIF's range; the key is consumed."""
    low, high = ALPHA_LIMITS
    return jax.random.uniform(key, shape, jnp.float32, minval=low, maxval=high)


def readout_state(readout: str, batch_size: int, num_classes: int) -> dict[str, jax.Array]:
    """Return the state of a new readout: potentials "u" and their "total" over time."""
    zeros = jnp.zeros((batch_size, num_classes), jnp.float32)
    total = zeros - jnp.inf if readout == "max" else zeros
    return {"u": zeros, "total": total}


def accumulate(
    readout: str, total: jax.Array, u: jax.Array, lengths: jax.Array | None
) -> jax.Array:
    """Take potentials u (B, L, classes) over their valid steps into a total (B, classes)."""
    if readout == "last":
        return last_valid(u, lengths)
    values = jax.nn.softmax(u) if readout == "softmax_sum" else u
    if lengths is not None:
        mask = valid_steps(u.shape[1], lengths).T[..., None]
        values = jnp.where(mask, values, -jnp.inf if readout == "max" else 0.0)
    if readout == "max":
        return jnp.maximum(total, jnp.max(values, axis=1))
    return total + jnp.sum(values, axis=1)


def valid_steps(length: int, lengths: jax.Array | None) -> jax.Array | None:
    """Return the mask (L, B) of steps before each example's length (B,); None without lengths."""
    return None if lengths is None else jnp.arange(length)[:, None] < lengths[None, :]


def reverse_steps(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Reverse the valid steps of each example of x (L, B, H); padding stays where it is."""
    if lengths is None:
        return x[::-1]
    steps = jnp.arange(len(x))[:, None]
    source = jnp.where(steps < lengths[None, :], lengths[None, :] - 1 - steps, steps)
    return jnp.take_along_axis(x, source[..., None], axis=0)
