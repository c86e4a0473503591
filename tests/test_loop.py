"""fit: what it selects, what it refuses, and that a killed run ends as one that was not."""

import dataclasses
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import warnings

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from damage import damage, flip
from tiny import TinySpiking, one_device, tiny, tiny_settings, tiny_task

from pspike_jax.data import from_arrays
from pspike_jax.objectives import Regression
from pspike_jax.training import OptimizerSettings, create_state, fit, load, make_mesh
from pspike_jax.training import checkpoints as checkpoints_module
from pspike_jax.training import files as files_module
from pspike_jax.training.preemption import Preempted, StopSignal


def run(workdir=None, task=None, model=None, options=None, **changes):
    return fit(
        model or TinySpiking(), task or tiny_task(), tiny_settings(**changes), workdir=workdir,
        mesh=one_device(), progress=False, **options or {},
    )


def timeless(history):
    """Return lines of metrics without what clocks said."""
    return [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in history
    ]


def assert_same_run(workdir, expected_workdir, result, expected):
    for a, b in zip(jax.tree.leaves(result.state), jax.tree.leaves(expected.state)):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)
    chex.assert_trees_all_equal(result.variables, expected.variables)
    files = [pathlib.Path(w) / "metrics.jsonl" for w in (workdir, expected_workdir)]
    lines = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    assert timeless(lines[0]) == timeless(lines[1])
    assert result.best_step == expected.best_step


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Keep compiled programs: most fits here compile the same ones."""
    changes = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in changes}
    for settings in (changes, before):
        compilation_cache.reset_cache()
        for name, value in settings.items():
            jax.config.update(name, value)
        if settings is changes:
            yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_once):
    """An uninterrupted run: its folder and result."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run(workdir)


def test_fit_learns_the_tiny_task(whole):
    _, result = whole
    # Three classes; 24 validation examples: chance gives 0.75 or more with probability 2e-5.
    assert result.history[-1]["validation/accuracy"] >= 0.75


def test_fit_logs_each_step_once_in_order(whole):
    workdir, result = whole
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(4, 41, 4))
    assert lines == result.history
    validated = [line["step"] for line in lines if "validation/loss" in line]
    assert validated == [12, 24, 36, 40]


def test_fit_returns_the_best_by_validation(whole):
    workdir, result = whole
    scores = {
        line["step"]: (line["validation/accuracy"], -line["validation/loss"])
        for line in result.history if "validation/loss" in line
    }
    assert result.best_step == max(scores, key=scores.get)
    assert int(result.state.step) == 40


def test_fit_needs_no_workdir_and_gives_the_same(whole):
    result = run()
    chex.assert_trees_all_equal(result.variables, whole[1].variables)
    assert timeless(result.history) == timeless(whole[1].history)


def test_fit_of_a_finished_run_changes_nothing(whole):
    workdir, expected = whole
    assert_same_run(workdir, workdir, run(workdir), expected)


def test_load_reads_what_fit_left(whole):
    workdir, expected = whole
    before = sorted(workdir.rglob("*"))
    result = load(
        TinySpiking(), tiny_task(), tiny_settings(), workdir=workdir, mesh=one_device()
    )
    assert_same_run(workdir, workdir, result, expected)
    assert result.history == expected.history and sorted(workdir.rglob("*")) == before


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the library may catch it."""


def kill_at(monkeypatch, module, name, call, before):
    """Make a call of a function stop the run, before or after it did its work."""
    original, calls = getattr(module, name), iter(range(1, 1000))

    def wrapper(*args, **kwargs):
        now = next(calls) == call
        if now and before:
            raise Killed
        result = original(*args, **kwargs)
        if now:
            raise Killed
        return result

    monkeypatch.setattr(module, name, wrapper)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (files_module.MetricsLog, "write", 3),
        (files_module.MetricsLog, "write", 10),
        (checkpoints_module.ocp, "save_async", 1),
        (checkpoints_module.ocp, "save_async", 3),
        (checkpoints_module, "atomic_write", 3),
        (checkpoints_module, "_remove", 5),
    ],
)
def test_fit_resumes_from_any_point_to_the_same_bits(
    tmp_path, whole, monkeypatch, module, name, call, before
):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, module, name, call, before)
        run(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "skipped the checkpoint")
        result = run(tmp_path)
    assert_same_run(tmp_path, whole[0], result, whole[1])


def test_fit_resumes_a_plateau_schedule_to_the_same_bits(tmp_path, monkeypatch):
    changes = {
        "optimizer": OptimizerSettings(
            learning_rate=0.01, schedule="plateau", plateau_patience=1, plateau_factor=0.1
        ),
        "eval_every": 8,
    }
    expected = run(tmp_path / "whole", **changes)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, files_module.MetricsLog, "write", 8, True)
        run(tmp_path / "killed", **changes)
    result = run(tmp_path / "killed", **changes)
    assert_same_run(tmp_path / "killed", tmp_path / "whole", result, expected)
    assert float(expected.state.rates["scale"]) < 1, "the schedule must have acted"


@pytest.mark.parametrize("call", [1, 5, 8, 12, 14, 41, 44])
def test_fit_told_to_stop_loses_no_step(tmp_path, whole, monkeypatch, call):
    """Calls 14 and 41 are between two batches of a validation, 1 and 5 between two lines."""
    calls = itertools.count(1)
    with monkeypatch.context() as patch, pytest.raises(Preempted, match="saved after step"):
        patch.setattr(StopSignal, "requested", lambda _: next(calls) == call)
        run(tmp_path)
    assert_same_run(tmp_path, whole[0], run(tmp_path), whole[1])


def agreeing(found, expected):
    """Return how many lines agree, up to the first with a spike more or less: a tie |p - u| ~ 0.

    Raises where steps differ, or losses by more than the order of sums explains.
    """
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for number, (a, b) in enumerate(zip(found, expected)):
        if a["train/firing_rate"] != b["train/firing_rate"]:
            return number
        np.testing.assert_allclose(a["train/loss"], b["train/loss"], rtol=1e-5)
    return len(found)


def test_fit_goes_on_on_other_meshes_with_the_same_batches_and_noise(tmp_path, whole, monkeypatch):
    """From 8 devices to 2, to 1, and back to 8, which split the state in another way."""
    two = make_mesh(fsdp=2, devices=jax.devices()[:2])
    again = lambda mesh: fit(
        TinySpiking(), tiny_task(), tiny_settings(), workdir=tmp_path, mesh=mesh, progress=False
    )
    stopped = []
    with monkeypatch.context() as patch:
        for mesh in (make_mesh(data=2, fsdp=4), two, one_device()):
            calls = itertools.count(1)
            patch.setattr(StopSignal, "requested", lambda _: next(calls) == 20)
            with pytest.raises(Preempted) as told:
                again(mesh)
            stopped.append(told.value.step)
    # Calls between the batches of a validation count as well, and a step that was stopped in is
    # looked at again.
    assert stopped == sorted(set(stopped)) and 20 < stopped[-1] < 30
    result = again(make_mesh(data=4, model=2))
    # 6,000 draws against drives that differ by 1e-6: a tie in 20 of 40 steps is rare.
    assert agreeing(result.history, whole[1].history) >= 5
    kernel = result.variables["params"]["encoder"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 4)}


def test_fit_told_to_stop_again_and_again_still_ends(tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patch:
        for call in (3, 2, 1, 9, 4):
            calls = itertools.count(1)
            patch.setattr(StopSignal, "requested", lambda _: next(calls) == call)
            with pytest.raises(Preempted):
                run(tmp_path)
    assert_same_run(tmp_path, whole[0], run(tmp_path), whole[1])


def test_sigterm_saves_and_exits_as_schedulers_expect(tmp_path, monkeypatch):
    write, before = files_module.MetricsLog.write, signal.getsignal(signal.SIGTERM)

    def write_and_signal(log, line):
        write(log, line)
        if line["step"] == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(files_module.MetricsLog, "write", write_and_signal)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] != []


def test_fit_heals_its_metrics_and_load_never_shows_damaged_ones(tmp_path, whole):
    workdir = shutil.copytree(whole[0], tmp_path / "run")
    damage(workdir / "metrics.jsonl", flip, random.Random(0))
    shown = load(TinySpiking(), tiny_task(), tiny_settings(), workdir=workdir, mesh=one_device())
    assert shown.history == whole[1].history
    assert_same_run(workdir, whole[0], run(workdir), whole[1])


def test_fit_never_reads_the_test_split(whole):
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError(f"the test split was read: {name}")

    task = tiny_task()
    object.__setattr__(task, "test", Untouchable())
    object.__setattr__(
        task, "splits", lambda: {"train": task.train, "validation": task.validation}
    )
    assert timeless(run(task=task).history) == timeless(whole[1].history)


def without_validation():
    task = tiny_task()
    return dataclasses.replace(task, validation=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": without_validation()}, "task 'tiny' has no validation split"),
        ({"batch_size": 80}, "batch_size is 80, expected at most 72"),
        ({"model": tiny(num_outputs=2)}, r"outputs of shape \(1, 2\) for one example"),
    ],
)
def test_fit_refuses_what_does_not_fit_before_it_writes(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_fit_refuses_the_workdir_of_another_run(tmp_path, whole):
    with pytest.raises(ValueError, match="training.seed is 0 there and 1 here"):
        run(whole[0], seed=1)


class Exploding(nn.Module):
    """Wrap the tiny model: a parameter whose gradient is NaN from some loss on."""

    bound: float = 0.05

    @nn.compact
    def __call__(self, inputs, lengths=None, train=False, noise=None, sampling="spikes",
                 example_ids=None, capture=False):
        """Follow the call of the models of the zoo."""
        logits, aux = TinySpiking(name="tiny")(
            inputs, lengths, train, noise, sampling, example_ids, capture
        )
        drift = self.param("drift", nn.initializers.zeros, (1, 1))
        # Pushed down by 0.01 a step; below -bound the root has no real value.
        return logits + jnp.array([[1.0, 0, 0]]) * jnp.sqrt(drift + self.bound), aux


def test_fit_stops_at_the_step_that_is_not_finite(tmp_path):
    task = tiny_task()
    labels = np.ones_like(task.train.targets)  # class 0 is never right: its logit falls
    task = dataclasses.replace(task, train=task.train._replace(targets=labels))
    with pytest.raises(FloatingPointError, match=r"step \d+: the loss is nan; .*gradient is drift"):
        run(tmp_path, task=task, model=Exploding())
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(value) for line in steps for value in line.values())
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept, "the last good checkpoint must stay"


def test_fit_names_a_parameter_that_an_update_made_infinite(tmp_path):
    with pytest.raises(FloatingPointError, match=r"step \d: the loss is .*; .* parameter is"):
        run(tmp_path, optimizer=OptimizerSettings(learning_rate=3e38, schedule="constant"))


@pytest.fixture
def compiled():
    """A list that grows by an entry for each program that is compiled."""
    names = []

    def listen(name, *_, **__):
        if "backend_compile" in name:
            names.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_an_equal_fit_compiles_nothing_and_neither_does_another_rate(compiled, schedule):
    settings = lambda rate: OptimizerSettings(
        learning_rate=rate, schedule=schedule, plateau_patience=1
    )
    first = run(optimizer=settings(0.01), eval_every=8)
    compiled.clear()
    second = run(optimizer=settings(0.01), eval_every=8)
    other = run(optimizer=settings(0.02), eval_every=8)
    assert compiled == []
    assert timeless(second.history) == timeless(first.history) != timeless(other.history)


def test_fit_stops_early_and_a_restart_does_not_go_on(tmp_path):
    """With a rate of 0 no validation after the first is better, but for its noise."""
    changes = {
        "early_stopping": 2, "eval_every": 4, "checkpoint_every": 4, "model":
        TinySpiking(stochastic=False), "optimizer": OptimizerSettings(learning_rate=0.0),
    }
    changes["options"] = {"frozen": ["*"]}
    result = run(tmp_path, **changes)
    scores = [line["validation/accuracy"] for line in result.history]
    since = len(scores) - 1 - int(np.argmax(scores))
    assert since == 2 and int(result.state.step) == 4 * len(scores) < 40
    assert_same_run(tmp_path, tmp_path, run(tmp_path, **changes), result)


def test_fit_is_steered_by_the_merit_of_the_objective(tmp_path):
    inputs = tiny_task().train.inputs
    task = from_arrays(inputs, inputs.mean(axis=(1, 2)), objective=Regression(1), validation=0.3)
    result = run(tmp_path, task=task, model=tiny(num_outputs=1))
    scores = {
        line["step"]: line["validation/mse"]
        for line in result.history if "validation/mse" in line
    }
    assert result.best_step == min(scores, key=scores.get) and len(scores) == 4


def test_fit_calls_back_with_each_line_in_order():
    seen = []
    result = run(options={"callbacks": [seen.append]})
    assert seen == result.history


def test_fit_takes_an_optimizer_of_the_callers():
    kept = run(options={"optimizer": optax.set_to_zero()})
    start = create_state(TinySpiking(), tiny_task(), tiny_settings(), one_device())
    chex.assert_trees_all_equal(kept.state.params, start.params)
    moved = run(options={"optimizer": optax.sgd(0.1)})
    assert moved.history[-1]["train/loss"] < kept.history[-1]["train/loss"]


def test_a_finished_run_is_given_more_steps(tmp_path):
    constant = {"optimizer": OptimizerSettings(learning_rate=0.01, schedule="constant")}
    run(tmp_path / "grown", steps=24, **constant)
    grown, whole = run(tmp_path / "grown", **constant), run(tmp_path / "whole", **constant)
    assert_same_run(tmp_path / "grown", tmp_path / "whole", grown, whole)
    with pytest.raises(ValueError, match="training.steps is 40 there and 24 here"):
        run(tmp_path / "grown", steps=24, **constant)


def test_two_runs_never_share_a_folder(tmp_path):
    second = []

    def also(line):
        if not second:
            with pytest.raises(RuntimeError, match=f"process {os.getpid()} on host .*not ended"):
                run(tmp_path)
            second.append(line)

    run(tmp_path, options={"callbacks": [also]})
    assert second
    run(tmp_path)  # whoever has ended owns nothing


@pytest.mark.parametrize("kept", [True, False])
def test_ctrl_c_keeps_what_there_is_and_says_where(tmp_path, whole, capsys, request, kept):
    """Without a workdir the run goes on from the folder that is named."""
    # What a shell starts in the background ignores the signal.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, ignored))

    def interrupt(line):
        if line["step"] == 16:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="saved after step"):
        run(tmp_path if kept else None, options={"callbacks": [interrupt]})
    assert signal.getsignal(signal.SIGINT) is before
    said = capsys.readouterr().err
    folder = tmp_path if kept else pathlib.Path(re.search("workdir='(.*)'", said)[1])
    assert_same_run(folder, whole[0], run(folder), whole[1])
    if not kept:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("stray", "name"), [(os.mkfifo, "metrics.jsonl"), (os.mkdir, "metrics.jsonl"),
                        (os.mkfifo, "owner.json"), (os.mkdir, "owner.json")]
)
def test_what_stands_where_a_run_writes_is_set_aside(tmp_path, whole, stray, name):
    workdir = shutil.copytree(whole[0], tmp_path / "run")
    (workdir / name).unlink()
    stray(workdir / name)
    with pytest.warns(UserWarning, match=f"{name} stood where this run writes"):
        result = run(workdir)
    assert_same_run(workdir, whole[0], result, whole[1])
    assert (workdir / f"{name}.foreign-1").exists()


@pytest.mark.parametrize("name", ["lr=[1e-3]", "**", "a?b*"])
def test_fit_in_a_folder_of_any_name_goes_on(tmp_path, whole, name):
    run(tmp_path / name, steps=24, optimizer=tiny_settings().optimizer)
    assert os.listdir(tmp_path) == [name]
    loaded = load(
        TinySpiking(), tiny_task(), tiny_settings(steps=24), workdir=tmp_path / name,
        mesh=one_device(),
    )
    assert int(loaded.state.step) == 24


def test_home_is_a_persons_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run("~/runs/a", steps=4)
    assert os.listdir(tmp_path) == ["runs"]


@pytest.mark.parametrize(
    "place", [lambda path: path / "file" / "run", lambda path: path / "file"]
)
def test_fit_refuses_a_folder_that_cannot_be_before_the_first_step(tmp_path, place):
    (tmp_path / "file").write_text("")
    lines = []
    with pytest.raises(OSError, match="file"):
        run(place(tmp_path), options={"callbacks": [lines.append]})
    assert not lines


class Refusing(nn.Module):
    """Wrap the tiny model: one that cannot be run at a threshold."""

    @nn.compact
    def __call__(self, inputs, lengths=None, train=False, noise=None, **options):
        """Follow the call of the models of the zoo."""
        if noise is not None:
            raise ValueError("no threshold here")
        return TinySpiking(name="tiny")(inputs, lengths, train, noise, **options)


def test_fit_rehearses_all_that_comes_later(tmp_path):
    with pytest.raises(ValueError, match="no threshold here"):
        run(tmp_path / "run", model=Refusing())
    assert not (tmp_path / "run").exists()


def test_fit_works_under_the_callers_mesh_and_default_generator(whole):
    other = jax.make_mesh((2, 4), ("x", "y"))
    before = jax.config.jax_default_prng_impl
    jax.config.update("jax_default_prng_impl", "rbg")
    try:
        with jax.set_mesh(other):
            result = run()
    finally:
        jax.config.update("jax_default_prng_impl", before)
    assert timeless(result.history) == timeless(whole[1].history)
    chex.assert_trees_all_equal(result.variables, whole[1].variables)
