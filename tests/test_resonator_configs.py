"""Configs of PRF, PMSN, Binary S4D and S5-RF: smoke variants spike, full ones make a model."""

import importlib
import pathlib
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest

import pspike_jax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from pspike_jax.command import experiment  # noqa: E402

# {config: variants and, as "gsu" has one, that of its smoke run}
VARIANTS = {
    "prf_listops": {None: "smoke"},
    "pmsn_psmnist": {None: "smoke"},
    "binary_s4d_listops": {None: "smoke", "gsu": "gsu_smoke"},
    "s5rf_shd": {None: "smoke"},
}
CASES = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]


def config_of(name, variant):
    return importlib.import_module(f"experiments.configs.{name}").get_config(variant)


@pytest.mark.parametrize("name, variant", CASES)
def test_smoke_variants_make_spikes(name, variant):
    made = experiment.build(config_of(name, VARIANTS[name][variant]).to_dict())
    inputs, lengths = made.task.test.inputs[:4], made.task.test.lengths[:4]
    variables = jax.jit(made.model.init)(jax.random.key(0), inputs)
    _, aux = jax.jit(made.model.apply)(nn.meta.unbox(variables), inputs, lengths)
    for site, counts in aux["sites"].items():
        rate = np.sum(counts["spikes"]) / np.sum(counts["steps"] * counts["neurons"])
        assert 0.005 < rate < 0.95, (site, rate)


@pytest.mark.parametrize("name, variant", CASES)
def test_full_variants_make_a_model_and_set_every_key(name, variant):
    config = config_of(name, variant).to_dict()
    model = pspike_jax.create_model(**config["model"])
    assert type(model.config).__name__ != "Config"
    settings = set(config_of("prf_listops", None).training)
    assert set(config["training"]) == settings
