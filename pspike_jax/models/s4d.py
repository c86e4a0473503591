"""S4D (Gu et al. 2022, 2206.11893): the dense, non-spiking twin of a P-SpikeSSM."""

import dataclasses

from pspike_jax.models.classifier import SequenceClassifier
from pspike_jax.nn.s4d import S4DBackbone, S4DConfig

PRESETS = {
    "s4d": {
        "num_classes": 10,
        "vocab_size": None,
        "pool": "mean",
        "documents": 1,
        "precision": "float32",
        "d_model": 128,
        "d_state": 16,
        "n_layers": 4,
        "norm": "layer",
        "prenorm": True,
        "causal": True,
        "dropout": 0.0,
        "shared_dynamics": False,
        "initializer": "legs",
        "dt_min": 1e-3,
        "dt_max": 1e-1,
        "engine": "auto",
    }
}


class S4D(SequenceClassifier):
    """A classifier made of S4D blocks; aux is empty.

    Attributes: those of `SequenceClassifier`, then those of `nn.s4d.S4DConfig`.
    """

    d_model: int
    d_state: int
    n_layers: int
    norm: str
    prenorm: bool
    causal: bool
    dropout: float
    shared_dynamics: bool
    initializer: str
    dt_min: float
    dt_max: float
    engine: str

    @property
    def config(self) -> S4DConfig:
        """The fields that concern the blocks, checked."""
        names = (field.name for field in dataclasses.fields(S4DConfig))
        return S4DConfig(**{name: getattr(self, name) for name in names})

    @property
    def stochastic(self) -> bool:
        """Whether a pass draws noise."""
        return False

    def make_backbone(self) -> S4DBackbone:
        """Return the backbone."""
        return S4DBackbone(self.config)
