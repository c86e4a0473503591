"""Training: a pure step, `fit` around it, and evaluation of stochastic models."""

from pspike_jax.training.evaluation import evaluate, run_split
from pspike_jax.training.loop import FitResult, fit, load
from pspike_jax.training.optimizers import make_optimizer, parameter_groups
from pspike_jax.training.settings import OptimizerSettings, TrainSettings
from pspike_jax.training.sharding import make_mesh
from pspike_jax.training.state import TrainState, create_state, train_step

__all__ = [
    "FitResult",
    "OptimizerSettings",
    "TrainSettings",
    "TrainState",
    "create_state",
    "evaluate",
    "fit",
    "load",
    "make_mesh",
    "make_optimizer",
    "parameter_groups",
    "run_split",
    "train_step",
]
