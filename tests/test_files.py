"""A run's own files: whole or as they were, no step twice, nobody else's folder."""

import errno
import json
import os

import numpy as np
import pytest
from etils import epath
from tiny import TinySpiking, tiny_settings, tiny_task

import pspike_jax
from pspike_jax.functional.surrogates import boxcar
from pspike_jax.training import files
from pspike_jax.training.files import MetricsLog, read_lines, write_whole
from pspike_jax.training.workdir import check_workdir, claim_workdir, describe


@pytest.fixture
def full_disk(monkeypatch):
    """Make the next flush to disk fail as it does where no space is left."""

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "fsync", fail)


def test_write_whole_leaves_the_old_file_on_a_full_disk(tmp_path, full_disk):
    path = tmp_path / "file"
    write_whole(path, "old")
    full_disk()
    with pytest.raises(OSError, match=f"could not write {path}: No space left"):
        write_whole(path, "new")
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
    with pytest.raises(OSError, match="could not write .*metrics.jsonl: No space left"):
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
    assert found["model"] == {"class": "TinySpiking", "num_classes": 3, "features": 8}
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
        ({"model": TinySpiking(features=4)}, "model.features is 8 there and 4 here"),
        ({"config": {"task": {"seed": 1}}}, "config.task.seed is 'not set' there and 1 here"),
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
    plain = description(model=TinySpiking(features=boxcar))["model"]["features"]
    assert plain == "boxcar"
    nested = description(model=TinySpiking(features=(1, [boxcar, object()])))["model"]["features"]
    assert nested == [1, ["boxcar", "<object object>"]]
    neuron = pspike_jax.create_model("silif").neuron
    assert description(model=TinySpiking(features=neuron))["model"]["features"]["class"]


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
