"""Networks of neurons that reset: SiLIF and C-SiLIF (arXiv 2506.06374), and their rivals.

Hidden layers (product -> norm -> neurons -> dropout) and a leaky readout. One module serves all
kinds of neuron; the published size is two hidden layers of 512.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional import neurons
from pspike_jax.functional.neurons import Neuron
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Chain, Pass
from pspike_jax.nn.dense import KERNELS
from pspike_jax.nn.neuron_layers import (
    NORMS,
    READOUT_POOLS,
    InputCurrent,
    LeakyReadout,
    NeuronLayer,
)
from pspike_jax.nn.sites import NeuronSite


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(Config):
    """Fields of the networks of neurons that reset."""

    comparable = False

    num_outputs: int = option(20, "numbers of an output: classes, targets or channels")
    encoder: str = option(
        "none",
        "inputs drive the first layer as they are, tokens as spikes on lines of their own",
        choices=("none",),
    )
    head: str = option("leaky", "leaky integrators that never fire", choices=("leaky",))
    pool: str = option(
        "softmax_sum",
        "potentials of the readout over time, see `LeakyReadout`",
        choices=READOUT_POOLS,
    )
    neuron: Neuron = option(neurons.SiLIF(), "kind of neuron, its settings among them")
    kernel: str = option("xavier", "initial distribution of the hidden products", choices=KERNELS)
    widths: tuple[int, ...] = option((512, 512), "neurons of each hidden layer")
    norm: str = option("batch", "before every layer's neurons", choices=NORMS)
    dropout: float = option(
        0.25, "rate at which hidden spikes are dropped", low=0, high=1, ends="[)"
    )
    bidirectional: bool = option(
        False, "each hidden layer also runs from the end of the sequence to its start"
    )
    delays: int | None = option(None, "longest trained delay of a neuron in steps; None for none")
    surrogate: str = option("boxcar", "backward rule of a spike", choices=SURROGATES)
    threshold: float = option(1.0, "drive above which neurons fire")
    detach_reset: bool = option(False, "the reset is a constant of the backward pass")
    evaluation: str = option(
        "auto",
        "step by step, or exactly in parallel where the neuron's variables do not mix",
        choices=neurons.EVALUATIONS,
    )
    random_state: bool = option(
        False, "initial states are drawn from U[0, 1), with the rng stream 'spikes'; else at rest"
    )

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        neurons.choose_evaluation(self.evaluation, self.neuron)
        if self.delays and self.bidirectional:
            raise ValueError(
                f"delays is {self.delays} and bidirectional=True: a delay runs one way; expected "
                "one of them"
            )

    @property
    def d_model(self) -> int:
        """Neurons of the last hidden layer."""
        return self.widths[-1]


class SpikingNetwork(SequenceModel):
    """A network of layers of neurons that reset.

    The activity of its layers is called "hidden", stacked where all layers have one width, else
    "hidden_0", "hidden_1" and so on.
    """

    config: NetworkConfig

    @property
    def input_features(self) -> None:
        """The first layer is a product with as many inputs as there are."""

    @property
    def stochastic(self) -> bool:
        """Whether initial states are drawn."""
        return self.config.random_state

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        return frozenset() if self.config.bidirectional else frozenset({"streaming"})

    @nn.nowrap
    def make_backbone(self) -> Chain:
        """Return the hidden layers."""
        config = self.config
        neuron = dataclasses.replace(config.neuron, threshold=config.threshold)
        following = [*config.widths[1:], config.num_outputs]
        layers = []
        for i, width in enumerate(config.widths):
            # A recurrent spike also reaches every other neuron of its layer.
            fan_out = following[i] + (width - 1 if neuron.recurrent else 0)
            site = functools.partial(
                NeuronSite,
                neuron,
                width,
                config.surrogate,
                fan_out,
                affine=False,
                detach_reset=config.detach_reset,
                bidirectional=config.bidirectional,
                evaluation=config.evaluation,
            )
            dropout, spikes = config.dropout if i else 0.0, i > 0 or config.vocab_size is not None
            current = functools.partial(
                InputCurrent, width, config.norm, dropout, spikes, config.kernel
            )
            layers.append(functools.partial(NeuronLayer, site, current, config.delays))
        return Chain(tuple(layers), config.remat)

    @nn.nowrap
    def make_head(self) -> LeakyReadout:
        """Return the readout."""
        config = self.config
        return LeakyReadout(config.num_outputs, config.pool, config.norm, config.dropout)

    @nn.nowrap
    def starting_state(self, batch_size: int, ctx: Pass, noise: float | None) -> dict | None:
        """Draw the state of new sequences, where that is asked for."""
        if not self.config.random_state:
            return None
        number = 0.5 if ctx.sampling == "mean" else noise
        return self._drawn(self.resting_state(batch_size), ctx.example_ids, number)

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
        ids = (
            jnp.arange(batch_size, dtype=jnp.int32)
            if example_ids is None
            else jnp.asarray(example_ids)
        )
        return self._drawn(self.initial_state(batch_size), ids, None)

    def _drawn(self, state, ids, number):
        """Put draws, or a number in their place, where zeros are."""
        layers, delayed = state["layers"], self.config.delays is not None
        drawn = [one["neurons"] for one in layers] if delayed else layers, state["head"]["u"]
        if number is not None:
            drawn = jax.tree.map(
                lambda zero: zero + number * (1 + 1j if jnp.iscomplexobj(zero) else 1), drawn
            )
        elif self.has_rng("spikes"):
            drawn = neurons.draw_initial_state(drawn, self.make_rng("spikes"), example_ids=ids)
        else:
            raise ValueError("random states need rngs={'spikes': key}, noise=, or state=")
        new, u = drawn
        layers = [a | {"neurons": b} for a, b in zip(layers, new)] if delayed else new
        return state | {"layers": layers, "head": state["head"] | {"u": u}}

    @nn.nowrap
    def poles(self, params) -> jax.Array | None:
        """Return the eigenvalues of the neurons below threshold; None where widths differ."""
        if len(set(self.config.widths)) > 1:
            return None
        layers = range(len(self.config.widths))
        cells = [params["backbone"][f"layers_{i}"]["neurons"]["neuron"] for i in layers]
        found = [neurons.eigenvalues(self.config.neuron, cell) for cell in cells]
        return jnp.stack(found).astype(jnp.complex64)


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

# {model: {preset: configuration}}. The authors draw initial states at random, in tests too.
PRESETS = {
    name: {
        "default": NetworkConfig(neuron=neuron, kernel=kernel),
        "paper": NetworkConfig(neuron=neuron, kernel=kernel, random_state=True),
        # Currents of the resonator are multiplied by its step of 0.004.
        "tiny": NetworkConfig(
            neuron=neuron,
            kernel=kernel,
            num_outputs=3,
            widths=(8, 8),
            norm="layer",
            threshold=4e-4 if name == "resonate_and_fire" else 0.1,
        ),
    } for name, (neuron, kernel) in NEURONS.items()
}
# With the published step of 0.004, by which currents are multiplied, and threshold of 1 hardly any
# resonator fires before it is trained.
PRESETS["resonate_and_fire"]["default"] = dataclasses.replace(
    PRESETS["resonate_and_fire"]["default"], neuron=neurons.ResonateAndFire(dt=0.01), threshold=0.1
)
# With the longer steps of SSC.
PRESETS["csilif"]["paper_ssc"] = dataclasses.replace(
    PRESETS["csilif"]["paper"], neuron=neurons.CSiLIF(dt_max=5.0), num_outputs=35, dropout=0.5
)
