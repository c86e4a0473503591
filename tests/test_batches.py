"""Batches: pure functions of (seed, step), every example once, bad arrays refused by name."""

import numpy as np
import pytest

from pspike_jax import data
from pspike_jax.data import Split, Task
from pspike_jax.objectives import Classification, NextToken, Regression, StepRegression


def make_split(n=10, length=5, features=2):
    inputs = np.arange(n * length * features, dtype=np.float32).reshape(n, length, features)
    return Split(inputs, np.full(n, length), np.arange(n) % 3)


def make_tokens(n=10, length=5):
    return Split(np.arange(n * length).reshape(n, length) % 7, np.full(n, length), np.arange(n) % 3)


def check(split, vocab_size=None):
    data.check_split(
        split, where="here", objective=Classification(3), vocab_size=vocab_size
    )


def test_train_rows_cover_each_epoch_without_repeats():
    rows = [data.train_rows(11, seed=3, step=step, batch_size=4) for step in range(4)]
    for epoch in (rows[:2], rows[2:]):
        assert len(set(np.concatenate(epoch))) == 8
    assert not np.array_equal(np.concatenate(rows[:2]), np.concatenate(rows[2:]))


def test_train_rows_follow_from_the_arguments_alone():
    forward = [data.train_rows(50, seed=1, step=step, batch_size=7) for step in range(30)]
    backward = [data.train_rows(50, seed=1, step=step, batch_size=7) for step in range(29, -1, -1)]
    np.testing.assert_array_equal(forward, backward[::-1])


def test_train_rows_depend_on_the_seed():
    first, second = (data.train_rows(50, seed=seed, step=0, batch_size=50) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_train_rows_are_uniform_over_positions():
    # The first row of 4,000 epochs of 5 examples: chi-squared with 4 degrees of freedom exceeds
    # 33.4 with probability 1e-6; a bias of 4 points in one cell would give about 40.
    first = [data.train_rows(5, seed=9, step=epoch, batch_size=5)[0] for epoch in range(4000)]
    counts = np.bincount(first, minlength=5)
    assert np.sum((counts - 800) ** 2 / 800) < 33.4


def test_train_batch_holds_the_rows_it_names():
    split = make_split()
    batch = data.train_batch(split, seed=0, step=3, batch_size=4)
    rows = data.train_rows(10, seed=0, step=3, batch_size=4)
    np.testing.assert_array_equal(batch["inputs"], split.inputs[rows])
    np.testing.assert_array_equal(batch["targets"], split.targets[rows])
    assert [batch[name].dtype for name in batch] == [np.float32, np.int32, np.int32]


@pytest.mark.parametrize("batch_size", [0, 11])
def test_train_batch_refuses_a_batch_that_does_not_fit(batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}, expected 1 to 10"):
        data.train_batch(make_split(), seed=0, step=0, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 10, 16])
def test_eval_batches_hold_every_example_once_in_order(batch_size):
    split = make_split()
    batches = list(data.eval_batches(split, batch_size))
    targets = np.concatenate([batch["targets"] for batch in batches])
    lengths = np.concatenate([batch["lengths"] for batch in batches])
    inputs = np.concatenate([batch["inputs"] for batch in batches])
    np.testing.assert_array_equal(targets[:10], split.targets)
    np.testing.assert_array_equal(inputs[:10], split.inputs)
    assert np.all(targets[10:] == -1) and len(targets) == -(-10 // batch_size) * batch_size
    assert np.all(lengths[:10] == 5) and np.all(lengths[10:] == 0)
    assert np.all(split.targets >= 0) and np.all(split.lengths == 5), "the split must not change"


def test_batches_read_a_memory_map(tmp_path):
    split = make_split()
    split.inputs.tofile(tmp_path / "inputs")
    stored = np.memmap(tmp_path / "inputs", np.float32, "r", shape=(10, 5, 2))
    mapped = split._replace(inputs=stored)
    check(mapped)
    for ours, theirs in zip(data.eval_batches(mapped, 4), data.eval_batches(split, 4)):
        np.testing.assert_array_equal(ours["inputs"], theirs["inputs"])


def changed(split, field, place, value):
    array = getattr(split, field).copy()
    array[place] = value
    return split._replace(**{field: array})


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (changed(make_split(), "inputs", (3, 2, 1), np.nan), r"inputs\[3, 2, 1\] is nan"),
        (changed(make_split(), "inputs", (9, 0, 0), -np.inf), r"inputs\[9, 0, 0\] is -inf"),
        (changed(make_split(), "lengths", 4, 0), r"lengths\[4\] is 0, expected 1 to 5"),
        (changed(make_split(), "lengths", 4, 6), r"lengths\[4\] is 6, expected 1 to 5"),
        (changed(make_split(), "targets", 2, 3), r"targets\[2\] is 3, expected 0 to 2"),
        (changed(make_split(), "targets", 2, -1), r"targets\[2\] is -1, expected 0 to 2"),
        (make_split()._replace(inputs=np.ones((10, 5), np.float32)), r"expected \(n, L, F\)"),
        (make_split()._replace(targets=np.zeros(9, int)), "do not agree"),
        (make_split()._replace(inputs=np.ones((10, 0, 2), np.float32)), "expected no empty axis"),
    ],
)
def test_check_split_names_a_wrong_value(split, message):
    with pytest.raises(ValueError, match=message):
        check(split)


@pytest.mark.parametrize(
    ("split", "vocab_size", "message"),
    [
        (make_split()._replace(inputs=np.ones((10, 5, 2), complex)), None, "complex128, expected"),
        (make_split()._replace(inputs=np.full((10, 5, 2), "a")), None, "<U1, expected real"),
        (make_tokens(), None, "inputs are int64 .*tokens need vocab_size"),
        (make_split()._replace(inputs=np.ma.ones((10, 5, 2))), None, "inputs: a masked array"),
        (make_split()._replace(targets=np.ma.zeros(10, int)), None, "targets: a masked array"),
        (None, None, "None in place of a Split"),
        (tuple(make_split()), None, "a tuple in place of a Split"),
        (make_split()._replace(targets=None), None, "targets are None"),
        (make_split(), 7, "inputs are float32, expected integers"),
        (make_split()._replace(targets=np.zeros(10)), None, "targets are float64, expected int"),
        (make_split()._replace(lengths=[5] * 10), None, "lengths are a list, expected"),
    ],
)
def test_check_split_names_a_wrong_type(split, vocab_size, message):
    with pytest.raises(TypeError, match=message):
        check(split, vocab_size)


@pytest.mark.parametrize("token", [-1, 7])
def test_check_split_refuses_tokens_outside_the_vocabulary(token):
    check(make_tokens(), vocab_size=7)
    with pytest.raises(ValueError, match=rf"\[4, 1\] is {token}, expected 0 to 6"):
        check(changed(make_tokens(), "inputs", (4, 1), token), vocab_size=7)


def test_check_split_looks_past_the_first_piece(monkeypatch):
    monkeypatch.setattr(data.split, "CHECKED_BYTES", 1)
    with pytest.raises(ValueError, match=r"inputs\[9, 4, 1\] is nan"):
        check(changed(make_split(), "inputs", (9, 4, 1), np.nan))


def test_check_split_takes_pairs_of_documents():
    inputs = np.zeros((6, 2, 9), np.int32)
    lengths = np.full((6, 2), 9)
    pairs = Split(inputs, lengths, np.zeros(6, int))
    check(pairs, vocab_size=5)
    with pytest.raises(ValueError, match=r"lengths\[2, 1\] is 10, expected 1 to 9"):
        check(changed(pairs, "lengths", (2, 1), 10), vocab_size=5)


def test_task_refuses_splits_of_different_lengths():
    with pytest.raises(ValueError, match=r"shape \(6, 2\), expected \(5, 2\)"):
        Task("t", make_split(), make_split(length=6), None, Classification(3))


def test_task_names_what_is_missing():
    with pytest.raises(TypeError, match="task 't': train is None"):
        Task("t", None, make_split(), None, Classification(3))
    with pytest.raises(TypeError, match="objective is 3, expected one of pspike_jax.objectives"):
        Task("t", make_split(), None, None, 3)
    with pytest.raises(ValueError, match="vocab_size is 7, of its objective 8"):
        Task("t", make_tokens()._replace(targets=None), None, None, NextToken(8), 7)
    task = Task("t", make_split(), None, None, Classification(3))
    with pytest.raises(ValueError, match="'t' has no split 'test', only train"):
        task.split("test")
    assert task.split("train") is task.train


def test_task_and_split_have_a_short_repr():
    task = Task("t", make_split(1000), make_split(20), None, Classification(3))
    expected = "Task('t', train 1,000, validation 20, inputs float32 (5, 2), Classification)"
    assert repr(task) == expected
    split = repr(task.validation)
    assert split == "Split(inputs float32 (20, 5, 2), lengths int64 (20,), targets int64 (20,))"


def test_model_fields_say_what_a_model_needs():
    def fields(split, objective, vocab_size=None):
        return Task("t", split, None, None, objective, vocab_size).model_fields

    split, steps = make_split(), np.zeros((10, 5, 2), np.float32)
    assert fields(split, Classification(3)) == {"num_outputs": 3, "vocab_size": None}
    tokens = make_tokens()._replace(targets=None)
    expected = {"num_outputs": 7, "vocab_size": 7, "pool": "none"}
    assert fields(tokens, NextToken(7), 7) == expected
    expected = {"num_outputs": 2, "vocab_size": None, "pool": "none"}
    assert fields(split._replace(targets=steps), StepRegression(2)) == expected
    pairs = Split(np.zeros((6, 2, 9), int), np.full((6, 2), 9), np.zeros(6, int))
    assert fields(pairs, Classification(2), 5)["documents"] == 2


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f2", "?", "u1", ">i2"])
def test_batches_are_native_float32_whatever_numbers_are_stored(dtype):
    split = make_split()
    stored = (split.inputs % 2).astype(dtype)
    swapped = Split(stored, split.lengths.astype(">i4"), split.targets.astype(">i8"))
    check(swapped)
    batch = data.train_batch(swapped, seed=0, step=0, batch_size=4)
    rows = data.train_rows(10, seed=0, step=0, batch_size=4)
    np.testing.assert_array_equal(batch["inputs"], split.inputs[rows] % 2)
    np.testing.assert_array_equal(batch["targets"], split.targets[rows])
    assert [a.dtype for a in batch.values()] == [np.float32, np.int32, np.int32]
    assert all(a.dtype.isnative for a in batch.values())


def test_check_split_refuses_what_float32_does_not_hold():
    inputs = make_split().inputs.astype(np.float64)
    inputs[4, 1, 0] = 1e300
    with pytest.raises(ValueError, match=r"inputs\[4, 1, 0\] is 1e\+300, expected finite numbers"):
        check(make_split()._replace(inputs=inputs))


def test_fillers_of_real_targets_are_nan_and_no_targets_stay_away():
    numbers = make_split()._replace(targets=np.ones(10))
    data.check_split(numbers, where="here", objective=Regression(), vocab_size=None)
    last = list(data.eval_batches(numbers, 4))[-1]
    assert last["targets"].dtype == np.float32
    np.testing.assert_array_equal(last["targets"], [1, 1, np.nan, np.nan])
    none = make_tokens()._replace(targets=None)
    assert set(next(data.eval_batches(none, 4))) == {"inputs", "lengths"}


def test_batches_bring_the_time_between_steps():
    dt = np.arange(50.0).reshape(10, 5)
    split = make_split()._replace(dt=dt)
    check(split)
    batch = data.train_batch(split, seed=0, step=1, batch_size=3)
    rows = data.train_rows(10, seed=0, step=1, batch_size=3)
    np.testing.assert_array_equal(batch["dt"], dt[rows])
    assert batch["dt"].dtype == np.float32
    with pytest.raises(ValueError, match=r"dt\[2, 1\] is -1.0, expected finite times"):
        check(changed(split, "dt", (2, 1), -1))
    with pytest.raises(ValueError, match=r"dt has shape \(10, 4\), expected \(10, 5\)"):
        check(split._replace(dt=dt[:, :4]))


def test_load_digits_splits_all_pictures_once():
    task = data.load_digits(seed=0)
    from sklearn import datasets

    images = datasets.load_digits().data
    assert [len(split.targets) for split in task.splits().values()] == [1257, 180, 360]
    sums = np.concatenate([split.inputs.sum(axis=(1, 2)) for split in task.splits().values()])
    # Sums of 64 sixteenths are exact in float32.
    np.testing.assert_array_equal(np.sort(sums), np.sort(images.sum(axis=1) / 16))
    assert task.train.inputs.min() == 0 and task.train.inputs.max() == 1


def test_load_digits_permutes_pixels_alike_in_every_picture():
    task = data.load_digits(seed=0)
    from sklearn import datasets

    images = datasets.load_digits().data / 16
    mean = np.concatenate([split.inputs[..., 0] for split in task.splits().values()]).mean(axis=0)
    # Float32 against float64 sums of 1,797 numbers: 1e-5 is a thousand roundings.
    np.testing.assert_allclose(np.sort(mean), np.sort(images.mean(axis=0)), atol=1e-5)
    assert not np.allclose(mean, images.mean(axis=0), atol=0.1)


def test_load_digits_is_fixed_by_its_seed():
    first, again, other = (data.load_digits(seed=seed).test for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.inputs, again.inputs)
    assert not np.array_equal(first.inputs, other.inputs)
