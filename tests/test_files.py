"""A run's own files: whole or as they were, no step twice, nobody else's folder."""

import errno
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from etils import epath
from tiny import TinySpiking, tiny, tiny_settings, tiny_task

from pspike_jax.functional.surrogates import boxcar
from pspike_jax.training import files, workdir
from pspike_jax.analysis.files import atomic_write, space_hint
from pspike_jax.training.files import MetricsLog, read_lines
from pspike_jax.training.workdir import check_workdir, claim_workdir, describe


@pytest.fixture
def full_disk(monkeypatch):
    """Make the next flush to disk fail as it does where no space is left."""

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "fsync", fail)


def test_atomic_write_leaves_the_old_file_on_a_full_disk(tmp_path, full_disk):
    path = tmp_path / "file"
    atomic_write(path, "old")
    full_disk()
    with pytest.raises(OSError, match=f"could not write {path}, is the disk full.: No space left"):
        atomic_write(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_metrics_log_keeps_floats_to_the_last_bit(tmp_path, rng):
    values = [*rng.normal(size=20), 1e-300, 0.1 + 0.2, float(np.float32(0.1))]
    log = MetricsLog(tmp_path / "metrics.jsonl", None)
    for step, value in enumerate(values, 1):
        log.write({"step": step, "train/loss": value})
    log.close()
    assert [line["train/loss"] for line in read_lines(tmp_path / "metrics.jsonl")] == values


def written(path, steps=5):
    lines = [json.dumps({"step": step, "train/loss": 1 / step}) for step in range(1, steps + 1)]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# What a kill, a disk or a hand may have made of the file by the time a run goes on.
@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes() + b'{"step": 6'),
        lambda path: path.write_bytes(path.read_bytes() + b"\x00\xff"),
        lambda path: os.truncate(path, 50),
        lambda path: path.write_bytes(path.read_bytes().replace(b"0.5", b"0.7")),
        lambda path: written(path, steps=9),
        os.remove,
    ],
)
def test_metrics_log_goes_back_to_the_lines_it_is_given(tmp_path, spoil):
    kept, path = written(tmp_path / "kept"), written(tmp_path / "metrics.jsonl")
    spoil(path)
    log = MetricsLog(path, kept)
    log.write({"step": 6, "train/loss": 0.0})
    log.close()
    assert path.read_text() == log.text() == kept.read_text() + '{"step": 6, "train/loss": 0.0}\n'


def test_metrics_log_of_a_new_run_begins_with_nothing(tmp_path):
    path = written(tmp_path / "metrics.jsonl")
    MetricsLog(path, None).close()
    assert path.read_text() == ""


def test_metrics_log_keeps_lines_for_a_storage_that_cannot_append(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "is_remote", lambda _: True)
    path = epath.Path(tmp_path / "metrics.jsonl")
    log = MetricsLog(path, written(epath.Path(tmp_path / "kept"), steps=1))
    log.write({"step": 2})
    assert path.read_bytes().count(b"\n") == 1 and log.text().count("\n") == 2
    log.flush()
    log.flush()
    assert [line["step"] for line in read_lines(path)] == [1, 2]


def test_metrics_log_of_another_process_writes_nothing(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", None, writes=False)
    log.write({"step": 1})
    log.flush()
    assert not list(tmp_path.iterdir()) and log.text() == ""


def test_metrics_log_says_that_the_disk_is_full(tmp_path, full_disk):
    log = MetricsLog(tmp_path / "metrics.jsonl", None)
    full_disk()
    message = "could not write .*metrics.jsonl, is the disk full.: No space left"
    with pytest.raises(OSError, match=message):
        log.write({"step": 1})
    log.close()


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense", b"[1]", b'{"loss": 1}', b'{"step": null}', b'{"step": 1e999}', b"\xff",
        b"[" * 10**5,
    ],
)
def test_read_lines_names_a_line_that_is_no_metrics(tmp_path, line):
    path = written(tmp_path / "metrics.jsonl", steps=2)
    path.write_bytes(line + b"\n" + path.read_bytes())
    with pytest.raises(ValueError, match="metrics.jsonl, line 1 is"):
        read_lines(path)


def test_read_lines_leaves_out_a_torn_line(tmp_path):
    path = written(tmp_path / "metrics.jsonl", steps=2)
    path.write_text(path.read_text() + '{"step": 3, "train/loss": 1.0}')
    assert [line["step"] for line in read_lines(path)] == [1, 2]


def description(model=None, config=None, **changes):
    return describe(model or TinySpiking(), tiny_task(), tiny_settings(**changes), config)


def test_claim_workdir_writes_config_versions_and_commit(tmp_path):
    claim_workdir(tmp_path / "run", description(config={"a": {"b": (1, None)}}))
    found = json.loads((tmp_path / "run" / "config.json").read_text())
    assert found["training"]["optimizer"]["learning_rate"] == 0.01
    assert found["model"]["class"] == "TinySpiking" and found["model"]["stochastic"] is True
    assert found["model"]["config"]["features"] == 8
    assert found["task"]["objective"]["class"] == "Classification"
    assert found["config"] == {"a": {"b": [1, None]}}
    assert set(found["versions"]) >= {"python", "jax", "flax", "optax"} and "commit" in found


def test_claim_workdir_accepts_its_own_run_again(tmp_path):
    claim_workdir(tmp_path, description())
    before = (tmp_path / "config.json").read_text()
    claim_workdir(tmp_path, description())
    assert (tmp_path / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 8}, "training.batch_size is 16 there and 8 here"),
        ({"model": tiny(features=4)}, "model.config.features is 8 there and 4 here"),
    ],
)
def test_claim_workdir_names_what_another_run_has_different(tmp_path, changes, message):
    claim_workdir(tmp_path, description())
    with pytest.raises(ValueError, match=f"belongs to another config; .*{message}"):
        claim_workdir(tmp_path, description(**changes))


def test_claim_workdir_refuses_a_folder_with_results_of_nobody(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="holds \\['checkpoints'\\] but no config.json"):
        claim_workdir(tmp_path, description())


def test_check_workdir_refuses_a_folder_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        check_workdir(tmp_path, description())
    assert not list(tmp_path.iterdir())


def test_check_workdir_refuses_a_damaged_description(tmp_path):
    (tmp_path / "config.json").write_text('{"model": ')
    with pytest.raises(ValueError, match="config.json is damaged"):
        check_workdir(tmp_path, description())


def test_describe_is_the_same_for_equal_models_of_another_process():
    # Functions print with their address, which no two processes share.
    of = lambda features: description(model=tiny(features=features)).tree["model"]["config"]
    assert of(boxcar)["features"] == "boxcar"
    assert of((1, [boxcar, object()]))["features"] == [1, ["boxcar", "<object object>"]]
    assert of(np.int64(3))["features"] == 3
    assert of(tiny().config)["features"]["class"] == "TinyConfig"


def test_check_workdir_lets_a_run_go_on_on_another_mesh(tmp_path):
    config = {"mesh": {"data": None, "fsdp": 1}, "task": {"name": "tiny"}}
    described = [
        describe(TinySpiking(), tiny_task(), tiny_settings(), config | change)
        for change in ({}, {"mesh": {"data": 2, "fsdp": 4}}, {"task": {"name": "other"}})
    ]
    claim_workdir(tmp_path, described[0])
    check_workdir(tmp_path, described[1])
    with pytest.raises(ValueError, match="config.task.name is 'tiny' there and 'other' here"):
        check_workdir(tmp_path, described[2])


def older(folder, forget):
    """Claim a folder, and take fields out of what it says, as an older version would have it."""
    claim_workdir(folder, description())
    path = folder / "config.json"
    found = json.loads(path.read_text())
    for section, name in forget:
        del found[section][name]
    path.write_text(json.dumps(found))


def test_a_field_that_is_new_has_its_default_in_an_older_folder(tmp_path):
    older(tmp_path, [("training", "early_stopping"), ("model", "stochastic")])
    claim_workdir(tmp_path, description())
    with pytest.raises(ValueError, match="training.early_stopping is not set there and 3 here"):
        check_workdir(tmp_path, description(early_stopping=3))
    with pytest.raises(ValueError, match="model.stochastic is not set there and False here"):
        check_workdir(tmp_path, description(model=TinySpiking(stochastic=False)))


def test_a_field_that_is_gone_does_not_lock_a_folder(tmp_path):
    claim_workdir(tmp_path, description(config={"old": 1, "nan": float("nan")}))
    check_workdir(tmp_path, description(config={"new": 2, "nan": float("nan")}))
    with pytest.raises(ValueError, match="config.nan is nan there and 1 here"):
        check_workdir(tmp_path, description(config={"nan": 1}))


def test_only_steps_may_grow_and_what_they_grew_to_is_kept(tmp_path):
    claim_workdir(tmp_path, description(steps=40))
    claim_workdir(tmp_path, description(steps=60))
    with pytest.raises(ValueError, match="training.steps is 60 there and 40 here"):
        claim_workdir(tmp_path, description(steps=40))


def test_source_commit_is_that_of_a_clone_of_this_project_alone(tmp_path, monkeypatch):
    """The package in a repository of somebody else's has no commit."""
    git = lambda *words: subprocess.run(
        ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=b", *words], check=True,
        capture_output=True,
    )
    copy = tmp_path / "vendored" / "pspike_jax" / "training" / "workdir.py"
    copy.parent.mkdir(parents=True)
    shutil.copy(workdir.__file__, copy)
    git("init")
    git("add", ".")
    git("commit", "-m", "theirs")
    monkeypatch.setattr(workdir, "__file__", str(copy))
    assert workdir.source_commit() is None
    mine = tmp_path / "pspike_jax" / "training" / "workdir.py"
    mine.parent.mkdir(parents=True)
    shutil.copy(copy, mine)
    record = tmp_path / "experiments" / "results" / "rows.json"
    record.parent.mkdir(parents=True)
    for file in (record, tmp_path / "setup.cfg"):
        file.write_text("")
    git("add", ".")
    git("commit", "-m", "a clone")
    monkeypatch.setattr(workdir, "__file__", str(mine))
    record.write_text("a row")  # what a command that asks for its commit just wrote
    assert re.fullmatch("[0-9a-f]{40}", workdir.source_commit())
    (tmp_path / "setup.cfg").write_text("changed")
    assert re.fullmatch("[0-9a-f]{40}-dirty", workdir.source_commit())


@pytest.mark.parametrize(
    ("number", "free", "hint"),
    [
        (errno.ENOSPC, 5, "is the disk full"), (errno.EDQUOT, 5, "is the disk full"),
        (errno.ENOSPC, 0, "inodes used up"), (errno.EACCES, 0, None),
    ],
)
def test_a_full_disk_is_asked_for_only_where_it_is(tmp_path, monkeypatch, number, free, hint):
    monkeypatch.setattr(os, "statvfs", lambda _: types.SimpleNamespace(f_favail=free))
    for error in (OSError(number, os.strerror(number)), ValueError(os.strerror(number))):
        found = space_hint(error, tmp_path / "a" / "b")
        assert found == "" if hint is None else hint in found


def test_metrics_log_gives_no_torn_line_to_a_checkpoint(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", None)
    log.write({"step": 1})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 2')
    assert log.text() == '{"step": 1}\n'
    log.close()


def test_settings_take_numbers_of_numpy():
    settings = tiny_settings(steps=np.int64(7), firing_rate_weight=np.float32(0.5))
    assert type(settings.steps) is int and type(settings.firing_rate_weight) is float
    assert settings == tiny_settings(steps=7, firing_rate_weight=0.5)


PROGRAM = """
import sys, time
from pspike_jax.training.lock import owned
with owned(sys.argv[1]):
    print("mine", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_folder_has_one_owner_and_a_dead_one_is_taken_over(tmp_path):
    """Of processes that start together one owns the folder; killed, it leaves it to the next."""
    begin = lambda seconds: subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(seconds)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"JAX_PLATFORMS": "cpu"},
        cwd=pathlib.Path(__file__).parents[1],
    )
    several = [begin(60) for _ in range(2)]
    while all(process.poll() is None for process in several):
        time.sleep(0.05)
    loser = next(process for process in several if process.poll() is not None)
    winner = next(process for process in several if process is not loser)
    assert f"belongs to process {winner.pid} on host" in loser.communicate()[1]
    winner.kill()
    assert winner.communicate()[0] == "mine\n"
    after = begin(0)
    assert after.communicate()[0] == "mine\n" and after.returncode == 0
