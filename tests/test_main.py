"""The main job: from a config to pictures, unknown keys by name, finished runs left alone."""

import json
import os
import pathlib
import re
import subprocess
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import main  # noqa: E402
from experiments.configs import quickstart  # noqa: E402
from pspike_jax.command import job, overrides  # noqa: E402
from pspike_jax.command.experiment import build  # noqa: E402

CONFIG = f"--config={ROOT}/experiments/configs/quickstart.py:smoke"
PRECISION = "--config.model.precision=bfloat16"


def run(workdir, *arguments):
    main.main([CONFIG, PRECISION, f"--workdir={workdir}", *arguments])


def command(*arguments):
    """Run the program as a user does, on as many devices as `run`."""
    return subprocess.run(
        [sys.executable, "-m", "experiments.main", CONFIG, *arguments], cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "8"}, capture_output=True, text=True,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a smoke run that ended, in bfloat16, profiled, beside its compiled programs."""
    folder = tmp_path_factory.mktemp("smoke")
    done = command(
        PRECISION, f"--workdir={folder / 'run'}", "--profile_steps=3,4",
        f"--compile_cache={folder / 'cache'}",
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


def contents(workdir):
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_main_leaves_config_metrics_report_and_pictures(finished):
    names = {path.name for path in finished.iterdir()}
    pictures = {"learning_curve", "raster", "probabilities", "active_ratio", "poles"}
    assert {f"{picture}.png" for picture in pictures} <= names
    assert {"config.json", "metrics.jsonl", "report.json", "evaluation.json"} <= names
    config = json.loads((finished / "config.json").read_text())
    assert config["config"]["training"]["steps"] == config["training"]["steps"] == 8
    evaluation = json.loads((finished / "evaluation.json").read_text())
    assert set(evaluation) == {"sampled", "mean_field", "threshold"}
    assert evaluation["sampled"]["examples"] == 360


def test_main_leaves_a_finished_run_alone(finished, capsys):
    before = contents(finished)
    (finished / "checkpoints").rename(finished.parent / "elsewhere")  # nobody needs them any more
    try:
        run(finished)
    finally:
        (finished.parent / "elsewhere").rename(finished / "checkpoints")
    assert "holds a finished run" in capsys.readouterr().out
    assert contents(finished) == before


def test_main_evaluates_again_to_the_same_numbers(finished, capsys):
    before = contents(finished)
    run(finished, "--mode=evaluate")
    assert "sampled spikes" in capsys.readouterr().out
    after = contents(finished)
    assert after[finished / "report.json"] == before[finished / "report.json"]
    assert after.keys() == before.keys()


def test_main_does_not_take_an_evaluation_for_the_end_of_a_run(tmp_path, monkeypatch):
    calls = []
    result = types.SimpleNamespace(best_step=4)
    answers = {"fit": result, "load": result, "write_report": {}, "check_workdir": None}
    for name, answer in answers.items():
        stub = lambda *_, name=name, answer=answer, **__: calls.append(name) or answer
        monkeypatch.setattr(job, name, stub)
    run(tmp_path, "--mode=evaluate")
    run(tmp_path)
    run(tmp_path)
    one, all_steps = ["load", "write_report"], ["fit", "write_report"]
    assert calls == ["check_workdir", *one, *all_steps, "check_workdir"]


def test_main_plans_for_other_devices():
    done = command(
        "--mode=plan", "--plan_devices=8", "--config.mesh.fsdp=2", "--config.mesh.model=2"
    )
    assert done.returncode == 0, done.stderr
    for part in (
        "mesh: data=2, fsdp=2, model=2, sequence=1; 8 devices",
        "mixer/linear/kernel",
        "'fsdp'",
        "memory of a device in a step",
        "work of a forward pass, all devices together",
        "engine: chunked; on cpu chunked; on cuda chunked; on tpu chunked",
        "39 an epoch of 1257 examples in batches of 32: 0.2 epochs",
        "all-reduce",
        "checkpoint: ",
    ):
        assert part in done.stdout, done.stdout


def test_main_in_bfloat16_writes_a_profile_and_keeps_compiled_programs(finished):
    assert list((finished / "profile").rglob("*.xplane.pb"))
    assert list((finished.parent / "cache").iterdir())
    described = json.loads((finished / "config.json").read_text())
    assert described["model"]["config"]["precision"] == "bfloat16"
    lines = map(json.loads, (finished / "metrics.jsonl").read_text().splitlines())
    assert all(line["time/compute"] > 0 and line["time/save"] >= 0 for line in lines)


def test_main_refuses_the_workdir_of_another_config(finished):
    before = contents(finished)
    with pytest.raises(SystemExit, match="error: .*training.seed is 0 there and 1 here"):
        run(finished, "--config.training.seed=1")
    assert contents(finished) == before


def test_main_does_not_evaluate_what_is_not_there(tmp_path):
    with pytest.raises(SystemExit, match="error: .*holds no run"):
        run(tmp_path / "nothing", "--mode=evaluate")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        (None, "trainin", "config: unknown key 'trainin'; did you mean 'training'"),
        ("training", "stepz", "config.training: unknown key 'stepz'; did you mean 'steps'"),
        ("optimizer", "clipnorm", "config.optimizer: unknown key 'clipnorm'; .* 'clip_norm'"),
        ("task", "sed", "config.task: unknown key 'sed'; did you mean 'seed'"),
        ("mesh", "date", "config.mesh: unknown key 'date'; did you mean 'data'"),
        ("evaluation", "draw", "config.evaluation: unknown key 'draw'; did you mean 'draws'"),
        ("model", "d_mode", "'d_mode'.* did you mean 'd_model'"),
        ("model", "num_outputs", "config.model.num_outputs is 1, of the task 10: leave it out"),
    ],
)
def test_build_names_an_unknown_key_and_the_nearest_known_one(section, key, message):
    config = quickstart.get_config("smoke").to_dict()
    (config if section is None else config[section])[key] = 1
    with pytest.raises(ValueError, match=message):
        build(config)


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        (None, "mesh", r"config: missing \['mesh'\]"),
        ("training", "steps", r"config.training: missing \['steps'\]"),
        ("model", "name", "config.model has no key 'name'"),
    ],
)
def test_build_names_a_missing_key(section, key, message):
    config = quickstart.get_config("smoke").to_dict()
    del (config if section is None else config[section])[key]
    with pytest.raises(ValueError, match=message):
        build(config)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("task", "name", "digit", "unknown key 'digit'; did you mean 'digits'"),
        ("task", "seed", -1, "config.task.seed is -1, expected at least 0"),
        ("model", "d_state", 5, "d_state must be even"),
        ("model", "dt_min", 1.0, "dt_min < dt_max"),
        ("evaluation", "draws", 1, "draws is 1"),
        ("training", "batch_size", 0, "batch_size is 0"),
    ],
)
def test_build_names_a_wrong_value(section, key, value, message):
    config = quickstart.get_config("smoke").to_dict()
    config[section][key] = value
    with pytest.raises(ValueError, match=message):
        build(config)


def test_quickstart_sets_every_key():
    config = quickstart.get_config().to_dict()
    experiment = build(config)
    settings = {"training": experiment.training, "optimizer": experiment.training.optimizer}
    for section, typed in settings.items():
        assert set(config[section]) == set(vars(typed)) - {"optimizer"}


def test_quickstart_refuses_an_unknown_variant():
    with pytest.raises(ValueError, match="variant is 'smok', expected 'causal', 'smoke' or none"):
        quickstart.get_config("smok")


SMOKE = f"{ROOT}/experiments/configs/quickstart.py:smoke"


def changed(*words):
    """Return the smoke config with words of the command line."""
    return overrides.read(SMOKE, [f"--config.{word}" for word in words])


def test_read_changes_what_is_listed_and_what_is_not():
    config = changed(
        "model.surrogate=boxcar", "model.d_model=8", "optimizer.learning_rate=1",
        "optimizer.clip_norm=0.5", "mesh.data=2", "model.norm=1", "model.causal=true",
        "task.seed=3",
    )
    model, optimizer = config["model"], config["optimizer"]
    assert (model["surrogate"], model["d_model"], model["norm"]) == ("boxcar", 8, "1")
    assert model["causal"] is True and type(optimizer["learning_rate"]) is float
    assert (optimizer["clip_norm"], config["mesh"]["data"], config["task"]["seed"]) == (0.5, 2, 3)
    experiment = build(changed("model.surrogate=boxcar"))
    assert getattr(experiment.model, "config", experiment.model).surrogate == "boxcar"


def test_read_empties_what_may_be_empty(tmp_path):
    path = tmp_path / "clipped.py"
    path.write_text(
        "from experiments.configs import quickstart\n"
        "def get_config(variant=None):\n"
        "    config = quickstart.get_config('smoke')\n"
        "    config.optimizer.clip_norm = 1.0\n"
        "    return config\n"
    )
    config = overrides.read(str(path), ["--config.optimizer.clip_norm=None"])
    assert config["optimizer"]["clip_norm"] is None


@pytest.mark.parametrize("word, message", [
    ("training.steps=many", "config.training.steps is 'many', expected int$"),
    ("training.steps=None", "config.training.steps is 'None', expected int$"),
    ("optimizer.clip_norm=x", "config.optimizer.clip_norm is 'x', expected float or None"),
    ("model.bidirectional=3", "expected bool"),
    ("modl.d_model=3", "config: unknown key 'modl'; did you mean 'model'"),
    ("model=3", "is no change: write --config.SECTION.KEY=VALUE"),
])
def test_read_says_what_is_wrong_with_a_change(word, message):
    with pytest.raises(ValueError, match=message):
        changed(word)


def test_missing_data_are_told_with_their_address(tmp_path):
    config = overrides.read(
        f"{ROOT}/experiments/configs/shd.py", [f"--config.task.data_dir={tmp_path}"]
    )
    with pytest.raises(FileNotFoundError, match="https://zenkelab.org/datasets/"):
        build(config)


def test_help_shows_every_flag_and_the_configs(capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(["--help"])
    said = capsys.readouterr().out
    assert caught.value.code == 0
    for word in ("--coordinator", "--compile_cache", "--profile_steps", "--plan_devices",
                 "--config.SECTION.KEY=VALUE", "psmnist_cpu", "shd"):
        assert word in said


@pytest.mark.parametrize("words, message", [
    (["--config.model.d_state=3"], "d_state must be even"),
    (["--config.model.d_modell=3"], "error: .*'d_modell'.*'d_model'"),
    (["--wrkdir=x"], "unknown arguments --wrkdir=x"),
])
def test_main_ends_with_one_line_that_says_what_is_wrong(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        main.main([CONFIG, f"--workdir={tmp_path / 'run'}", *words])
    said = f"{caught.value.code}\n{capsys.readouterr().err}"
    assert re.search(message, said) and caught.value.code not in (0, None)
    assert not (tmp_path / "run").exists()


def test_processes_without_a_main_guard_end_with_advice(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pspike_jax.data.source import in_order\nprint([*in_order(abs, [-1, -2], 2)])\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )
    assert done.returncode != 0 and "must stand under `if __name__" in done.stderr.splitlines()[-1]
