"""Training: a pure step, `fit` around it, evaluation of stochastic models, and prediction."""

from pspike_jax.training.creation import create_state
from pspike_jax.training.evaluation import evaluate, run_split
from pspike_jax.training.loop import FitResult, fit, load
from pspike_jax.training.optimizers import make_optimizer
from pspike_jax.training.prediction import predict
from pspike_jax.training.settings import OptimizerSettings, TrainSettings
from pspike_jax.training.sharding import make_mesh, shard_batch
from pspike_jax.training.state import TrainState, train_step
from pspike_jax.training.writers import TensorBoardWriter, WandbWriter

__all__ = [
    "FitResult",
    "OptimizerSettings",
    "TensorBoardWriter",
    "TrainSettings",
    "TrainState",
    "WandbWriter",
    "create_state",
    "evaluate",
    "fit",
    "load",
    "make_mesh",
    "make_optimizer",
    "predict",
    "run_split",
    "shard_batch",
    "train_step",
]
