"""A regression and a forecast: plain answers by hand, and a page that compares with them."""

import json
import pathlib
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import archive, series  # noqa: E402
from experiments.configs import mackey_glass  # noqa: E402
from pspike_jax.command import experiment  # noqa: E402


@pytest.mark.parametrize("name, asked", [("oscillations", "StepRegression"),
                                         ("mackey_glass", "Forecast")])
def test_smoke_builds_offline(name, asked):
    built = experiment.build(series.CONFIGS[name].get_config("smoke").to_dict())
    assert type(built.task.objective).__name__ == asked and built.training.steps == 4
    assert built.model.config.pool == "none"
    with pytest.raises(ValueError, match="variant is 'smok'"):
        series.CONFIGS[name].get_config("smok")


def test_plain_answers_are_those_of_a_loop():
    built = experiment.build(series.CONFIGS["mackey_glass"].get_config("smoke").to_dict())
    horizon = built.task.objective.horizon
    train = [x for row in built.task.train.inputs for x in np.float64(row[horizon:, 0])]
    center = sum(train) / len(train)
    mean, unchanged = [], []
    for row in np.float64(built.task.test.inputs[..., 0]):
        for t in range(len(row) - horizon):
            mean.append((row[t + horizon] - center) ** 2)
            unchanged.append((row[t + horizon] - row[t]) ** 2)
    expected = {"mean": np.mean(mean), "unchanged": np.mean(unchanged)}
    assert series.plain_answers(built) == pytest.approx(expected, rel=1e-12)


def test_main_runs_what_the_record_lacks_and_shows_it(monkeypatch, tmp_path):
    made = []

    def run(name, variant, workdir):
        made.append((name, variant))
        if len(made) == 3:
            raise KeyboardInterrupt
        return {
            "task": name, "model": variant or "linoss", "config": "C", "parameters": 1500,
            "metrics": {"mse": {"mean": 0.01}}, "plain": {"mean": 0.25}, "commit": None,
        }

    monkeypatch.setattr(series, "run", run)
    path = tmp_path / "series.json"
    with pytest.raises(KeyboardInterrupt):
        series.main([f"--workdir={tmp_path}", f"--record={path}"])
    series.main([f"--workdir={tmp_path}", f"--record={path}"])
    every = [(name, variant) for variant in mackey_glass.MODELS for name in series.CONFIGS]
    assert made == every[:3] + every[2:]
    assert len(json.loads(path.read_text())["models"]) == len(every)
    text = path.with_suffix(".md").read_text()
    assert "| `linoss` | 1,500 | 0.1000 | 0.5000 | 20.0 % |" in text


def test_committed_page_of_series_is_that_of_the_record():
    text = series.RECORD.with_suffix(".md").read_text()
    assert text == series.page(json.loads(series.RECORD.read_text()))
