"""Layers of neurons of fractional order: whole sequences by FFT, streams by exponentials."""

import functools
from typing import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.activity import activity
from pspike_jax.functional.dropout import dropout
from pspike_jax.functional.fractional import fractional_memory, multi_term_memory
from pspike_jax.functional.fractional_solve import solve
from pspike_jax.functional.fractional_neurons import FractionalNeuron
from pspike_jax.functional.fractional_stream import (
    StreamMemory,
    Trace,
    multi_term_stream,
    short_stream_memory,
    start_stream,
    stream_memory,
    stream_step,
)
from pspike_jax.functional.neurons import clamp
from pspike_jax.nn.block import Block, Pass
from pspike_jax.nn.dense import linear
from pspike_jax.nn.norm import Normalization
from pspike_jax.nn.placement import refuse_split_time
from pspike_jax.nn.roles import role

# Below, the first weight of a rule is lost beside the gain; above 1 there is another derivative.
ORDER_LIMITS = (1e-3, 1.0)


class FractionalSite(nn.Module):
    """Spikes of neurons of fractional order.

    Attributes:
      neuron: kind and settings.
      features: H.
      rule: "gl", "l1" or "pred".
      orders: where the orders start: one, or those of several terms.
      coefficients: where the coefficients of several terms start.
      tau: time constant; where training starts if it is trained.
      step: h.
      memory: how many past values or rates are remembered; None for all.
      train_order: the orders learn, and with them the coefficients.
      own_orders: each neuron has an order of its own.
      train_tau: the time constant learns.
      as_program: compute what the program does where that differs, see `models.fsnn`.
      fan_out: operations that one spike triggers.
    """

    neuron: FractionalNeuron
    features: int
    rule: str
    orders: tuple[float, ...]
    coefficients: tuple[float, ...]
    tau: float
    step: float
    memory: int | None
    train_order: bool
    own_orders: bool
    train_tau: bool
    as_program: bool
    fan_out: int

    def setup(self):
        start = jnp.asarray(self.orders, jnp.float32)
        shape, axes = start.shape, (None,)
        if self.own_orders:
            shape, axes = (self.features,), ("features",)
        init = role(lambda _: jnp.broadcast_to(start, shape), axes, "dynamics")
        self.order = self.param("order", init)
        if len(self.orders) > 1:
            given = jnp.asarray(self.coefficients, jnp.float32)
            self.coefficient = self.param("coefficient", role(lambda _: given, (None,), "dynamics"))
        if self.train_tau:
            zero = lambda _: jnp.zeros((1,), jnp.float32)
            self.log_tau = self.param("log_tau", role(zero, (None,), "dynamics"))

    def __call__(self, current: jax.Array, state: Trace | None, ctx: Pass):
        """Run the neurons over time.

        Args:
          current: (B, L, H).
          state: of a stream, batch first; None before a whole sequence.
          ctx: the pass.

        Returns:
          spikes: (B, L, H); state: of the stream, None where there is none; activity.
        """
        refuse_split_time("neurons of fractional order")
        drive, tau = current.astype(jnp.float32).swapaxes(0, 1), self.time_constant()
        start = jnp.zeros(drive.shape[1:], jnp.float32)
        rate, settle = self.neuron.steps(tau)
        if state is None and ctx.resets is None:
            memory = self.whole_memory(drive.shape[0])
            how = {"settle": settle, "forget_start": self.as_program}
            outputs, _ = solve(memory, rate, drive, start, **how)
        else:
            memory = self.stream_memory()
            trace = start_stream(memory, start) if state is None else _steps_first(state)
            outputs, trace = _stream(memory, trace, rate, settle, drive, ctx.resets)
            state = None if state is None else _steps_first(trace)
        spikes, membrane, drive = (a.swapaxes(0, 1) for a in self.neuron.seen(outputs, drive, tau))
        active = self.neuron.surrogate(drive, 0.0) != 0
        record = activity(spikes, spikes, active, ctx.mask, self.fan_out)
        if ctx.capture:
            arrays = {"spike_array": spikes, "probability_array": spikes}
            record |= arrays | {"membrane_array": membrane, "drive_array": drive}
        return spikes.astype(current.dtype), state, record

    def time_constant(self) -> jax.Array:
        """Return tau, (1,)."""
        if not self.train_tau:
            return jnp.full((1,), self.tau, jnp.float32)
        # The program trains tau (1 + exp(theta)) from theta = 0: it starts at twice what is said.
        return self.tau * (1 + jnp.exp(self.log_tau)) / (1 if self.as_program else 2)

    def _orders(self):
        order = clamp(self.order, *ORDER_LIMITS)
        return order if self.train_order else jax.lax.stop_gradient(order)

    def _coefficients(self):
        given = self.coefficient
        return given if self.train_order else jax.lax.stop_gradient(given)

    def _flags(self):
        return {"zero_power": self.as_program, "frozen_gamma": self.as_program}

    def whole_memory(self, length: int):
        """Return the `Memory` of a sequence of L steps."""
        count = length - 1 if self.memory is None else min(self.memory, length - 1)
        if len(self.orders) > 1:
            return multi_term_memory(self._orders(), self._coefficients(), count, self.step)
        return fractional_memory(self.rule, self._orders(), count, self.step, **self._flags())

    def stream_memory(self) -> StreamMemory:
        """Return the memory of a stream: exponentials, or the last values where it is short."""
        if self.memory is not None:
            # One more step than is remembered: no memory is cut to a sequence's length.
            return short_stream_memory(self.whole_memory(self.memory + 1))
        if len(self.orders) > 1:
            return multi_term_stream(self._orders(), self._coefficients(), self.step)
        return stream_memory(self.rule, self._orders(), self.step, **self._flags())

    @nn.nowrap
    def sizes(self) -> tuple[int, int]:
        """Return how many values and how many exponentials a stream keeps for each neuron."""
        if self.memory is not None:
            return self.memory, 0
        memory = jax.eval_shape(lambda: stream_memory(self.rule, 0.5, self.step))
        return memory.weights.shape[0], memory.rates.size

    @nn.nowrap
    def zero_state(self, batch_size: int) -> Trace:
        """Return the state before the first step of a stream."""
        recent, slow = self.sizes()
        zeros = lambda *middle: jnp.zeros((batch_size, *middle, self.features), jnp.float32)
        return Trace(zeros(), zeros(), zeros(recent), zeros(slow), zeros(slow))

    @property
    def macs_per_step(self) -> int:
        """Multiply-accumulates that one step of a stream's memory takes."""
        recent, slow = self.sizes()
        return self.features * (1 + recent + 2 * slow)


def _stream(memory, trace, rate, settle, drive, resets):
    """Step through a stream; where resets (B, L) hold, everything is forgotten first."""
    step = functools.partial(stream_step, memory, rate=rate, settle=settle)
    if resets is None:
        trace, outputs = jax.lax.scan(lambda t, x: step(t, x=x), trace, drive)
        return outputs, trace

    def anew(trace, given):
        x, reset = given
        forget = lambda a: jnp.where(reset.reshape((1,) * (a.ndim - 2) + (-1, 1)), 0, a)
        return step(jax.tree.map(forget, trace), x=x)

    trace, outputs = jax.lax.scan(anew, trace, (drive, resets.swapaxes(0, 1)))
    return outputs, trace


def _steps_first(trace):
    """Swap batch and memory: states have the batch first, steps are summed over axis 0."""
    return Trace(trace.v, trace.origin, *(a.swapaxes(0, 1) for a in trace[2:]))


class FractionalLayer(Block):
    """Product with a bias, norm, neurons of fractional order.

    Attributes:
      make_site: makes the layer's `FractionalSite`, given what all modules take.
      norm: "batch", "layer" or "none".
      dropout: rate at which input spikes are dropped in training.
      spikes: whether the input is spikes.
    """

    make_site: Callable[..., FractionalSite]
    norm: str
    dropout: float
    spikes: bool

    @nn.compact
    def __call__(self, x: jax.Array, state: Trace | None, ctx: Pass):
        """Run the layer, as `nn.block` says."""
        site = self.make_site(name="neurons")
        if self.spikes and ctx.train and self.dropout:
            x = dropout(x, self.make_rng("dropout"), self.dropout) / (1 - self.dropout)
        # Spikes that dropout has scaled are no longer 0 or 1, and cannot be kept as bits.
        bits = self.spikes and not (ctx.train and self.dropout)
        current = linear(site.features, x.shape[-1], "input", x.dtype, spiking=bits)(x)
        if self.norm != "none":
            current = Normalization(self.norm, name="norm")(current, ctx.mask, ctx.train)
        spikes, state, record = site(current, state, ctx)
        macs = {"state": site.macs_per_step}
        if not self.spikes:
            macs["encoder"] = x.shape[-1] * site.features
        return spikes.astype(x.dtype), state, {"sites": {"hidden": record}, "macs": macs}

    @nn.nowrap
    def zero_state(self, batch_size: int) -> Trace:
        """Return the state before the first step of a stream."""
        return self.make_site(parent=None).zero_state(batch_size)
