"""Tasks of one's own arrays: what targets ask for, how inputs are read, which rows go where."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax import objectives
from pspike_jax.data import Split, Task, eval_batches, from_arrays, inputs_alone, train_batch
from pspike_jax.data.rows import Rows

N, L, F = 40, 6, 3


class Frame:
    """Stands for a pandas frame or series, or an xarray: arrays that carry names."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def to_numpy(self):
        return self.values


def numbers(*shape):
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


def rows_of(task):
    """Row numbers of each split, of inputs whose first value tells its row."""
    return {
        name: (np.asarray(split.inputs).reshape(len(split.lengths), -1)[:, 0] / (L * F)).astype(int)
        for name, split in task.splits().items()
    }


INPUTS = numbers(N, L, F)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (np.arange(N) % 3, objectives.Classification(3)),
        (np.arange(N) % 2 == 0, objectives.Classification(2)),
        ((np.arange(N) % 3).tolist(), objectives.Classification(3)),
        (np.arange(N)[:, None] % 3, objectives.Classification(3)),
        (np.arange(N * L).reshape(N, L) % 4, objectives.StepClassification(4)),
        (numbers(N), objectives.Regression(1)),
        (numbers(N, 2).astype(">f4"), objectives.Regression(2)),
        (numbers(N, L, 2), objectives.StepRegression(2)),
        (Frame(np.arange(N) % 3), objectives.Classification(3)),
    ],
)
def test_targets_decide_the_objective(targets, expected):
    task = from_arrays(INPUTS, targets)
    assert task.objective == expected
    assert task.model_fields["num_outputs"] == expected.num_outputs
    assert ("pool" in task.model_fields) == expected.per_step
    plain = np.asarray(targets.values if isinstance(targets, Frame) else targets)
    for name, rows in rows_of(task).items():
        split = task.split(name)
        wanted = plain[rows].reshape(split.targets.shape)
        np.testing.assert_array_equal(split.targets, wanted)
        assert split.targets.dtype.isnative


@pytest.mark.parametrize(
    ("objective", "outputs"),
    [(objectives.Forecast(2), F), (objectives.Forecast, F), (objectives.Forecast(1, 2), 2)],
)
def test_forecasts_need_no_targets(objective, outputs):
    task = from_arrays(INPUTS, objective=objective)
    assert task.train.targets is None and task.objective.num_outputs == outputs
    assert "targets" not in train_batch(task.train, seed=0, step=0, batch_size=4)


def test_next_token_takes_its_vocabulary_from_the_task():
    tokens = np.arange(N * L).reshape(N, L) % 9
    for objective, given in ((objectives.NextToken, None), (objectives.NextToken, 11)):
        task = from_arrays(tokens, objective=objective, vocab_size=given)
        size = given or 9
        assert task.model_fields == {"num_outputs": size, "vocab_size": size, "pool": "none"}
    assert from_arrays(tokens, objective=objectives.NextToken(12)).vocab_size == 12


def test_counts_take_their_rates_from_the_training_split():
    counts = np.random.default_rng(0).poisson(2, (N, L, 2))
    task = from_arrays(INPUTS, counts, objective=objectives.Counts)
    rows = rows_of(task)["train"]
    np.testing.assert_allclose(task.objective.rates, counts[rows].mean(axis=(0, 1)), rtol=1e-12)


@pytest.mark.parametrize(
    ("targets", "names", "numbered"),
    [
        (np.array(["walk", "sit"] * 20), ("sit", "walk"), [1, 0] * 20),
        (np.array(["walk", "sit"] * 20, object), ("sit", "walk"), [1, 0] * 20),
        (np.array([b"walk", b"sit"] * 20), ("sit", "walk"), [1, 0] * 20),
        (Frame(np.array(["b", "a"] * 20, object)), ("a", "b"), [1, 0] * 20),
        (np.array([1, 2] * 20), ("1", "2"), [0, 1] * 20),
        (np.array([1, -1] * 20), ("-1", "1"), [1, 0] * 20),
        (np.array([0, 7] * 20, np.uint64), ("0", "7"), [0, 1] * 20),
    ],
)
def test_strings_and_other_integers_become_named_classes(targets, names, numbered):
    task = from_arrays(INPUTS, targets)
    assert task.objective == objectives.Classification(2, names=names)
    for name, rows in rows_of(task).items():
        assert task.split(name).targets.tolist() == np.array(numbered)[rows].tolist()


def test_classes_of_steps_keep_what_is_missing():
    labels = np.where(np.arange(L) < 4, 1 + np.arange(N * L).reshape(N, L) % 3, -1)
    task = from_arrays(INPUTS, labels)
    assert task.objective == objectives.StepClassification(3, names=("1", "2", "3"))
    rows = rows_of(task)["train"]
    expected = np.where(labels > 0, labels - 1, -1)[rows]
    np.testing.assert_array_equal(task.train.targets, expected)


def test_an_objective_that_knows_its_classes_is_taken_at_its_word():
    labels = np.array([0, 7] * 20)
    task = from_arrays(INPUTS, labels, objective=objectives.Classification(10))
    assert task.num_classes == 10 and set(task.train.targets) == {0, 7}
    named = from_arrays(INPUTS, labels // 7, class_names=("no", "yes", "perhaps"))
    assert named.objective == objectives.Classification(3, names=("no", "yes", "perhaps"))
    with pytest.raises(ValueError, match=r"targets\[\d+\] is 7, expected 0 to 4"):
        from_arrays(INPUTS, labels, objective=objectives.Classification(5))
    with pytest.raises(ValueError, match="targets hold 'x', expected one of a, b"):
        from_arrays(INPUTS, ["a", "x"] * 20, class_names="ab")


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (None, TypeError, "targets are None; give them, or an objective"),
        (np.ma.masked_less(np.arange(N) % 3, 1), TypeError, "targets: a masked array"),
        (np.arange(N - 1) % 3, ValueError, r"40 inputs, but targets have shape \(39,\)"),
        (np.zeros(N, int), ValueError, "num_classes is 1"),
        (np.arange(N), ValueError, "40 different integers in 40 targets: give floats"),
        (np.zeros((N, 2), int), ValueError, r"classes are \(n,\) or, of steps, \(n, 6\)"),
        (numbers(N, L), ValueError, r"give objective=Regression\(6\), or StepRegression\(1\)"),
        (numbers(N, L - 1, 2), ValueError, "targets have 5 steps, inputs have 6"),
        (np.full(N, np.nan), ValueError, r"targets\[0\] is nan"),
        (np.full(N, 1e300), ValueError, r"targets\[0\] is inf"),
        (["a", None] * 20, ValueError, r"targets\[1\] is None"),
        (numbers(N) + 1j, TypeError, "targets are complex128"),
    ],
)
def test_targets_that_cannot_be_learnt_are_refused_by_name(targets, error, message):
    with pytest.raises(error, match=message):
        from_arrays(INPUTS, targets)


def test_a_list_of_series_is_padded(rng):
    lengths = rng.integers(1, 9, N)
    series = [rng.normal(size=(length, 2)) for length in lengths]
    steps = [rng.integers(0, 3, length) for length in lengths]
    everything = {"train": np.arange(N)}
    task = from_arrays(series, steps, splits=everything)
    assert task.objective == objectives.StepClassification(3)
    for row, (one, labels) in enumerate(zip(series, steps)):
        np.testing.assert_array_equal(task.train.inputs[row, : len(one)], np.float32(one))
        assert task.train.targets[row].tolist() == [*labels, *[-1] * (lengths.max() - len(one))]
        assert not task.train.inputs[row, len(one) :].any()
    np.testing.assert_array_equal(task.train.lengths, lengths)
    flat = from_arrays([one[:, 0].tolist() for one in series], np.arange(N) % 2, splits=everything)
    assert flat.train.inputs.shape == (N, lengths.max(), 1)
    framed = from_arrays([Frame(one) for one in series], np.arange(N) % 2, splits=everything)
    np.testing.assert_array_equal(framed.train.inputs, task.train.inputs)


def test_frames_are_features_in_one_axis(tmp_path):
    films = (numbers(N, L, 2, 4, 3) % 2).astype(np.uint8)
    stored = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, films.shape)
    stored[:] = films
    flat, everything = films.reshape(N, L, 24), {"train": np.arange(N)}
    ragged = [film[: 1 + i % L] for i, film in enumerate(films)]
    for inputs in (films, films[:, :, 0], stored, ragged):
        task = from_arrays(inputs, np.arange(N) % 2, splits=everything)
        found, alone = task.train, inputs_alone(inputs)
        size = 12 if getattr(inputs, "ndim", 5) == 4 else 24
        for row, length in enumerate(found.lengths):
            for split in (found, alone):
                assert split.inputs[row].shape == (L, size) and split.lengths[row] == length
                np.testing.assert_array_equal(split.inputs[row, :length], flat[row, :length, :size])
    assert isinstance(from_arrays(stored, np.arange(N) % 2).train.inputs, Rows)  # not copied


class Grouped:
    """Stands for what pandas gives by groupby: it has parts, and is no array."""

    def __len__(self):
        return N

    def __array__(self, dtype=None, copy=None):
        return np.array([[1], [2, 3]])


@pytest.mark.parametrize("given", [[("a", [1.0]), ("b", [1.0, 2.0])], Grouped()])
def test_what_is_no_array_is_named_in_one_line(given):
    with pytest.raises(TypeError, match="inputs.* a (list|Grouped) that is no array") as told:
        from_arrays(given, np.arange(len(given)) % 2)
    assert "\n" not in str(told.value)


def test_a_list_that_does_not_fit_is_refused_by_row():
    with pytest.raises(ValueError, match=r"inputs\[1\] has shape \(5, 3\), expected .* \(4, 2\)"):
        from_arrays([np.ones((4, 2)), np.ones((5, 3))], [0, 1])
    with pytest.raises(ValueError, match="lengths follow from a list"):
        from_arrays([np.ones((4, 2)), np.ones((5, 2))], [0, 1], lengths=[4, 5])
    with pytest.raises(TypeError, match=r"inputs\[1\]: a masked array"):
        from_arrays([np.ones((4, 2)), np.ma.ones((5, 2))], [0, 1])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float16, ">f4", ">f8"])
def test_numbers_of_every_kind_reach_batches_as_float32(dtype):
    spikes = (INPUTS % 2).astype(dtype)
    task = from_arrays(spikes, np.arange(N) % 2, splits={"train": np.arange(N)})
    batch = train_batch(task.train, seed=0, step=0, batch_size=N)["inputs"]
    assert batch.dtype == np.float32 and batch.dtype.isnative
    np.testing.assert_array_equal(np.sort(batch.ravel()), np.sort(np.float32(INPUTS % 2).ravel()))


def test_one_feature_needs_no_axis_and_integers_without_one_are_refused():
    for inputs in (INPUTS[..., 0], INPUTS[..., 0] > 9, Frame(INPUTS[..., 0])):
        assert from_arrays(inputs, np.arange(N) % 2).train.inputs.shape == (32, L, 1)
    with pytest.raises(TypeError, match=r"int64 \(40, 6\): give vocab_size if these are tokens"):
        from_arrays(np.ones((N, L), int), np.arange(N) % 2)
    with pytest.raises(TypeError, match="inputs: a masked array"):
        from_arrays(np.ma.ones((N, L, F)), np.arange(N) % 2)
    with pytest.raises(ValueError, match=r"inputs\[\d+, 0, 0\] is inf"):
        from_arrays(np.full((N, L, F), 1e300), np.arange(N) % 2)


def test_pairs_of_documents_are_read_as_such():
    task = from_arrays(np.ones((N, 2, L), int), np.arange(N) % 2, vocab_size=3)
    assert task.train.lengths.shape == (32, 2)
    assert task.model_fields == {"num_outputs": 2, "vocab_size": 3, "documents": 2}


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "u1", "?"])
def test_a_memory_map_is_not_copied(tmp_path, dtype):
    stored = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", dtype, (N, L, F))
    stored[:] = (INPUTS % 2).astype(dtype)
    for inputs in (stored, np.load(tmp_path / "x.npy", mmap_mode="r")[:, :, :1]):
        task = from_arrays(inputs, np.arange(N) % 2)
        assert isinstance(task.train.inputs, Rows)
        assert np.shares_memory(task.train.inputs.array, inputs)
        batch = train_batch(task.train, seed=0, step=0, batch_size=5)["inputs"]
        assert batch.dtype == np.float32 and batch.dtype.isnative
    parts = np.concatenate([split.inputs.rows for split in task.splits().values()])
    assert np.sort(parts).tolist() == list(range(N))


def test_rows_are_those_of_the_array(rng):
    array, chosen = rng.normal(size=(9, 4, 2)), np.array([8, 1, 1, 5])
    rows, copy = Rows(array, chosen), array[chosen]
    assert rows.shape == copy.shape and rows.nbytes == copy.nbytes and len(rows) == 4
    for index in (2, slice(1, 3), [0, 3], np.array([True, False, True, False]), (1, 2), ...,
                  (slice(None), 0), (slice(1, 4), slice(None), 1), np.int64(3)):
        np.testing.assert_array_equal(rows[index], copy[index])
    np.testing.assert_array_equal(np.asarray(rows), copy)


def test_every_row_is_in_one_split_and_classes_are_alike(rng):
    labels = rng.permutation(np.repeat([0, 1, 2], [60, 30, 10]))
    task = from_arrays(numbers(100, L, F), labels, validation=0.2, test=0.1, seed=3)
    rows = rows_of(task)
    assert {name: len(part) for name, part in rows.items()} == {
        "train": 70, "validation": 20, "test": 10
    }
    assert np.sort(np.concatenate(list(rows.values()))).tolist() == list(range(100))
    assert np.bincount(task.validation.targets).tolist() == [12, 6, 2]
    assert np.bincount(task.test.targets).tolist() == [6, 3, 1]
    for name, part in rows.items():
        np.testing.assert_array_equal(task.split(name).targets, labels[part])


def test_splits_follow_from_the_seed():
    labels = np.arange(N) % 3
    first, again, other = (
        rows_of(from_arrays(INPUTS, labels, seed=seed))["test"] for seed in (0, 0, 1)
    )
    assert first.tolist() == again.tolist() != other.tolist()
    for seed in range(3):  # 13 or 14 of each class: 4 of one are drawn now and then, if not alike
        test = from_arrays(INPUTS, labels, test=0.3, seed=seed).test
        assert np.bincount(test.targets).tolist() == [4, 4, 4]
    loose = [from_arrays(INPUTS, labels, test=0.3, seed=k, stratify=False).test for k in range(3)]
    assert any(np.bincount(test.targets).tolist() != [4, 4, 4] for test in loose)


@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.1), (0.5, 0.5), (0.01, 0.1), (0.5, -0.1)])
def test_shares_that_leave_nothing_are_refused(validation, test):
    with pytest.raises(ValueError, match="leave train or validation empty"):
        from_arrays(INPUTS, np.arange(N) % 2, validation=validation, test=test)


@pytest.mark.parametrize("names", [int, str])
@pytest.mark.parametrize("stratify", [True, False])
def test_a_subject_stays_on_one_side(rng, names, stratify):
    subjects = np.array([names(k) for k in rng.integers(0, 15, 300)])
    labels = rng.integers(0, 3, 300)
    task = from_arrays(
        numbers(300, L, F), labels, groups=subjects, stratify=stratify, validation=0.2, test=0.2
    )
    found = {name: set(subjects[rows]) for name, rows in rows_of(task).items()}
    assert len(found) == 3 and sum(map(len, found.values())) == len(set(subjects))
    # 15 groups of about 20 rows: a share is met to about half a group.
    for name in ("validation", "test"):
        assert abs(len(task.split(name).lengths) - 60) <= 20


def test_too_few_subjects_are_refused():
    with pytest.raises(ValueError, match="2 groups, expected one for each of 3 splits"):
        from_arrays(INPUTS, np.arange(N) % 2, groups=np.arange(N) % 2)


@pytest.mark.parametrize("form", ["rows", "masks", "names"])
def test_given_splits_are_kept(form):
    rows = {"train": np.arange(5, 30), "validation": np.array([3, 1]), "test": np.arange(30, 40)}
    splits = rows
    if form == "masks":
        splits = {name: np.isin(np.arange(N), part) for name, part in rows.items()}
    if form == "names":
        splits = np.full(N, "train", object)
        rows["train"] = np.setdiff1d(np.arange(N), [1, 3, *range(30, 40)])
        splits[[3, 1]], splits[30:] = "validation", "test"
    task = from_arrays(INPUTS, np.arange(N) % 2, splits=splits)
    for name, found in rows_of(task).items():
        wanted = rows[name] if form == "rows" else np.sort(rows[name])
        assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": [0, 1], "valid": [2]}, "splits name 'valid', expected train, validation, test"),
        ({"train": [0, 1], "test": [1]}, "row 1 stands twice, the second time in test"),
        ({"train": [0, 1, 1]}, "row 1 stands twice"),
        ({"train": [0, 40]}, "has row 40 of 40"),
        ({"test": [0]}, "splits leave train empty"),
        ({"train": np.ones(5, bool)}, r"a mask \(5,\), expected \(40,\)"),
    ],
)
def test_given_splits_that_cannot_be_are_refused(splits, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(INPUTS, np.arange(N) % 2, splits=splits)


def test_given_splits_that_part_a_subject_are_refused():
    splits = {"train": np.arange(20), "test": np.arange(20, 40)}
    with pytest.raises(ValueError, match="group 's' is in train and in test"):
        from_arrays(INPUTS, np.arange(N) % 2, splits=splits, groups=["s"] * N)
    with pytest.raises(ValueError, match="hold .* examples"):
        from_arrays(INPUTS, np.arange(N) % 2, groups=["s"] * 39)


def test_class_weights_are_balanced_over_the_training_split():
    labels = np.repeat([0, 1], [30, 10])
    objective = objectives.Classification(class_weights="balanced")
    task = from_arrays(INPUTS, labels, objective=objective)
    sizes = np.bincount(task.train.targets)
    np.testing.assert_allclose(task.objective.class_weights, 32 / (2 * sizes), rtol=1e-12)


def test_a_task_made_by_hand_completes_its_objective():
    inputs, lengths = np.zeros((4, L, F), np.float32), np.full(4, L)
    split = Split(inputs, lengths, np.array([0, 0, 0, 1]))
    weighted = objectives.Classification(class_weights="balanced")
    assert Task("t", split, None, None, weighted).objective.class_weights == (4 / 6, 2.0)
    tokens = Split(np.zeros((4, L), int), lengths, None)
    assert Task("t", tokens, None, None, objectives.NextToken(), 9).objective.num_outputs == 9
    forecast = Split(inputs, lengths, None)
    assert Task("t", forecast, None, None, objectives.Forecast(2)).objective.num_outputs == F


def test_inputs_alone_pass_the_same_door():
    split = inputs_alone(INPUTS[..., :1].astype(">f8"), dt=np.ones((N, L)))
    assert split.targets is None and split.inputs.dtype == np.float32
    assert split.lengths.tolist() == [L] * N
    ragged = inputs_alone([np.ones(3), np.ones(5)])
    assert ragged.inputs.shape == (2, 5, 1) and ragged.lengths.tolist() == [3, 5]
    assert inputs_alone(np.zeros((4, L), int), vocab_size=2).inputs.shape == (4, L)
    for bad, message in (
        (np.full((4, L, 1), np.nan), r"inputs: inputs\[0, 0, 0\] is nan"),
        (np.ma.ones((4, L, 1)), "inputs: a masked array"),
        (np.ones((4, L), int), "give vocab_size"),
        (np.ones((4, L, 1), "c16"), "expected real numbers"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            inputs_alone(bad)


@dataclasses.dataclass(frozen=True)
class Quantile:
    """A caller's own objective."""

    level: float
    merit = ("pinball", "min")
    num_outputs = 1
    per_step = False
    needs_targets = True

    def check(self, inputs, lengths, targets, where):
        if targets.shape != (len(inputs),):
            raise ValueError(f"{where}: targets have shape {targets.shape}, expected (n,)")

    def __call__(self, outputs, batch):
        valid = ~jnp.isnan(batch["targets"])
        error = jnp.where(valid, batch["targets"] - outputs[:, 0], 0.0)
        losses = jnp.maximum(self.level * error, (self.level - 1) * error)
        measured = {"pinball": objectives.metrics.sums(losses, valid)}
        return losses, valid.astype(jnp.float32), measured

    def summary(self, outputs, targets, lengths):
        return {"below": float(np.mean(targets < outputs[:, 0]))}


def test_a_callers_own_objective_is_taken():
    task = from_arrays(INPUTS, numbers(N), objective=Quantile(0.9))
    assert task.objective == Quantile(0.9) and task.model_fields["num_outputs"] == 1
    batch = list(eval_batches(task.test, 3))[-1]
    losses, weights, measured = Quantile(0.9)(jnp.zeros((3, 1)), batch)
    assert weights.tolist() == [1, 0, 0] and losses[1] == 0
    np.testing.assert_allclose(losses[0], 0.9 * task.test.targets[-1], rtol=1e-6)
    with pytest.raises(ValueError, match=r"train: targets have shape \(32, 2\), expected \(n,\)"):
        from_arrays(INPUTS, numbers(N, 2), objective=Quantile(0.9))


def test_times_between_steps_follow_their_rows(rng):
    dt = rng.random((N, L))
    task = from_arrays(INPUTS, np.arange(N) % 2, dt=dt)
    for name, rows in rows_of(task).items():
        np.testing.assert_array_equal(task.split(name).dt, dt[rows])
    ragged = [np.ones((k % 3 + 1, F)) for k in range(N)]
    task = from_arrays(
        ragged, np.arange(N) % 2, dt=[np.full(len(one), 0.5) for one in ragged],
        splits={"train": np.arange(N)},
    )
    np.testing.assert_array_equal(task.train.dt.sum(axis=1), 0.5 * task.train.lengths)


class Lent:
    """An array of a library that has nothing but DLPack."""

    def __init__(self, array, device=None):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        if self.device:
            raise BufferError("elsewhere")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device or self.array.__dlpack_device__()


def test_arrays_of_other_libraries_are_lent_not_copied(rng):
    x = rng.normal(size=(4, 5, 2)).astype(np.float32)
    found = inputs_alone(Lent(x), lengths=Lent(np.array([5, 3, 1, 2])))
    assert np.shares_memory(found.inputs, x) and found.lengths.tolist() == [5, 3, 1, 2]
    ragged = inputs_alone([Lent(x[0]), Lent(x[1, :3])])
    assert ragged.lengths.tolist() == [5, 3]
    np.testing.assert_array_equal(ragged.inputs[1], np.where(np.arange(5)[:, None] < 3, x[1], 0))
    task = from_arrays(Lent(x.repeat(5, 0)), Lent(np.arange(20) % 3), test=0.2)
    assert task.objective.num_classes == 3
    with pytest.raises(TypeError, match="inputs are a Lent that cannot be shared"):
        inputs_alone(Lent(x, device=(2, 0)))
