"""Tasks of files that a caller brings: what is read is what was written."""

import wave

import numpy as np
import pytest

from pspike_jax.data import load_arrays, load_csv, load_events, load_wav_folder
from pspike_jax.objectives import (
    Classification,
    Forecast,
    Regression,
    StepClassification,
    StepRegression,
)

N = 20


def whole(task):
    """Inputs and targets of all splits, without padding, in order of their first number."""
    parts = [part for part in (task.train, task.validation, task.test) if part is not None]
    rows = [
        (x[:n], t) for part in parts
        for x, n, t in zip(part.inputs, part.lengths, part.targets)
    ]
    return sorted(rows, key=lambda row: row[0].ravel()[0])


def write_csv(path, series, label, columns="label"):
    """Write series (L_i, 2) line by line, the steps of all examples mixed; return their order."""
    lines = [
        f"s{row:02d},{step},{one[step, 0]},{one[step, 1]},{label(row, step)}"
        for row, one in enumerate(series) for step in range(len(one))
    ]
    np.random.default_rng(1).shuffle(lines)
    path.write_text("\n".join([f"id,time,a,b,{columns}", *lines]))


@pytest.fixture
def series(rng):
    return [
        np.concatenate([[[row, 0.5]], rng.normal(size=(4 + row % 3, 2))]).astype(np.float32)
        for row in range(N)
    ]


def test_csv_sorts_steps_into_examples_and_names_classes(tmp_path, series):
    write_csv(tmp_path / "a.csv", series, lambda row, step: "up" if row % 2 else "down")
    task = load_csv(path=str(tmp_path / "a.csv"))
    assert task.objective == Classification(2, names=("down", "up"))
    for row, (inputs, target) in enumerate(whole(task)):
        np.testing.assert_array_equal(inputs, series[row])
        assert target == row % 2


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        (lambda row, step: row / 3, Regression),
        (lambda row, step: row % 2, Classification),
        (lambda row, step: step % 3, StepClassification),
        (lambda row, step: step / 3, StepRegression),
    ],
)
def test_csv_asks_for_what_its_target_is(tmp_path, series, label, kind):
    write_csv(tmp_path / "a.csv", series, label)
    task = load_csv(path=str(tmp_path / "a.csv"))
    assert isinstance(task.objective, kind)
    for row, (inputs, target) in enumerate(whole(task)):
        steps = np.arange(len(inputs))
        found = np.ravel(target)[: len(steps)] if task.objective.per_step else target
        expected = label(row, steps if task.objective.per_step else 0)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,time,a,label\nx,0,?,1", "line 2: a is '\\?', expected a number"),
        ("id,time,a,label\nx,0,1", "line 2: 3 cells, expected 4"),
        ("id,t,a,label\nx,0,1,1", "no column 'time'; it has id, t, a, label"),
        ("id,time,label\nx,0,1", "no column of inputs"),
        ("", "holds 0 lines"),
    ],
)
def test_csv_names_what_is_wrong(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_csv(path=str(tmp_path / "a.csv"))


def test_arrays_are_those_of_the_file_and_keep_its_splits(tmp_path, rng):
    inputs = rng.normal(size=(N, 5, 2)).astype(np.float32)
    split = np.array(["train"] * 12 + ["validation"] * 4 + ["test"] * 4)
    np.savez(tmp_path / "a.npz", inputs=inputs, targets=np.arange(N) % 2, split=split)
    task = load_arrays(path=str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(task.test.inputs, inputs[16:])
    assert (task.name, len(task.train.inputs)) == ("a", 12)
    np.savez(tmp_path / "b.npz", inputs=inputs)
    ahead = load_arrays(path=str(tmp_path / "b.npz"), objective="Forecast", horizon=2)
    assert ahead.objective == Forecast(2, 2)


def test_arrays_refuse_other_names_and_missing_files(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="holds x; expected inputs"):
        load_arrays(path=str(tmp_path / "a.npz"))
    with pytest.raises(FileNotFoundError, match="nothing is there"):
        load_arrays(path=str(tmp_path / "c.npz"))


def write_wav(path, samples, rate=8000):
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def test_wav_folders_are_classes_and_frames_are_steps(tmp_path):
    for row in range(N):
        samples = np.full((10 + row % 2, 2), 1000 * row) + np.array([100, -100])
        write_wav(tmp_path / ("left", "right")[row % 2] / f"{row}.wav", samples)
    task = load_wav_folder(path=str(tmp_path), frame=4)
    assert task.objective.names == ("left", "right")
    for row, (inputs, target) in enumerate(whole(task)):
        sound = np.zeros(12)
        sound[: 10 + row % 2] = 1000 * row / 2**15
        np.testing.assert_allclose(inputs, sound.reshape(3, 4), atol=1e-7)
        assert target == row % 2
    write_wav(tmp_path / "left" / "z.wav", samples, rate=16_000)
    with pytest.raises(ValueError, match="sampling rates differ"):
        load_wav_folder(path=str(tmp_path))


def test_events_of_both_kinds_of_files_are_the_same(tmp_path, rng):
    h5py = pytest.importorskip("h5py")
    times = [np.sort(rng.uniform(0, 1, 5 + row)).astype(np.float32) for row in range(N)]
    units = [rng.integers(0, 3, len(one)) for one in times]
    labels = np.arange(N) % 2
    np.savez(
        tmp_path / "a.npz", times=np.concatenate(times), channels=np.concatenate(units),
        counts=[len(one) for one in times], labels=labels,
    )
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values, dtype in (("times", times, "f4"), ("units", units, "i8")):
            kind = h5py.vlen_dtype(np.dtype(dtype))
            rows = file.create_dataset(f"spikes/{name}", (N,), kind)
            for row, one in enumerate(values):
                rows[row] = one
        file["labels"] = labels
    how = {"unit": "s", "bin_width": 0.1, "duration": 1.0, "num_channels": 3}
    first, second = (load_events(path=str(tmp_path / name), **how) for name in ("a.npz", "a.h5"))
    np.testing.assert_array_equal(first.train.inputs, second.train.inputs)
    np.testing.assert_array_equal(first.test.targets, second.test.targets)
    assert first.train.inputs.shape[1:] == (10, 3) and first.train.inputs.sum() > 0
    both = load_events(
        path=str(tmp_path / "a.npz"), test_path=str(tmp_path / "a.h5"), unit="s", dt_unit="ms",
    )
    assert len(both.train.lengths) + len(both.validation.lengths) == N == len(both.test.lengths)
    for row, (when, where) in enumerate(zip(times, units)):
        np.testing.assert_array_equal(both.test.inputs[row, : len(where)], where)
        wanted = np.diff(np.float64(when), prepend=np.float64(when[:1])) * 1000
        # A float32 of the file, its difference in float32: half a unit in the last place of 1 s.
        np.testing.assert_allclose(both.test.dt[row, : len(when)], wanted, atol=1e-4)
