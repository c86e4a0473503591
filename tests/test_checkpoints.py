"""Checkpoints: every bit comes back, and what is not whole is never taken for whole."""

import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from tiny import TinySpiking, one_device, tiny_settings, tiny_task

from pspike_jax.training import create_state, make_mesh
from pspike_jax.training.checkpoints import Checkpoints
from pspike_jax.training.state import abstract_state


@pytest.fixture(scope="module")
def state():
    return create_state(TinySpiking(), tiny_task(), tiny_settings(), one_device())


def at(state, step):
    """Return a state of another step, with other parameters."""
    params = jax.tree.map(lambda x: x + step, state.params)
    return state.replace(step=jnp.int32(step), params=params)


def score(accuracy, loss=1.0):
    return {"accuracy": accuracy, "loss": loss}


def save(checkpoints, state, scores, window=None):
    """Save, and wait until all of it is written."""
    checkpoints.save(state, scores, f"lines up to step {int(state.step)}\n", window)
    checkpoints.wait()


def latest(checkpoints, like):
    """Return the newest state."""
    return checkpoints.restore_latest(like).state


def steps_on_disk(checkpoints):
    return sorted(int(path.name) for path in checkpoints.directory.iterdir())


def assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def test_restore_latest_gives_back_every_bit(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    odd = jax.tree.map(lambda x: jnp.nextafter(x, 2) / 3, state.params)
    saved = at(state, 7).replace(params=odd, key=jax.random.key(99))
    save(checkpoints, saved, None)
    like = abstract_state(TinySpiking(), tiny_task(), tiny_settings(), one_device())
    restored, log, _ = checkpoints.restore_latest(like)
    assert log.read_text() == "lines up to step 7\n"
    assert_same(restored, saved)
    # What was restored can be restored into: shardings came back too.
    assert_same(latest(checkpoints, restored), saved)


def test_restore_latest_onto_another_mesh(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    save(checkpoints, at(state, 7), None)
    mesh = make_mesh(data=2, fsdp=4)
    like = abstract_state(TinySpiking(), tiny_task(), tiny_settings(), mesh)
    restored = latest(checkpoints, like)
    jax.tree.map(np.testing.assert_array_equal, restored.params, at(state, 7).params)
    found, wanted = (tree.params["encoder"]["kernel"].sharding for tree in (restored, like))
    assert found == wanted


def test_restore_latest_of_nothing_is_none(tmp_path, state):
    assert Checkpoints(tmp_path / "c", keep=2, keep_best=1).restore_latest(state) is None


def test_save_keeps_the_newest_and_the_best(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    scores = {1: score(0.5), 2: score(0.9), 3: None, 4: score(0.9, 1.5), 5: score(0.2), 6: None}
    for step, one in scores.items():
        save(checkpoints, at(state, step), one)
    assert steps_on_disk(checkpoints) == [2, 5, 6]
    assert int(checkpoints.restore_best(state).step) == 2
    assert int(latest(checkpoints, state).step) == 6


def test_save_keeps_as_many_of_the_best_as_asked(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=1, keep_best=2)
    for step, accuracy in enumerate((0.5, 0.9, 0.7, 0.6, 0.1), 1):
        save(checkpoints, at(state, step), score(accuracy))
    assert steps_on_disk(checkpoints) == [2, 3, 5]


def test_save_of_an_unfinished_step_gives_back_its_sums(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    window = {"loss": {"sum": np.float64(0.1) + 0.2, "flags": np.array([1 / 3, 2.0])}}
    save(checkpoints, at(state, 3), None, window)
    restored = checkpoints.restore_latest(state)
    jax.tree.map(np.testing.assert_array_equal, restored.window, window)
    assert int(restored.state.step) == 3


def test_save_of_a_finished_step_takes_the_place_of_the_unfinished(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    window = {"loss": {"sum": np.float64(1.0)}}
    save(checkpoints, at(state, 3), None, window)
    save(checkpoints, at(state, 3), score(0.5))
    assert checkpoints.restore_latest(state).window is None
    assert steps_on_disk(checkpoints) == [3]


def test_restore_best_takes_the_lowest_loss_among_equals(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=3, keep_best=1)
    for step, loss in ((1, 1.0), (2, 0.5), (3, 0.7)):
        save(checkpoints, at(state, step), score(0.5, loss))
    assert int(checkpoints.restore_best(state).step) == 2


def test_restore_best_needs_a_validated_checkpoint(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    save(checkpoints, at(state, 1), None)
    with pytest.raises(FileNotFoundError, match="no whole checkpoint with validation scores"):
        checkpoints.restore_best(state)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip, os.remove])
def test_restore_latest_skips_a_damaged_checkpoint(tmp_path, state, damage):
    pristine = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    save(pristine, at(state, 1), score(0.9))
    save(pristine, at(state, 2), score(0.8))
    names = [path.relative_to(tmp_path / "c") for path in files_of(tmp_path / "c" / "00000002")]
    for name in names:
        if damage is not os.remove and not (tmp_path / "c" / name).stat().st_size:
            continue  # nothing to cut or to flip in an empty file
        shutil.copytree(tmp_path / "c", tmp_path / "damaged")
        damage(tmp_path / "damaged" / name)
        with pytest.warns(UserWarning, match="skipped the checkpoint of step 2"):
            damaged = Checkpoints(tmp_path / "damaged", keep=2, keep_best=1)
            restored = latest(damaged, state)
        assert int(restored.step) == 1, name
        shutil.rmtree(tmp_path / "damaged")


def edit(seal, before, after):
    assert before in seal.read_text()
    seal.write_text(seal.read_text().replace(before, after))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: edit(folder / "seal.json", '"accuracy": 0.8', '"accuracy": 0.9'),
        lambda folder: edit(folder / "seal.json", '"window": null', '"window": {}'),
        lambda folder: (folder / "seal.json").write_text("[" * 10**5),
        lambda folder: (folder / "seal.json").write_bytes(b"\xff"),
        lambda folder: (folder / "metrics.jsonl").write_text("other lines\n"),
        lambda folder: shutil.copy(folder.with_name("00000001") / "seal.json", folder),
    ],
)
def test_restore_latest_skips_what_its_seal_does_not_say(tmp_path, state, damage):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    save(checkpoints, at(state, 1), score(0.7))
    save(checkpoints, at(state, 2), score(0.8))
    damage(tmp_path / "c" / "00000002")
    with pytest.warns(UserWarning, match="skipped the checkpoint of step 2"):
        assert int(latest(checkpoints, state).step) == 1


def test_restore_latest_refuses_a_state_of_other_shapes(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    save(checkpoints, state, None)
    like = abstract_state(TinySpiking(features=4), tiny_task(), tiny_settings(), one_device())
    with pytest.raises(ValueError, match="00000000 does not hold such a state: ") as raised:
        checkpoints.restore_latest(like)
    for name in ("params/encoder/kernel", "params/norm/scale", "batch_stats/norm/mean"):
        assert f"{name} has shape" in str(raised.value)


def test_restore_latest_skips_a_save_that_was_cut_short(tmp_path, state, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    save(checkpoints, at(state, 1), None)

    def killed(path, tree):
        path.mkdir()
        (path / "part").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ocp, "save_async", killed)
        save(checkpoints, at(state, 2), None)
    with pytest.warns(UserWarning, match="step 2: it was cut short"):
        assert int(latest(checkpoints, state).step) == 1
    save(checkpoints, at(state, 2), None)
    assert int(latest(checkpoints, state).step) == 2


def test_save_on_a_full_disk_names_it_and_keeps_what_was_whole(tmp_path, state, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    save(checkpoints, at(state, 1), None)

    def full(path, tree):
        path.mkdir()
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    message = r"disk full.*Whole checkpoints: \[1\].*No space"
    with monkeypatch.context() as patch, pytest.raises(OSError, match=message):
        patch.setattr(ocp, "save_async", full)
        save(checkpoints, at(state, 2), None)
    assert steps_on_disk(checkpoints) == [1]
    assert int(latest(checkpoints, state).step) == 1


def test_check_raises_what_went_wrong_while_steps_went_on(tmp_path, state, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    save(checkpoints, at(state, 1), None)
    written = threading.Event()

    class Response:
        def result(self):
            written.wait(60)
            raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    monkeypatch.setattr(ocp, "save_async", lambda path, tree: Response())
    checkpoints.save(at(state, 2), None, "")
    checkpoints.check()  # still being written
    written.set()
    with pytest.raises(OSError, match=r"step 2 .*Whole checkpoints: \[1\].*No space"):
        while True:
            checkpoints.check()
    assert steps_on_disk(checkpoints) == [1]


def test_removal_that_was_cut_short_leaves_no_checkpoint(tmp_path, state, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c", keep=1, keep_best=1)
    save(checkpoints, at(state, 1), None)

    def killed(folder, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        save(checkpoints, at(state, 2), None)
    assert steps_on_disk(checkpoints) == [1, 2]
    assert int(latest(checkpoints, state).step) == 2
    save(checkpoints, at(state, 3), None)
    assert steps_on_disk(checkpoints) == [3]
