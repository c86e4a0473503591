"""Packed rows against a plain loop: every example once, whole, with its own targets and ids."""

import numpy as np
import pytest

from pspike_jax import data
from pspike_jax.data import Split
from pspike_jax.objectives import Classification, NextToken

N, LONGEST, ROW = 60, 9, 20


def make_split(rng, kind):
    lengths = rng.integers(1, LONGEST + 1, N).astype(np.int32)
    targets = {
        "classes": rng.integers(0, 3, N),
        "numbers": rng.normal(size=(N, 2)),
        "steps": rng.integers(-1, 3, (N, LONGEST)),
        "none": None,
    }[kind]
    if kind == "none":
        return Split(rng.integers(0, 7, (N, LONGEST)), lengths, None)
    return Split(rng.normal(size=(N, LONGEST, 2)), lengths, targets, rng.random((N, LONGEST)))


def unpack(batches):
    """Cut rows at their resets, in a plain loop: {id: (inputs, targets, dt) of its steps}."""
    found = {}
    for batch in batches:
        for row, used in enumerate(batch["lengths"]):
            starts = np.flatnonzero(batch["resets"][row])
            if not used:  # a filler
                assert not starts.size
                continue
            assert starts[0] == 0
            for start, stop in zip(starts, [*starts[1:], used]):
                number = int(batch["ids"][row, start])
                assert number not in found and np.all(batch["ids"][row, start:stop] == number)
                found[number] = {
                    name: batch[name][row, start:stop]
                    for name in ("inputs", "targets", "dt") if name in batch
                }
            assert not batch["inputs"][row, used:].any() and not batch["ids"][row, used:].any()
    return found


@pytest.mark.parametrize("kind", ["classes", "numbers", "steps", "none"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_example_is_in_one_row_whole(rng, kind, batch_size):
    split = make_split(rng, kind)
    packed = data.pack(split, ROW, per_step=kind in ("steps", "none"), seed=1)
    found = unpack(data.eval_batches(packed, batch_size))
    assert sorted(found) == list(range(N))
    for number, one in found.items():
        length = split.lengths[number]
        np.testing.assert_array_equal(one["inputs"], np.float32(split.inputs[number, :length]))
        if kind == "none":
            assert "targets" not in one
            continue
        np.testing.assert_array_equal(one["dt"], np.float32(split.dt[number, :length]))
        if kind == "steps":
            np.testing.assert_array_equal(one["targets"], split.targets[number, :length])
            continue
        *before, last = one["targets"]
        np.testing.assert_array_equal(last, np.asarray(split.targets[number], last.dtype))
        missing = np.isnan(before) if kind == "numbers" else np.asarray(before) == -1
        assert np.all(missing)


def test_fillers_hold_nothing(rng):
    packed = data.pack(make_split(rng, "classes"), ROW)
    size = len(packed) + 3
    (batch,) = data.eval_batches(packed, size)
    assert np.all(batch["lengths"][-3:] == 0) and not batch["resets"][-3:].any()
    assert np.all(batch["targets"][-3:] == -1)


def test_packing_wastes_little(rng):
    split = make_split(rng, "classes")
    packed = data.pack(split, ROW)
    needed = -(-int(split.lengths.sum()) // ROW)
    # The longest first, each where it fits best, needs at most 11/9 of the least rows, plus one.
    assert len(packed) <= 11 / 9 * needed + 1


def test_training_batches_follow_from_seed_and_step(rng):
    packed = data.pack(make_split(rng, "classes"), ROW)
    steps = len(packed) // 3
    made = [data.train_batch(packed, seed=2, step=step, batch_size=3) for step in range(2 * steps)]
    again = data.train_batch(packed, seed=2, step=steps + 1, batch_size=3)
    for name, array in made[steps + 1].items():
        np.testing.assert_array_equal(array, again[name])
    for epoch in (made[:steps], made[steps:]):
        unpack(epoch)  # no example twice
    part = data.train_batch(packed, seed=2, step=1, batch_size=3, part=np.array([2, 0]))
    np.testing.assert_array_equal(part["ids"], made[1]["ids"][[2, 0]])


def test_pack_refuses_what_does_not_fit(rng):
    split = make_split(rng, "classes")
    with pytest.raises(ValueError, match=r"example \d+ has 9 steps, expected at most 8"):
        data.pack(split, 8)
    pairs = Split(np.zeros((2, 2, 4), int), np.full((2, 2), 4), np.zeros(2, int))
    with pytest.raises(ValueError, match="pairs of documents cannot be packed"):
        data.pack(pairs, 8)


def test_a_task_may_train_on_packed_rows_and_select_on_separate_ones(rng):
    split = make_split(rng, "classes")
    packed = data.pack(split, ROW)
    task = data.Task("t", packed, split, None, Classification(3))
    assert task.model_fields == {"num_outputs": 3, "vocab_size": None}
    assert repr(task).startswith(f"Task('t', train {len(packed)}, validation 60")
    bad = data.pack(split._replace(targets=split.targets + 1), ROW)
    with pytest.raises(ValueError, match="train: targets.* is 3, expected 0 to 2"):
        data.Task("t", bad, split, None, Classification(3))
    tokens = make_split(rng, "none")
    with pytest.raises(ValueError, match="train: packed with per_step=False"):
        data.Task("t", data.pack(tokens, ROW), tokens, None, NextToken(7), 7)
