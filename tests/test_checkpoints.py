"""Checkpoints: every bit comes back, and what is not whole is never taken for whole."""

import contextlib
import os
import shutil
import threading
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from tiny import TinySpiking, one_device, tiny, tiny_settings, tiny_task

from pspike_jax.training import create_state, make_mesh
from pspike_jax.training.checkpoints import Checkpoints
from pspike_jax.training.creation import state_shapes


@pytest.fixture(scope="module")
def state():
    return create_state(TinySpiking(), tiny_task(), tiny_settings(), one_device())


def at(state, step):
    """Return a state of another step, with other parameters."""
    params = jax.tree.map(lambda x: x + step, state.params)
    return state.replace(step=jnp.int32(step), params=params)


def score(accuracy, loss=1.0):
    return {"accuracy": accuracy, "loss": loss}


def save(checkpoints, state, scores, sums=None):
    """Save, and wait until all of it is written."""
    checkpoints.save(state, scores, f"lines up to step {int(state.step)}\n", sums)
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
    like = state_shapes(TinySpiking(), tiny_task(), tiny_settings(), one_device())
    restored, log, _ = checkpoints.restore_latest(like)
    assert log.read_text() == "lines up to step 7\n"
    restored = restored.replace(rates=saved.rates)  # they follow from settings
    assert_same(restored, saved)
    # What was restored can be restored into: shardings came back too.
    assert_same(latest(checkpoints, restored), saved)


def test_restore_latest_onto_another_mesh(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    save(checkpoints, at(state, 7), None)
    mesh = make_mesh(data=2, fsdp=4)
    like = state_shapes(TinySpiking(), tiny_task(), tiny_settings(), mesh)
    restored = latest(checkpoints, like)
    chex.assert_trees_all_equal(restored.params, at(state, 7).params)
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


def test_save_keeps_the_lowest_where_the_merit_is_to_be_low(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=1, keep_best=1, merit=("mse", "min"))
    for step, mse in ((1, 0.5), (2, 0.1), (3, 0.3)):
        save(checkpoints, at(state, step), {"mse": mse, "loss": -mse})
    assert int(checkpoints.restore_best(state).step) == 2


def test_save_keeps_as_many_of_the_best_as_asked(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=1, keep_best=2)
    for step, accuracy in enumerate((0.5, 0.9, 0.7, 0.6, 0.1), 1):
        save(checkpoints, at(state, step), score(accuracy))
    assert steps_on_disk(checkpoints) == [2, 3, 5]


def test_save_of_an_unfinished_step_gives_back_its_sums(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    sums = {"loss": {"sum": np.float64(0.1) + 0.2, "flags": np.array([1 / 3, 2.0])}}
    save(checkpoints, at(state, 3), None, sums)
    restored = checkpoints.restore_latest(state)
    chex.assert_trees_all_equal(restored.sums, sums)
    assert int(restored.state.step) == 3


def test_save_of_a_finished_step_takes_the_place_of_the_unfinished(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    sums = {"loss": {"sum": np.float64(1.0)}}
    save(checkpoints, at(state, 3), None, sums)
    save(checkpoints, at(state, 3), score(0.5))
    assert checkpoints.restore_latest(state).sums is None
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


def edit(path, before, after):
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: edit(folder / "manifest.json", '"accuracy": 0.8', '"accuracy": 0.9'),
        lambda folder: edit(folder / "manifest.json", '"sums": null', '"sums": {}'),
        lambda folder: (folder / "manifest.json").write_text("[" * 10**5),
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff"),
        lambda folder: (folder / "metrics.jsonl").write_text("other lines\n"),
        lambda folder: shutil.copy(folder.with_name("00000001") / "manifest.json", folder),
    ],
)
def test_restore_latest_skips_what_its_manifest_does_not_say(tmp_path, state, damage):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    save(checkpoints, at(state, 1), score(0.7))
    save(checkpoints, at(state, 2), score(0.8))
    damage(tmp_path / "c" / "00000002")
    with pytest.warns(UserWarning, match="skipped the checkpoint of step 2"):
        assert int(latest(checkpoints, state).step) == 1


def test_restore_latest_refuses_a_state_of_other_shapes(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    save(checkpoints, state, None)
    like = state_shapes(tiny(features=4), tiny_task(), tiny_settings(), one_device())
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
    broken = r"00000002\. Whole checkpoints"  # another error is no full disk
    with monkeypatch.context() as patch, pytest.raises(OSError, match=broken):
        patch.setattr(ocp, "save_async", lambda *_: open(tmp_path / "none" / "such"))
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


STRAYS = {
    "a file": lambda path, outside: path.write_text("of somebody else"),
    "a link to a folder": lambda path, outside: path.symlink_to(outside),
    "a link to nothing": lambda path, outside: path.symlink_to(outside / "nothing"),
    "a pipe": lambda path, outside: os.mkfifo(path),
    "a folder": lambda path, outside: (path / "state").mkdir(parents=True),
}


@pytest.mark.parametrize("name", ["00000003", "00000002", "00000003-unfinished", "notes"])
@pytest.mark.parametrize("kind", STRAYS)
def test_what_is_no_checkpoint_is_passed_over_and_nothing_outside_is_touched(
    tmp_path, state, kind, name
):
    checkpoints = Checkpoints(tmp_path / "c", keep=1, keep_best=1)
    save(checkpoints, at(state, 1), score(0.9))
    outside = tmp_path / "outside"
    save(Checkpoints(outside, keep=1, keep_best=1), at(state, 3), score(0.9))
    shutil.copytree(outside / "00000003", outside, dirs_exist_ok=True)  # a link to a whole one
    before = sorted(outside.rglob("*"))
    STRAYS[kind](tmp_path / "c" / name, outside)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert int(latest(checkpoints, state).step) == 1
        for step in (2, 3):
            save(checkpoints, at(state, step), score(0.1))
    assert any(name in str(one.message) for one in said) or name == "notes"
    assert int(latest(checkpoints, state).step) == 3
    assert sorted(outside.rglob("*")) == before


@pytest.mark.parametrize("where", ["state", "manifest.json", "metrics.jsonl"])
def test_a_link_inside_a_checkpoint_is_damage(tmp_path, state, where):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    for step in (1, 2):
        save(checkpoints, at(state, step), score(0.5))
    place = tmp_path / "c" / "00000002" / where
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    with pytest.warns(UserWarning, match="skipped the checkpoint of step 2"):
        assert int(latest(checkpoints, state).step) == 1


@pytest.mark.parametrize("name", ["lr=[1e-3]", "**", "what?", "a b", "{x}", "%20", "\u00fc\n"])
def test_checkpoints_of_any_path_can_be_read(tmp_path, state, name):
    checkpoints = Checkpoints(tmp_path / name / "c", keep=2, keep_best=1)
    checkpoints.prove()
    save(checkpoints, at(state, 1), score(0.5))
    checkpoints.close()
    again = Checkpoints(tmp_path / name / "c", keep=2, keep_best=1)
    with contextlib.closing(again):
        assert int(latest(again, state).step) == 1
    assert steps_on_disk(again) == [1] and os.listdir(tmp_path) == [name]


def test_prove_refuses_a_place_that_holds_no_folder(tmp_path):
    (tmp_path / "c").write_text("")
    with pytest.raises(OSError, match="checkpoints cannot be kept in .*/c: "):
        Checkpoints(tmp_path / "c", keep=2, keep_best=1).prove()


def test_a_checkpoint_that_cannot_be_read_back_is_never_whole(tmp_path, state, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)

    def fail(*_):
        raise ValueError("NOT_FOUND")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="step 1 .*none. NOT_FOUND"):
        patch.setattr(ocp, "load", fail)
        save(checkpoints, at(state, 1), None)
    assert steps_on_disk(checkpoints) == []


def test_a_whole_checkpoint_that_orbax_cannot_read_gives_way_to_an_older_one(
    tmp_path, state, monkeypatch
):
    checkpoints = Checkpoints(tmp_path / "c", keep=2, keep_best=1)
    for step in (1, 2):
        save(checkpoints, at(state, step), None)
    load = ocp.load

    def fail(path, *rest):
        if "00000002" in str(path):
            raise RuntimeError("a bug")
        return load(path, *rest)

    monkeypatch.setattr(ocp, "load", fail)
    with pytest.warns(UserWarning, match="skipped the checkpoint of step 2: .*a bug"):
        assert int(latest(checkpoints, state).step) == 1
