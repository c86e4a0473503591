"""Sweeps and searches: each choice once, no test split, ranks by validation."""

import importlib
import json
import pathlib
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import sweep  # noqa: E402
from experiments.configs import psmnist_cpu  # noqa: E402
from pspike_jax.command import files  # noqa: E402

LINE = {"step": 4, "train/loss": 1.5, "train/firing_rate": 0.25, "validation/accuracy": 0.5}


@pytest.fixture
def trained(monkeypatch):
    """Replace training by a note of what was trained; return the notes."""
    notes = []

    def fit(model, task, settings, *, workdir, config, mesh, progress):
        (workdir / "checkpoints").mkdir(parents=True)
        notes.append((model.config.d_model, settings.optimizer.learning_rate, settings.steps))
        return types.SimpleNamespace(history=[{"step": 2, "train/loss": 2.0}, LINE])

    monkeypatch.setattr(sweep, "fit", fit)
    return notes


def test_search_trains_a_choice_once_and_writes_what_came_of_it(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "RESULTS", tmp_path)
    words = [
        f"--config={ROOT}/experiments/configs/psmnist_cpu.py:smoke", f"--workdir={tmp_path}/runs",
        "--record=a", "--", "--config.model.d_model=6",
    ]
    sweep.main(words)
    record = json.loads((tmp_path / "a.json").read_text())
    assert len(trained) == len(sweep.collect(psmnist_cpu.search)) == len(record["runs"])
    assert trained[0][0] == 6 and trained[-1][1] == 1.2e-2
    assert record["runs"][0]["validation"] == [LINE] and record["runs"][0]["fields"] == {}
    assert record["command"].endswith("--record=a -- --config.model.d_model=6")
    assert not (tmp_path / "runs" / "0" / "checkpoints").exists()
    count = len(trained)
    sweep.main(words)
    assert len(trained) == count
    with pytest.raises(ValueError, match="holds a run of another config"):
        sweep.main(words[:-1])


def test_page_ranks_by_validation_and_names_what_differs():
    def result(accuracy, **fields):
        return {"fields": fields, "validation": [LINE | {"validation/accuracy": accuracy}]}

    text = sweep.page("x", "python -m y", [result(0.25), result(0.75, **{"model.norm": "layer"})])
    best, other = text.splitlines()[-2:]
    assert best == "| `model.norm=layer` | 4 | 1.500 | 75.00 % | 25.0 % |"
    assert other == "| nothing | 4 | 1.500 | 25.00 % | 25.0 % |"
    assert "`python -m y`" in text


def test_choices_of_the_search_are_keys_of_its_config():
    config = psmnist_cpu.get_config("search").to_dict()
    choices = sweep.collect(psmnist_cpu.search)
    assert choices[0] == {} and len(choices) == len({json.dumps(one) for one in choices})
    for key in (key for choice in choices for key in choice):
        section, name = key.split(".")
        assert name in config[section] and config[section][name] is not None
    module = files.import_config(psmnist_cpu.__file__)
    assert sweep.collect(module.search) == choices


@pytest.mark.parametrize("name", ["psmnist_cpu", "listops_cpu"])
def test_short_configs_refuse_an_unknown_variant(name):
    with pytest.raises(ValueError, match="variant is 'smok'"):
        importlib.import_module(f"experiments.configs.{name}").get_config("smok")
