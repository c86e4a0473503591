"""Files of the UEA archive in both formats, and targets at some of the steps."""

import numpy as np
import pytest

from pspike_jax.data import generate_oscillations, load_ppg_dalia, load_uea
from pspike_jax.data.uea import read_series

SERIES = [np.arange(6.0).reshape(2, 3) / 7, -np.arange(4.0).reshape(2, 2)]
HEADER = "# a comment\n@problemName Small\n@classLabel true up down\n@data\n"
RELATION = """% a comment
@relation Small
@attribute Small relational
  @attribute att0 numeric
@end Small
@attribute target {up,down}
@data
"""


def write(folder, part, ending, examples):
    """Write (series, label) as the archive does."""
    channels = lambda one: [",".join(map(repr, map(float, row))) for row in one]
    if ending == ".ts":
        text = HEADER + "".join(":".join(channels(x)) + f":{y}\n" for x, y in examples)
    else:
        text = RELATION + "".join("'" + "\\n".join(channels(x)) + f"',{y}\n" for x, y in examples)
    (folder / f"Small_{part}{ending}").write_text(text)
    return folder / f"Small_{part}{ending}"


@pytest.mark.parametrize("ending", [".ts", ".arff"])
def test_both_formats_hold_the_same_series(tmp_path, ending):
    path = write(tmp_path, "TRAIN", ending, zip(SERIES, ("up", "down")))
    series, labels = read_series(path)
    assert labels == ["up", "down"]
    for found, expected in zip(series, SERIES, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_one_channel_of_arff_stands_without_quotes(tmp_path):
    path = tmp_path / "one.arff"
    path.write_text("@relation a\n@attribute t0 numeric\n@data\n1,2.5,-3,up\n")
    series, labels = read_series(path)
    np.testing.assert_array_equal(series[0], [[1, 2.5, -3]])
    assert labels == ["up"]


@pytest.mark.parametrize("text, message", [
    ("@relation a\n1,2,up\n", "line 2: '1,2,up' before '@data'"),
    ("@relation a\n@data\n'1,2\\n3',up\n", "line 3"),
    ("@relation a\n@data\n1,?,up\n", "line 3"),
    ("@relation a\n", "no line '@data'"),
])
def test_arff_names_the_line_that_is_wrong(tmp_path, text, message):
    path = tmp_path / "wrong.arff"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_series(path)


def test_splits_are_the_paper_s_shares_or_the_archive_s_files(tmp_path, rng):
    draw = lambda count: [(rng.normal(size=(2, 5)), ("up", "down")[i % 2]) for i in range(count)]
    write(tmp_path, "TRAIN", ".ts", draw(30))
    test = draw(10)
    write(tmp_path, "TEST", ".ts", test)
    given = {"dataset": "Small", "source_dir": tmp_path, "seed": 2345}
    task = load_uea(**given, time_channel=True)
    sizes = [len(part.targets) for part in (task.train, task.validation, task.test)]
    assert sizes == [28, 6, 6] and task.train.inputs.shape == (28, 5, 3)
    np.testing.assert_allclose(task.train.inputs[0, :, 0], np.arange(5) / 5, rtol=1e-6)
    task = load_uea(**given, split="archive")
    assert len(task.validation.targets) == 6 and len(task.train.targets) == 24
    np.testing.assert_allclose(task.test.inputs[3], test[3][0].T, rtol=1e-6)
    assert task.objective.names == ("down", "up")
    with pytest.raises(ValueError, match="split is 'own', expected one of random, archive"):
        load_uea(**given, split="own")
    with pytest.raises(FileNotFoundError, match="neither Big_TRAIN.ts nor Big_TRAIN.arff"):
        load_uea(dataset="Big", source_dir=tmp_path, seed=0)


def write_small(folder, rng, label, header=HEADER, count=20):
    """Write series of two channels and unequal lengths; return those of training and of test."""
    parts = {}
    for part in ("TRAIN", "TEST"):
        parts[part] = [rng.normal(3, 5, (2, 4 + i % 5)) for i in range(count)]
        write(folder, part, ".ts", [(x, label(i)) for i, x in enumerate(parts[part])])
        path = folder / f"Small_{part}.ts"
        path.write_text(path.read_text().replace(HEADER, header))
    return parts["TRAIN"], parts["TEST"]


def test_numbers_are_targets_where_the_file_says_so(tmp_path, rng):
    header = "@problemName Small\n@targetLabel true\n@data\n"
    write_small(tmp_path, rng, lambda i: i / 8, header)
    task = load_uea(dataset="Small", source_dir=tmp_path, seed=0, split="archive")
    assert type(task.objective).__name__ == "Regression"
    np.testing.assert_array_equal(task.test.targets.ravel(), np.arange(20) / 8)
    learnt = np.concatenate([task.train.targets, task.validation.targets]).ravel()
    assert sorted(learnt) == sorted(np.arange(20) / 8) and len(task.validation.targets) == 4
    write_small(tmp_path, rng, lambda i: "up", header)
    with pytest.raises(ValueError, match="the file says that targets are numbers"):
        load_uea(dataset="Small", source_dir=tmp_path, seed=0)


@pytest.mark.parametrize("scale", ["standard", "log"])
def test_scale_is_that_of_the_training_frames_alone(tmp_path, rng, scale):
    _, test = write_small(tmp_path, rng, lambda i: ("up", "down")[i % 2])
    given = {"dataset": "Small", "source_dir": tmp_path, "seed": 1, "split": "archive"}
    raw, task = load_uea(**given), load_uea(**given, scale=scale)
    change = (lambda x: np.sign(x) * np.log(1 + np.abs(x))) if scale == "log" else lambda x: x
    frames = [change(np.float64(x[:n])) for x, n in zip(raw.train.inputs, raw.train.lengths)]
    mean, deviation = np.mean(np.vstack(frames), 0), np.std(np.vstack(frames), 0)
    for row, length, published in zip(task.test.inputs, task.test.lengths, test, strict=True):
        expected = (change(published.T) - mean) / deviation
        np.testing.assert_allclose(row[:length], expected, rtol=1e-4, atol=1e-5)  # float32
        assert not row[length:].any()
    with pytest.raises(ValueError, match="scale is 'max', expected one of none, standard, log"):
        load_uea(**given, scale="max")


def test_lost_frames_leave_the_time_that_has_passed(tmp_path, rng):
    write_small(tmp_path, rng, lambda i: ("up", "down")[i % 2])
    given = {"dataset": "Small", "source_dir": tmp_path, "seed": 1, "split": "archive"}
    given |= {"time_channel": True}  # tells which frames are left
    task, whole = load_uea(**given, keep=0.4), load_uea(**given)
    lost = 0
    for x, n, dt, total in zip(
        task.test.inputs, task.test.lengths, task.test.dt, whole.test.lengths, strict=True
    ):
        places = np.rint(x[:n, 0] * total)
        np.testing.assert_array_equal(np.diff(places), dt[1:n])
        assert dt[0] == 1 and n >= 1
        lost += total - n
    assert 40 < lost < 100  # of 120, 0.6 each: 72, and six deviations of 5.4
    untold = load_uea(**given, keep=0.4, timed=False)
    assert untold.test.dt is None
    np.testing.assert_array_equal(untold.test.inputs, task.test.inputs)
    with pytest.raises(ValueError, match="keep is 0, expected a probability"):
        load_uea(**given, keep=0)


def test_targets_of_some_steps_are_missing_at_the_others(tmp_path, rng):
    arrays = {}
    for part, count in (("train", 4), ("validation", 2), ("test", 2)):
        arrays[f"{part}_inputs"] = np.float32(rng.normal(size=(count, 10, 3)))
        arrays[f"{part}_targets"] = np.float32(rng.normal(size=(count, 2)))
    np.savez(tmp_path / "ppg_dalia.npz", **arrays)
    task = load_ppg_dalia(source_dir=tmp_path, every=4)
    assert task.train.inputs.shape == (4, 10, 4) and task.model_fields["pool"] == "none"
    np.testing.assert_array_equal(task.train.targets[:, [3, 7], 0], arrays["train_targets"])
    assert np.isnan(np.delete(task.train.targets, [3, 7], axis=1)).all()
    np.savez(tmp_path / "ppg_dalia.npz", **{**arrays, "test_targets": np.zeros((2, 3))})
    with pytest.raises(ValueError, match=r"test: inputs .2, 10, 3. and targets .2, 3, 1."):
        load_ppg_dalia(source_dir=tmp_path, every=4)


def test_oscillations_have_targets_for_classes_and_along_the_way():
    sizes = {"length": 16, "channels": 2, "classes": 3, "examples": 20, "seed": 0}
    task = generate_oscillations(**sizes)
    assert task.model_fields["num_outputs"] == 3
    task = generate_oscillations(**sizes, every=8)
    assert np.isfinite(task.train.targets).sum() == 2 * len(task.train.targets)
