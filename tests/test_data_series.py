"""Vowels and spoken digits, from files of the published form made here."""

import numpy as np
import pytest

from pspike_jax.data import load_japanese_vowels, load_spoken_digits
from pspike_jax.data.uea import read_ts


def write_vowels(folder, rng, counts=(270, 370)):
    """Write both .ts files; return {split: (series, speakers)}."""
    written = {}
    for name, count in zip(("TRAIN", "TEST"), counts):
        lengths = rng.integers(7, 30, count)
        series = [rng.normal(3, 2, (12, length)).round(6) for length in lengths]
        speakers = np.arange(count) % 9 + 1
        lines = [
            ":".join([*(",".join(map(str, channel)) for channel in one), str(speaker)])
            for one, speaker in zip(series, speakers)
        ]
        header = ["#A comment: with, signs", "@problemName JapaneseVowels", "@data"]
        path = folder / f"JapaneseVowels_{name}.ts"
        path.write_text("\n".join([*header, *lines]) + "\n")
        written[name] = (series, speakers)
    return written


def write_digits(folder, rng, count=3000):
    """Write digits.npz; return frames, labels and lengths."""
    lengths = rng.integers(6, 93, count)
    labels, frames = np.arange(count) % 10, rng.normal(-20, 40, (lengths.sum(), 13))
    np.savez(folder / "digits.npz", X=frames.astype(np.float32), y=labels, lengths=lengths)
    return frames, labels, lengths


def valid_frames(split):
    return split.inputs[np.arange(split.inputs.shape[1]) < split.lengths[:, None]]


def test_vowels_keep_the_official_split_and_order_of_test(tmp_path, rng):
    written = write_vowels(tmp_path, rng)
    task = load_japanese_vowels(source_dir=str(tmp_path), seed=3)
    series, speakers = written["TEST"]
    np.testing.assert_array_equal(task.test.targets, speakers - 1)
    np.testing.assert_array_equal(task.test.lengths, [one.shape[1] for one in series])
    assert [len(split.targets) for split in task.splits().values()] == [216, 54, 370]
    assert np.bincount(task.validation.targets).tolist() == [6] * 9
    # One linear map per channel takes the file's numbers to the inputs.
    raw = np.concatenate(series, axis=1).T
    scaled = valid_frames(task.test)
    for channel in range(12):
        slope, offset = np.polyfit(raw[:, channel], scaled[:, channel], 1)
        # float32 rounding of numbers up to 4.
        np.testing.assert_allclose(scaled[:, channel], slope * raw[:, channel] + offset, atol=2e-6)


@pytest.mark.parametrize("load, write", [(load_japanese_vowels, write_vowels),
                                         (load_spoken_digits, write_digits)])
def test_series_are_standardized_by_training_frames_and_zero_behind(load, write, tmp_path, rng):
    write(tmp_path, rng)
    task = load(source_dir=str(tmp_path), seed=0)
    frames = valid_frames(task.train).astype(np.float64)
    # Rounding of thousands of float32 numbers around 0.
    np.testing.assert_allclose(frames.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(frames.std(0), 1, atol=1e-5)
    for split in task.splits().values():
        padding = np.arange(split.inputs.shape[1]) >= split.lengths[:, None]
        assert not split.inputs[padding].any() and padding.any()


def test_vowels_split_is_a_function_of_the_seed(tmp_path, rng):
    write_vowels(tmp_path, rng)
    first, again, other = (
        load_japanese_vowels(source_dir=str(tmp_path), seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.train.inputs, again.train.inputs)
    assert (first.validation.lengths != other.validation.lengths).any()


def test_spoken_digits_hold_every_recording_once(tmp_path, rng):
    frames, labels, lengths = write_digits(tmp_path, rng)
    task = load_spoken_digits(source_dir=str(tmp_path), seed=0)
    splits = task.splits().values()
    assert [len(split.targets) for split in splits] == [2168, 382, 450]
    starts = np.concatenate([split.inputs[:, 0] for split in splits])
    mean, deviation = frames.mean(0), frames.std(0)
    expected = frames[np.concatenate([[0], np.cumsum(lengths)[:-1]])]
    # Sorted, first frames match up to the scaling by training frames alone: 2 % of a deviation.
    np.testing.assert_allclose(
        np.sort(starts[:, 0]), np.sort((expected[:, 0] - mean[0]) / deviation[0]), atol=0.1
    )
    pairs = sorted(zip(labels.tolist(), lengths.tolist()))
    found = sorted(
        pair for split in splits for pair in zip(split.targets.tolist(), split.lengths.tolist())
    )
    assert found == pairs


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="JapaneseVowels_TRAIN.ts does not exist"):
        load_japanese_vowels(source_dir=str(tmp_path), seed=0)
    with pytest.raises(FileNotFoundError, match="digits.npz does not exist"):
        load_spoken_digits(source_dir=str(tmp_path), seed=0)


def test_other_files_are_refused(tmp_path, rng):
    write_vowels(tmp_path, rng, counts=(269, 370))
    with pytest.raises(ValueError, match="269 series of .12. channels .* published are 270"):
        load_japanese_vowels(source_dir=str(tmp_path), seed=0)
    write_digits(tmp_path, rng, count=2999)
    with pytest.raises(ValueError, match="2999,., .2999,."):
        load_spoken_digits(source_dir=str(tmp_path), seed=0)


def test_read_ts_names_the_line_that_is_wrong(tmp_path):
    path = tmp_path / "one.ts"
    path.write_text("@dimensions 2\n@data\n1,2:3,4:a\n1,x:3,4:b\n")
    with pytest.raises(ValueError, match="line 4"):
        read_ts(path)
    for line in ("1,nan:3,4:b", "1"):
        path.write_text(f"@data\n{line}\n")
        with pytest.raises(ValueError, match="line 2: expected channels of finite numbers"):
            read_ts(path)
    path.write_text("1,2:3,4:a\n")
    with pytest.raises(ValueError, match="no line '@data'"):
        read_ts(path)
    path.write_bytes(b"\xff\n@data\n")
    with pytest.raises(ValueError, match="one.ts: not a text file"):
        read_ts(path)


def test_vowels_of_another_speaker_are_refused(tmp_path, rng):
    write_vowels(tmp_path, rng)
    path = tmp_path / "JapaneseVowels_TEST.ts"
    path.write_text(path.read_text().replace(":9\n", ":10\n"))
    with pytest.raises(ValueError, match="TEST.ts: speakers .*'10'"):
        load_japanese_vowels(source_dir=str(tmp_path), seed=0)


@pytest.mark.parametrize("name, change, reason", [
    ("y", lambda a: a.astype(float), "no array y"),
    ("y", lambda a: a + 1, "a label that is not 0 to 9"),
    ("X", lambda a: a * np.nan, "not a finite number"),
])
def test_spoken_digits_name_the_file_that_is_wrong(tmp_path, rng, name, change, reason):
    frames, labels, lengths = write_digits(tmp_path, rng)
    arrays = {"X": frames, "y": labels, "lengths": lengths}
    np.savez(tmp_path / "digits.npz", **arrays | {name: change(arrays[name])})
    with pytest.raises(ValueError, match=f"digits.npz: .*{reason}"):
        load_spoken_digits(source_dir=str(tmp_path), seed=0)
