"""Configs of models with objectives of their own become a task and a model that fit together."""

import importlib
import pathlib
import sys

import jax
import pytest

from pspike_jax.command import experiment
from pspike_jax.training import make_mesh, train_step
from pspike_jax.training.creation import abstract_batch, state_shapes

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

VARIANTS = {
    "langevinflow_lorenz": (None, "control", "spiking", "smoke"),
    "dlds_lorenz": (None, "smoke"),
    "npsem_instrument": (None, "smoke"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_make_a_training_step(name):
    module = importlib.import_module(f"experiments.configs.{name}")
    mesh = make_mesh(devices=jax.devices()[:1])
    for variant in VARIANTS[name]:
        built = experiment.build(module.get_config(variant).to_dict())
        state = state_shapes(built.model, built.task, built.training, mesh)
        batch = abstract_batch(built.task, built.training, mesh)
        _, measured = jax.eval_shape(train_step, state, batch)
        assert built.task.objective.merit[0] in measured, variant
    with pytest.raises(ValueError, match="expected"):
        module.get_config("other")
