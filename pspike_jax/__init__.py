"""Spiking state space models in JAX and Flax.

Shapes are written with one-letter sizes, here and in every docstring:

  B  examples in a batch
  L  length, the number of time steps; time is axis -2 of (B, L, H)
  H  features: the neurons of a layer
  N  state size of one neuron; complex pairs stored once are counted once
  F  features of a real-valued input before the encoder

Complex parameters are stored as real pairs, with a last axis of size 2.
"""

import importlib
from typing import TYPE_CHECKING

from pspike_jax import data, functional, interop, models, nn, objectives
from pspike_jax.models import create_model, describe_model, list_models
from pspike_jax.pretrained import list_pretrained, load_pretrained

if TYPE_CHECKING:  # imported late, see below; type checkers do not look through __getattr__
    from pspike_jax import analysis, export, training

__version__ = "0.1.0"

# These bring optax, orbax or matplotlib, so they are imported when they are first asked for.
_LATE = ("analysis", "export", "training")

__all__ = [
    "__version__",
    "analysis",
    "create_model",
    "data",
    "describe_model",
    "export",
    "functional",
    "interop",
    "list_models",
    "list_pretrained",
    "load_pretrained",
    "models",
    "nn",
    "objectives",
    "training",
]


def __getattr__(name: str):
    if name in _LATE:
        return importlib.import_module(f"pspike_jax.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
