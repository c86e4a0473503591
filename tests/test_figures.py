"""Figures of the paper from runs: one real smoke run, and made-up ones where arithmetic counts."""

import copy
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from data_writers import write_events

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import figures, sweep  # noqa: E402
from pspike_jax.command import prepare  # noqa: E402
from pspike_jax.analysis.measure import Findings  # noqa: E402


PREPARED_SHD = """
from ml_collections import config_dict
from experiments.configs import published, shd

def get_config():
    config = shd.get_config("smoke")
    config.task = config_dict.create(**published.prepared("shd") | {"data_dir": "FOLDER"})
    return config
"""
NO_NETWORK = """
import pathlib, socket

def refuse(*arguments):
    pathlib.Path("FOLDER", "attempts").write_text(repr(arguments))
    raise OSError("the network is blocked")

socket.socket.connect = socket.getaddrinfo = refuse
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The folder of a run of the smoke variant of shd on a prepared set, without a network."""
    folder = tmp_path_factory.mktemp("shd")
    rng = np.random.default_rng(0)
    (folder / "raw" / "shd").mkdir(parents=True)
    for name, count in (("train", 40), ("test", 8)):
        recordings = [(rng.uniform(0, 1, 50), rng.integers(0, 700, 50)) for _ in range(count)]
        write_events(folder / "raw/shd" / f"shd_{name}.h5", recordings, np.arange(count) % 20)
    prepare.prepare("shd", folder, changes={"num_steps": "16"}, allow_partial=True)
    for name, text in (("config.py", PREPARED_SHD), ("sitecustomize.py", NO_NETWORK)):
        (folder / name).write_text(text.replace("FOLDER", str(folder)))
    done = subprocess.run(
        [sys.executable, "-m", "experiments.main", f"--config={folder / 'config.py'}",
         f"--workdir={folder / 'run'}"],
        cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
    )
    assert done.returncode == 0, done.stderr
    assert "Task: shd (partial)" in done.stdout
    assert not (folder / "attempts").exists(), "a connection was opened"
    return folder / "run"


@pytest.fixture(scope="module")
def findings(workdir):
    return figures.run_best(workdir, jax.random.key(0))


def draw(monkeypatch, findings, *arguments):
    monkeypatch.setattr(figures, "run_best", lambda workdir, key: findings)
    figures.main(arguments)


def test_smoke_run_writes_its_metrics_with_the_share_of_waiting(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert all(0 <= line["time/waiting_for_data"] <= 1 for line in lines)


def test_run_best_captures_the_test_examples_of_a_run(findings):
    assert findings.examples == 8
    assert findings.captured["hidden"]["spike_array"].shape == (2, 8, 16, 16)


@pytest.mark.parametrize("figure", ["1b", "1c", "4"])
def test_main_draws_each_figure_of_a_run(monkeypatch, findings, workdir, tmp_path, figure):
    output = tmp_path / "figure.png"
    draw(monkeypatch, findings, f"--figure={figure}", f"--output={output}", str(workdir))
    assert output.read_bytes().startswith(b"\x89PNG")


def test_main_writes_the_energy_table_with_and_without_state_updates(
    monkeypatch, findings, workdir, tmp_path, capsys
):
    output = tmp_path / "energy.txt"
    draw(monkeypatch, findings, "--figure=energy", f"--output={output}", str(workdir))
    text = output.read_text()
    for words in ("energy without state updates", "energy with state updates",
                  "Energy = 0.9 pJ x AC + 4.6 pJ x MAC"):
        assert words in text
    assert text in capsys.readouterr().out


def made_up():
    """Two layers, three examples of lengths 4, 2, 4; neuron n of layer 2 fires n times in the 1st.

    Beyond the length of the second example everything fires.
    """
    spikes = np.zeros((2, 3, 4, 5))
    for neuron in range(5):
        spikes[1, 0, :neuron, neuron] = 1
    spikes[:, 1, 2:] = 1
    captured = {
        site: {"spike_array": spikes, "probability_array": spikes / 2}
        for site in ("input", "output", "output_reverse")
    }
    nothing = np.zeros(0)
    lengths = np.array([4, 2, 4])
    return Findings(3, {}, None, captured, lengths, nothing, nothing, lengths)


@pytest.mark.parametrize("fields, title", [
    # Neurons 1 to 4 fire 1 to 4 times, and the upper of the two in the middle is 3.
    ({}, "Neuron 3 of layer 2, output: 3 spikes in 4 steps"),
    ({"neuron": 1, "site": "input"}, "Neuron 1 of layer 2, input: 1 spikes in 4 steps"),
    ({"example": 1}, "Neuron 0 of layer 2, output: 0 spikes in 2 steps"),
])
def test_draw_neuron_takes_the_median_of_those_that_fire_in_valid_steps(fields, title):
    asked = {"site": None, "layer": 2, "neuron": None, "example": 0} | fields
    figure = figures.draw_neuron(made_up(), **asked)
    assert figure.axes[0].get_title(loc="left") == title


@pytest.mark.parametrize("fields, message", [
    ({"layer": 3}, "layer 3 is not there: there are 2"),
    ({"neuron": 5}, "neuron 5 is not there: there are 5"),
    ({"example": 3}, "example 3 is not there: there are 3"),
    ({"site": "outptu"}, "site is 'outptu', expected one of"),
])
def test_draw_neuron_refuses_what_is_not_there(fields, message):
    asked = {"site": None, "layer": 1, "neuron": 0, "example": 0} | fields
    with pytest.raises(ValueError, match=message):
        figures.draw_neuron(made_up(), **asked)


def run_of(d_model, seed, mean, **changes):
    config = {"model": {"name": "pspikessm", "d_model": d_model, "d_state": 4},
              "training": {"seed": seed, "steps": 10} | changes}
    return {"config": config, "task": "psmnist",
            "evaluation": {"sampled": {"mean": mean, "sem": 0.03, "sem_examples": 0.04}}}


def test_gather_accuracies_averages_over_seeds():
    runs = [run_of(32, 0, 0.5), run_of(16, 0, 0.25), run_of(32, 1, 0.75)]
    before = copy.deepcopy(runs)
    neurons, accuracies = figures.gather_accuracies(runs)
    mean, error = accuracies["psmnist, pspikessm"]
    assert neurons == [16, 32] and runs == before
    np.testing.assert_allclose(mean, [0.25, 0.625], rtol=1e-15)
    # One run: errors of draws and of examples together. Two seeds: 0.25 / sqrt(2) / sqrt(2).
    np.testing.assert_allclose(error, [0.05, 0.125], rtol=1e-12)


@pytest.mark.parametrize("runs, message", [
    ([run_of(16, 0, 0.5), run_of(32, 0, 0.5, steps=20)], "differ in more than neurons and seed"),
    ([run_of(16, 0, 0.5), run_of(32, 0, 0.5) | {"task": "other"}], r"has \[32\] neurons, others"),
])
def test_gather_accuracies_refuses_runs_that_cannot_be_compared(runs, message):
    with pytest.raises(ValueError, match=message):
        figures.gather_accuracies(runs)


def test_main_draws_figure_3_from_finished_runs(tmp_path):
    folders = []
    for d_model in (16, 32):
        run = run_of(d_model, 0, 0.5)
        folder = tmp_path / str(d_model)
        folder.mkdir()
        described = {"config": run["config"], "task": {"name": run["task"]}}
        (folder / "config.json").write_text(json.dumps(described))
        (folder / "evaluation.json").write_text(json.dumps(run["evaluation"]))
        folders.append(str(folder))
    figures.main(["--figure=3", f"--output={tmp_path / 'neurons.png'}", *folders])
    assert (tmp_path / "neurons.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "32" / "evaluation.json").unlink()
    with pytest.raises(SystemExit, match="32 is not finished: evaluation.json is missing"):
        figures.main(["--figure=3", f"--output={tmp_path / 'other.png'}", *folders])
    assert not (tmp_path / "other.png").exists()


def test_main_names_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(SystemExit, match="is no run: config.json is missing"):
        figures.main(["--figure=1b", f"--output={tmp_path / 'a.png'}", str(tmp_path)])


@pytest.mark.parametrize("name", ["listops", "psmnist"])
def test_sweep_prints_a_command_for_each_number_of_neurons(name, capsys):
    config = f"{ROOT}/experiments/configs/{name}.py"
    sweep.main([f"--config={config}:smoke", "--workdir=runs", "--print_only",
                "--", "--config.training.steps=8"])
    lines = capsys.readouterr().out.splitlines()
    sizes = [int(line.partition("--config.model.d_model=")[2].split()[0]) for line in lines]
    assert len(set(sizes)) == len(lines) >= 3
    for size, line in zip(sizes, lines):
        assert f"--workdir=runs/d_model_{size} " in line and f"{name}.py:smoke" in line
        assert line.endswith(" --config.training.steps=8")


def test_sweep_says_where_a_config_has_none():
    with pytest.raises(SystemExit, match=r"quickstart.py has no function sweep\(add\)"):
        sweep.main([f"--config={ROOT}/experiments/configs/quickstart.py", "--workdir=runs"])


def test_sweep_stops_where_a_run_fails(monkeypatch):
    calls = []
    monkeypatch.setattr(
        sweep.subprocess, "run",
        lambda words: calls.append(words) or subprocess.CompletedProcess(words, len(calls) - 1),
    )
    with pytest.raises(SystemExit, match="{'model.d_model': 50} ended with status 1"):
        sweep.main([f"--config={ROOT}/experiments/configs/psmnist.py", "--workdir=runs"])
    assert len(calls) == 2
