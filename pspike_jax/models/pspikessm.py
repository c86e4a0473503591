"""P-SpikeSSM (Bal & Sengupta, ICLR 2025): probabilistic spiking neurons on state space models.

encoder -> blocks (sample -> SSM -> sample -> mix -> fuse) -> pool -> classifier. The preset
`paper` is what the paper describes, `official` what the released program computes.
"""

from pspike_jax.models.classifier import SequenceClassifier
from pspike_jax.nn.backbone import PSpikeBackbone, config_fields
from pspike_jax.nn.block_config import BlockConfig

_COMMON = {
    "num_classes": 10,
    "d_model": 128,
    "d_state": 16,
    "n_layers": 4,
    "bidirectional": False,
    "neuron": "probabilistic",
    "residual": True,
    "dropout": 0.0,
    "surrogate": "clamp_straight_through",
    "activation": "gelu",
    "mixer": "dense",
    "pool": "mean",
    "documents": 1,
    "precision": "float32",
    "dt_min": 1e-3,
    "dt_max": 1e-1,
    "engine": "auto",
    "remat": "block",
    "initializer": "legs",
}

PRESETS = {
    "paper": _COMMON
    | {
        "block": "paper",
        "vocab_size": None,
        "norm": "layer",
        "prenorm": True,
        "causal": True,
        "shared_dynamics": False,
        "parametrization": "diagonal",
        "noise_sharing": "independent",
        "l_max": None,
    },
    # The ListOps configuration of the released program.
    "official": _COMMON
    | {
        "block": "official",
        "vocab_size": 18,
        "norm": "batch",
        "prenorm": False,
        "bidirectional": True,
        "causal": False,
        "shared_dynamics": True,
        "parametrization": "dplr",
        "noise_sharing": "official",
        "l_max": 2048,
    },
}


# The paper's baseline: the same SSM, its spikes made by leaky integrate-and-fire neurons.
LIF_PRESETS = {"paper": PRESETS["paper"] | {"neuron": "lif", "surrogate": "boxcar"}}


class PSpikeSSM(SequenceClassifier):
    """A classifier made of probabilistic spiking state space blocks.

    Attributes: those of `SequenceClassifier`, then those of `nn.block_config.BlockConfig`.
    """

    block: str
    neuron: str
    d_model: int
    d_state: int
    n_layers: int
    norm: str
    prenorm: bool
    bidirectional: bool
    causal: bool
    residual: bool
    dropout: float
    shared_dynamics: bool
    parametrization: str
    initializer: str
    noise_sharing: str
    surrogate: str
    activation: str
    mixer: str
    dt_min: float
    dt_max: float
    l_max: int | None
    engine: str
    remat: str

    @property
    def config(self) -> BlockConfig:
        """The fields that concern the blocks, checked."""
        return BlockConfig(**{name: getattr(self, name) for name in config_fields()})

    @property
    def stochastic(self) -> bool:
        """Whether a pass draws noise."""
        return self.neuron == "probabilistic"

    def make_backbone(self) -> PSpikeBackbone:
        """Return the backbone."""
        return PSpikeBackbone(self.config)
