"""f-SNN: networks of neurons of fractional order, whose membranes remember their whole past.

Layers (product -> norm -> neurons) after spikeDE, the authors' program. Where that program does
something that its equations do not say, `as_program` does it too; by default it is mended:

- the first state of a stream is not forgotten after its first step;
- L1 ("trapezoid" there) at order 1 is Euler's rule; the program takes 0^0 for 1 and forgets the
  last value;
- the gradient of the order sees the gamma function;
- a trained time constant starts at `tau`, not at twice that.
"""

import dataclasses
import functools

import flax.linen as nn

from pspike_jax.functional.fractional import FractionalRule
from pspike_jax.functional.fractional_neurons import FRACTIONAL_NEURONS, FractionalNeuron
from pspike_jax.functional.scaled_surrogates import SCALED_SURROGATES, scaled_surrogate
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Chain
from pspike_jax.nn.fields import check_choice
from pspike_jax.nn.fractional import ORDER_LIMITS, FractionalLayer, FractionalSite
from pspike_jax.nn.heads import PooledHead
from pspike_jax.nn.neuron_layers import NORMS


@dataclasses.dataclass(frozen=True, kw_only=True)
class FSNNConfig(Config):
    """Fields of f-SNN."""

    comparable = False

    encoder: str = option(
        "none",
        "inputs drive the first layer as they are, tokens as spikes on lines of their own",
        choices=("none",),
    )
    head: str = option(
        "linear",
        "a linear map of pooled spikes; 'rates' pools spikes of a last layer of output neurons, as "
        "the program does; 'none' those of the last hidden layer",
        choices=("linear", "rates", "none"),
    )
    widths: tuple[int, ...] = option((128, 128), "neurons of each hidden layer")
    neurons: tuple[str, ...] = option(
        ("lif",), "kind of neuron, or one for each layer: lif, if, or behind, see the page"
    )
    rule: str = option(
        "gl",
        "discretisation of the fractional derivative; 'l1' is the program's trapezoid",
        choices=[rule.value for rule in FractionalRule],
    )
    orders: tuple[float, ...] = option(
        (0.6,), "order of the derivative where training starts; those of several terms with 'gl'"
    )
    coefficients: tuple[float, ...] = option(
        (1.0,), "what the terms are multiplied by, where there are several"
    )
    train_order: bool = option(True, "orders learn, and coefficients of several terms")
    own_orders: bool = option(False, "each neuron has an order of its own")
    tau: float = option(5.0, "time constant in steps", low=0, ends="()")
    train_tau: bool = option(False, "each layer learns its time constant")
    step: float = option(1.0, "step of the grid", low=0, ends="()")
    memory: int | None = option(
        None, "past values (of 'pred': rates) that are remembered; None for all"
    )
    threshold: float = option(0.5, "membrane at which neurons fire", low=0, ends="()")
    norm: str = option("batch", "before the neurons of every layer", choices=NORMS)
    dropout: float = option(
        0.0, "rate at which hidden spikes are dropped", low=0, high=1, ends="[)"
    )
    surrogate: str = option("arctan", "backward rule of a spike", choices=SCALED_SURROGATES)
    surrogate_scale: float = option(2.0, "scale of the surrogate", low=0, ends="()")
    as_program: bool = option(False, "what the program does beside its equations, see the page")

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        layers = len(self.widths) + (self.head == "rates")
        if len(self.neurons) not in (1, layers):
            raise ValueError(f"neurons has {len(self.neurons)} names; expected 1 or {layers}")
        for kind in self.neurons:
            check_choice("a name of neurons", kind, FRACTIONAL_NEURONS)
        low, high = ORDER_LIMITS
        for order in self.orders:
            if not low <= order <= high:
                raise ValueError(f"an order is {order}; expected {low} to {high}")
        terms = len(self.orders)
        if terms > 1 and (self.rule != "gl" or self.own_orders):
            raise ValueError("orders has several terms, which need rule='gl' and shared orders")
        if terms > 1 and len(self.coefficients) != terms:
            raise ValueError(f"coefficients has {len(self.coefficients)} numbers for {terms} terms")

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """Neurons of each layer, output neurons included."""
        return self.widths + ((self.num_outputs,) if self.head == "rates" else ())

    @property
    def d_model(self) -> int:
        """Neurons of the last layer."""
        return self.layer_widths[-1]

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.layer_widths)


class FSNN(SequenceModel):
    """A network of neurons of fractional order.

    The activity of its layers is called "hidden", stacked where all layers have one width, else
    "hidden_0", "hidden_1" and so on.
    """

    config: FSNNConfig

    @property
    def input_features(self) -> None:
        """The first layer is a product with as many inputs as there are."""

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, see `SequenceModel`."""
        return frozenset({"streaming", "resets"})

    @nn.nowrap
    def make_backbone(self) -> Chain:
        """Return the layers."""
        config = self.config
        widths = config.layer_widths
        kinds = config.neurons * (1 if len(config.neurons) > 1 else len(widths))
        slope = scaled_surrogate(config.surrogate, config.surrogate_scale)
        layers = []
        for i, (width, kind) in enumerate(zip(widths, kinds, strict=True)):
            site = functools.partial(
                FractionalSite,
                neuron=FractionalNeuron(kind, config.threshold, slope),
                features=width,
                # A spike of the last layer is added to a pooled sum.
                fan_out=widths[i + 1] if i + 1 < len(widths) else 1,
                **{name: getattr(config, name) for name in _SHARED},
            )
            spikes = i > 0 or config.vocab_size is not None
            dropout = config.dropout if i else 0.0
            layers.append(functools.partial(FractionalLayer, site, config.norm, dropout, spikes))
        return Chain(tuple(layers), config.remat)

    @nn.nowrap
    def make_head(self) -> PooledHead:
        """Return the head."""
        config = self.config
        return PooledHead(config.num_outputs if config.head == "linear" else None, config.pool)


_SHARED = (
    "rule",
    "orders",
    "coefficients",
    "tau",
    "step",
    "memory",
    "train_order",
    "own_orders",
    "train_tau",
    "as_program",
)

PRESETS = {
    "default": FSNNConfig(),
    # The program's defaults: no norm, output neurons, a short time constant.
    "program": FSNNConfig(
        head="rates", norm="none", tau=0.5, threshold=1.0, surrogate_scale=5.0, orders=(0.5,),
        train_order=False, as_program=True
    ),
    # Two terms, a mixture of a fast and a slow memory.
    "multi_term": FSNNConfig(orders=(0.3, 0.7), coefficients=(1.0, 0.5)),
    "tiny": FSNNConfig(
        num_outputs=3, widths=(8, 8), norm="layer", threshold=0.4, tau=1.5, train_tau=True
    ),
}
