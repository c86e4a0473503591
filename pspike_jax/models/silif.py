"""Networks of reset-based neurons: SiLIF and C-SiLIF (arXiv 2506.06374), and their rivals.

Hidden layers (product -> norm -> neurons -> dropout) and a leaky readout. One module serves all
kinds of neuron; the published size is two hidden layers of 512.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional import neurons
from pspike_jax.functional.neurons import Firing, Neuron
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.models.inputs import check_inputs
from pspike_jax.nn.backbone import SAMPLINGS
from pspike_jax.nn.fields import (
    check_choice,
    check_dropout,
    check_flag,
    check_threshold,
    check_whole,
)
from pspike_jax.nn.neurons import KERNELS, NORMS, READOUTS, LeakyReadout, NeuronLayer, readout_state

# {model: (neuron, initial distribution of the products before it)}, as published.
NEURONS = {
    "silif": (neurons.SiLIF(), "xavier"),
    "csilif": (neurons.CSiLIF(), "linear"),
    "adlif": (neurons.AdLIF(), "linear"),
    "cadlif": (neurons.CONSTRAINED, "xavier"),
    "lif": (neurons.LIF(), "linear"),
    "rlif": (neurons.RLIF, "linear"),
    "radlif": (neurons.RADLIF, "linear"),
    "resonate_and_fire": (neurons.ResonateAndFire(), "linear"),
}

_COMMON = {
    "num_classes": 20,
    "vocab_size": None,
    "widths": (512, 512),
    "norm": "batch",
    "dropout": 0.25,
    "readout": "softmax_sum",
    "bidirectional": False,
    "surrogate": "boxcar",
    "threshold": 1.0,
    "detach_reset": False,
    "random_state": False,
    "section": None,
}

# {model: {preset: fields}}. The authors draw initial states at random, in tests too.
PRESETS = {
    name: {
        "default": _COMMON | {"neuron": neuron, "kernel": kernel},
        "paper": _COMMON | {"neuron": neuron, "kernel": kernel, "random_state": True},
    }
    for name, (neuron, kernel) in NEURONS.items()
}
# With the longer steps of SSC.
PRESETS["csilif"]["paper_ssc"] = PRESETS["csilif"]["paper"] | {
    "neuron": neurons.CSiLIF(dt_max=5.0), "num_classes": 35, "dropout": 0.5
}


class SpikingNetwork(nn.Module):
    """A classifier made of layers of reset-based neurons.

    Attributes:
      num_classes: number of classes.
      vocab_size: number of tokens, each a spike on its own input line; None for real inputs.
      neuron: the kind of neuron.
      kernel: initial distribution of the hidden layers' products, name in `nn.neurons.KERNELS`.
      widths: neurons of each hidden layer.
      norm: "batch", "layer" or "none", before every layer's neurons.
      dropout: rate at which hidden spikes are dropped in training.
      readout: "softmax_sum", "mean", "last" or "max" over time, see `LeakyReadout`.
      bidirectional: each hidden layer also runs from the end of the sequence to its start.
      surrogate: name in `functional.SURROGATES`.
      threshold: drive above which neurons fire.
      detach_reset: the reset is a constant of the backward pass.
      random_state: initial states are drawn from U[0, 1), with the rng stream "spikes", unless
        they are given; zeros otherwise. A stream starts from `initial_state`, zeros, or from
        `drawn_state`.
      section: steps that the backward pass recomputes at a time; None for about sqrt(L).
    """

    num_classes: int
    vocab_size: int | None
    neuron: Neuron
    kernel: str
    widths: tuple[int, ...]
    norm: str
    dropout: float
    readout: str
    bidirectional: bool
    surrogate: str
    threshold: float
    detach_reset: bool
    random_state: bool
    section: int | None

    def check(self) -> None:
        """Raise where fields do not fit."""
        choices = {
            "kernel": KERNELS, "norm": NORMS, "readout": READOUTS, "surrogate": SURROGATES
        }
        for name, allowed in choices.items():
            check_choice(name, getattr(self, name), allowed)
        if not isinstance(self.neuron, Neuron):
            raise TypeError(f"neuron is {self.neuron!r}; expected a functional.neurons.Neuron")
        if not isinstance(self.widths, Sequence):
            raise TypeError(f"widths is {self.widths!r}; expected the neurons of each hidden layer")
        if not self.widths:
            raise ValueError("widths are empty; expected one or more hidden layers")
        for width in self.widths:
            check_whole("a width", width)
        check_whole("num_classes", self.num_classes)
        for name in ("vocab_size", "section"):
            check_whole(name, getattr(self, name), optional=True)
        for name in ("bidirectional", "detach_reset", "random_state"):
            check_flag(name, getattr(self, name))
        check_dropout(self.dropout)
        check_threshold(self.threshold)

    def setup(self):
        firing = Firing(SURROGATES[self.surrogate], self.detach_reset)
        neuron = dataclasses.replace(self.neuron, threshold=self.threshold)
        # A recurrent spike also reaches every other neuron of its layer.
        feedback = [width - 1 if self.neuron.recurrent else 0 for width in self.widths]
        following = [*self.widths[1:], self.num_classes]
        self.layers = [
            NeuronLayer(
                neuron=neuron,
                features=width,
                fan_out=following[i] + feedback[i],
                firing=firing,
                norm=self.norm,
                dropout=self.dropout if i else 0.0,
                spikes=i > 0,
                kernel=self.kernel,
                bidirectional=self.bidirectional,
                section=self.section,
            )
            for i, width in enumerate(self.widths)
        ]
        self.integrator = LeakyReadout(self.num_classes, self.norm, self.dropout, self.readout)

    def __call__(
        self,
        inputs: jax.Array,
        lengths: jax.Array | None = None,
        train: bool = False,
        noise: float | None = None,
        sampling: str = "spikes",
        example_ids: jax.Array | None = None,
        capture: bool = False,
        initial_state: list[jax.Array] | None = None,
    ):
        """Classify whole sequences.

        Draws from the rng stream "dropout" in training, and from "spikes" where `random_state`.

        Args:
          inputs: (B, L) int tokens, or (B, L, F) real.
          lengths: (B,) int, valid steps of each example; all if None.
          train: batch statistics (collection "batch_stats", mutable) and dropout.
          noise: a number in place of every draw of an initial state; None draws.
          sampling: "spikes", or "mean" to start at the mean of the draws, 0.5. These neurons fire
            by a threshold: with probability 0 or 1, which is its own mean field.
          example_ids: (B,) int, names of the examples for the draws; arange(B) if None.
          capture: add "spike_array" and "probability_array", (layers, B, L, H), to aux.
          initial_state: for each hidden layer its membrane variables and its spikes, (B, H) each,
            then the potentials (B, num_classes) of the readout, in one list; with 2B rows in
            hidden layers where bidirectional, the reversed pass last.

        Returns:
          logits: (B, num_classes).
          aux: {"hidden": counts} stacked over the hidden layers where all have one width, else
            {"hidden_0": counts, ...}, each with a layer axis of size 1; see `nn.activity`.

        Raises:
          TypeError, ValueError: inputs or states that do not fit.
        """
        check_inputs(inputs, lengths, self.vocab_size)
        check_choice("sampling", sampling, SAMPLINGS)
        batch = inputs.shape[0]
        state = self._at_rest(batch)
        if initial_state is not None:
            state = self._given_state(state, initial_state)
        elif self.random_state:
            state = self._drawn(state, example_ids, 0.5 if sampling == "mean" else noise)
        _, outputs = self._run(state, inputs, lengths, train, capture)
        return outputs

    def _run(self, state, inputs, lengths, train, capture):
        if self.vocab_size is not None:
            inputs = jax.nn.one_hot(inputs, self.vocab_size)
        x = jnp.swapaxes(inputs, 0, 1)
        records, states = {}, []
        for i, (layer, layer_state) in enumerate(zip(self.layers, state["layers"])):
            x, record, layer_state = layer(x, layer_state, lengths, train)
            if capture:
                array = jnp.swapaxes(x, 0, 1)
                record |= {"spike_array": array, "probability_array": array}
            records[f"hidden_{i}"] = jax.tree.map(lambda a: a[None], record)
            states.append(layer_state)
        logits, readout = self.integrator(x, state["readout"], state["t"], lengths, train)
        if len(set(self.widths)) == 1:
            stacked = jax.tree.map(lambda *a: jnp.concatenate(a), *records.values())
            records = {"hidden": stacked}
        state = {"t": state["t"] + len(x), "layers": states, "readout": readout}
        return state, (logits, records)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> dict:
        """Return the state before the first step of a stream, for `step` and `prefill`: at rest.

        Args:
          batch_size: B.

        Returns:
          {"t": step count, "layers": list of NeuronState, "readout": see `readout_state`}.

        Raises:
          ValueError: the model is bidirectional.
        """
        if self.bidirectional:
            raise ValueError("streaming needs bidirectional=False")
        return self._at_rest(batch_size)

    @nn.nowrap
    def drawn_state(self, batch_size: int, example_ids: jax.Array | None = None) -> dict:
        """Draw the state before the first step of a stream, as `__call__` draws it.

        For `model.apply({}, batch_size, method="drawn_state", rngs={"spikes": key})`.

        Args:
          batch_size: B.
          example_ids: (B,) int, names of the examples for the draws; arange(B) if None.

        Returns:
          A state like that of `initial_state`, its potentials and spikes from U[0, 1).

        Raises:
          ValueError: the model is bidirectional; there is no key.
        """
        return self._drawn(self.initial_state(batch_size), example_ids, None)

    def prefill(
        self,
        state: dict,
        inputs: jax.Array,
        noise: float | None = None,
        sampling: str = "spikes",
        example_ids: jax.Array | None = None,
        capture: bool = False,
    ):
        """Continue a stream by a chunk of any length.

        Args:
          state: from `initial_state` or an earlier call.
          inputs: (B, L) or (B, L, F), the next L steps.
          noise, sampling, example_ids: of no effect, since the state is given; every model's.
          capture: as in `__call__`.

        Returns:
          state: after the chunk.
          (logits, aux): logits as `__call__` gives them for all steps so far.
        """
        del noise, example_ids
        check_inputs(inputs, None, self.vocab_size)
        check_choice("sampling", sampling, SAMPLINGS)
        return self._run(state, inputs, None, False, capture)

    def step(
        self,
        state: dict,
        inputs: jax.Array,
        noise: float | None = None,
        sampling: str = "spikes",
        example_ids: jax.Array | None = None,
        capture: bool = False,
    ):
        """Continue a stream by one step: as `prefill`, for inputs (B,) or (B, F)."""
        return self.prefill(state, inputs[:, None], noise, sampling, example_ids, capture)

    @nn.nowrap
    def _at_rest(self, batch_size):
        rows = 2 * batch_size if self.bidirectional else batch_size
        return {
            "t": jnp.int32(0),
            "layers": [neurons.initial_state(self.neuron, rows, width) for width in self.widths],
            "readout": readout_state(self.readout, batch_size, self.num_classes),
        }

    def _given_state(self, state, given):
        """Put a flat list of states where zeros are."""
        wanted, tree = jax.tree.flatten((state["layers"], state["readout"]["u"]))
        shapes = [tuple(jnp.shape(part)) for part in given]
        if shapes != [part.shape for part in wanted]:
            raise ValueError(
                f"initial_state has shapes {shapes}; expected {[part.shape for part in wanted]}"
            )
        parts = [jnp.asarray(part, zero.dtype) for part, zero in zip(given, wanted)]
        layers, u = jax.tree.unflatten(tree, parts)
        return state | {"layers": layers, "readout": state["readout"] | {"u": u}}

    def _drawn(self, state, example_ids, noise):
        """Put draws, or a number in their place, where zeros are."""
        drawn = (state["layers"], state["readout"]["u"])
        if noise is not None:
            drawn = jax.tree.map(
                lambda zero: zero + noise * (1 + 1j if jnp.iscomplexobj(zero) else 1), drawn
            )
        elif self.has_rng("spikes"):
            batch = len(state["readout"]["u"])
            ids = jnp.arange(batch) if example_ids is None else jnp.asarray(example_ids)
            key = self.make_rng("spikes")
            drawn = neurons.draw_initial_state(drawn, key, example_ids=ids)
        else:
            raise ValueError("random states need rngs={'spikes': key}, noise=, or initial_state=")
        return self._given_state(state, jax.tree.leaves(drawn))
