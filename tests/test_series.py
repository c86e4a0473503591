"""A regression and a forecast: plain answers by hand, and a page that compares with them."""

import json
import pathlib
import sys
import types

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import archive, series  # noqa: E402
from experiments.configs import mackey_glass, s5_listops  # noqa: E402
from pspike_jax.command import experiment  # noqa: E402
from pspike_jax.objectives import Classification  # noqa: E402


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


def test_plain_answer_of_classes_is_the_commonest_of_training():
    split = lambda *targets: types.SimpleNamespace(targets=np.array(targets))
    task = types.SimpleNamespace(
        objective=Classification(3), train=split(0, 1, 1, 2), test=split(1, 1, 0, 2, 1)
    )
    found = series.plain_answers(types.SimpleNamespace(task=task))
    assert found == {"commonest": 0.6}


def test_archive_runs_what_its_record_lacks_and_shows_means_over_seeds(monkeypatch, tmp_path):
    made, scores = [], iter(np.linspace(0.1, 0.9, 99))

    def run(name, model, seed, data, workdir):
        made.append((name, model, seed))
        if len(made) == 5:
            raise KeyboardInterrupt
        plain = {"mean": 0.25} if name == "covid" else {"commonest": 0.4}
        return {
            "set": name, "model": model, "seed": seed, "parameters": 1500, "plain": plain,
            "metrics": dict.fromkeys(("mse", "accuracy"), {"mean": next(scores)}), "commit": None,
        }

    monkeypatch.setattr(archive, "run", run)
    monkeypatch.setattr(archive, "keep_programs", lambda folder: None)
    path = tmp_path / "archive.json"
    arguments = [f"--data={tmp_path}", f"--workdir={tmp_path}", f"--record={path}"]
    with pytest.raises(KeyboardInterrupt):
        archive.main(arguments)
    archive.main(arguments)
    every = list(archive.every_run())
    assert made == every[:5] + every[4:] and len(set(every)) == len(every) == 36
    record = json.loads(path.read_text())
    own = [row["metrics"]["mse"]["mean"] ** 0.5 for row in record["runs"]
           if (row["set"], row["model"]) == ("covid", "linoss")]
    text = path.with_suffix(".md").read_text()
    error = np.std(own, ddof=1) / 3**0.5
    assert f"| 0.5000 | {np.mean(own):.4f} ± {error:.4f} |" in text
    assert "`dt` given (accuracy) | 40.0 % | - | - |" in text and "lacks" not in text
    assert path.with_suffix(".png").stat().st_size > 0


def test_archive_builds_offline_and_names_what_it_does_not_know():
    built = experiment.build(archive.archive.get_config("smoke").to_dict())
    assert built.model.config.pool == "mean" and built.training.steps == 4
    config = archive.archive.get_config("gaps-pspikessm")
    assert (config.task.dataset, config.task.keep, config.model.name) == (
        "BasicMotions", 0.25, "pspikessm"
    )
    with pytest.raises(ValueError, match="variant is 'covid-s4', expected 'smoke'"):
        archive.archive.get_config("covid-s4")


def test_s5_of_listops_has_the_sizes_of_the_run_script_and_a_smoke_variant():
    built = experiment.build(s5_listops.get_config("smoke").to_dict())
    assert built.model.config.gate == "half_glu2" and not built.model.config.causal
    config = s5_listops.get_config()
    assert config.training.steps == 76_800 and config.optimizer.learning_rate == 3e-3


@pytest.mark.parametrize("module", [series, archive])
def test_committed_page_of_series_is_that_of_the_record(module):
    text = module.RECORD.with_suffix(".md").read_text()
    assert text == module.page(json.loads(module.RECORD.read_text()))
