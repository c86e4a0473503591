"""Configs of the UEA sets: the sizes and rates of the paper, and smoke variants that build."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.configs import ppg_dalia, uea  # noqa: E402
from pspike_jax.command import experiment  # noqa: E402
from pspike_jax.models.linoss import PRESETS  # noqa: E402


@pytest.mark.parametrize("module, pool", [(uea, "mean"), (ppg_dalia, "none")])
def test_smoke_builds_offline(module, pool):
    built = experiment.build(module.get_config("smoke").to_dict())
    assert built.model.config.pool == pool and "generated" in built.task.name
    assert built.model.config.activation == ("tanh" if pool == "none" else "identity")


def test_each_set_has_a_preset_and_the_rate_of_the_paper():
    for name, (dataset, rate, *_) in uea.SETS.items():
        config = uea.get_config(name)
        assert config.model.preset in PRESETS and config.task.dataset == dataset
        assert config.optimizer.learning_rate == config.optimizer.dynamics_rate == rate
    with pytest.raises(ValueError, match="variant is 'smok'"):
        uea.get_config("smok")
