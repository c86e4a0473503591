"""Speech Commands, raw and as features, and events in bins: values, splits, and damage."""

import math
import wave

import numpy as np
import pytest
from data_writers import write_events, write_speech, write_wav

from pspike_jax.data import events, gsc, speech_commands
from pspike_jax.data.events import EventSettings
from pspike_jax.data.gsc import GscSettings
from pspike_jax.data.source import load_source
from pspike_jax.data.speech_commands import ALL_WORDS, TEN_WORDS, SpeechSettings


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A folder with three clips of each of 35 words, and the sounds by name."""
    folder = tmp_path_factory.mktemp("speech")
    return folder, write_speech(folder, np.random.default_rng(5))


def test_speech_source_follows_the_official_lists(speech):
    folder, sounds = speech
    source = speech_commands.speech_source(SpeechSettings(words=35), folder)
    assert source.differences[0] == "train: 35 examples, 84,843 were published"
    task = load_source(source)
    for split, k in ((task.train, 2), (task.validation, 0), (task.test, 1)):
        assert [ALL_WORDS[label] for label in split.targets] == sorted(ALL_WORDS)
        for row in (0, 17, 34):
            sound = sounds[f"{ALL_WORDS[split.targets[row]]}/{k:02d}.wav"]
            expected = np.zeros(16_000)
            expected[: sound.size] = sound / 2.0**15
            np.testing.assert_array_equal(split.inputs[[row]][0, :, 0], expected)
            assert split.lengths[row] == sound.size


def test_speech_source_keeps_only_full_clips_of_ten_words(speech):
    folder, sounds = speech
    task = load_source(speech_commands.speech_source(SpeechSettings(words=10), folder))
    assert [len(split.targets) for split in task.splits().values()] == [14, 3, 3]
    read = {}
    for split in task.splits().values():
        for row, label in enumerate(split.targets):
            samples = np.rint(split.inputs[[row]][0, :, 0] * 2.0**15).astype(np.int16)
            read[samples.tobytes()] = TEN_WORDS[label]
    expected = {
        sound.tobytes(): name.split("/")[0]
        for name, sound in sounds.items()
        if sound.size == 16_000 and name.split("/")[0] in TEN_WORDS
    }
    assert read == expected


def test_speech_source_refuses_ten_words_without_a_full_clip(tmp_path):
    for word in TEN_WORDS:
        write_wav(tmp_path / word / "00.wav", np.ones(900))
    with pytest.raises(ValueError, match=f"{tmp_path}: no clip of the ten words has 16,000"):
        speech_commands.speech_source(SpeechSettings(words=10), tmp_path)


def test_speech_source_standardizes_each_step_over_the_training_clips(speech):
    folder, _ = speech
    settings = SpeechSettings(words=10, standardize="per_step")
    task = load_source(speech_commands.speech_source(settings, folder))
    plain = load_source(speech_commands.speech_source(SpeechSettings(words=10), folder))
    twice = plain.train.inputs[:].astype(np.float64) / 2.0**15
    mean, std = twice.mean(axis=0), twice.std(axis=0, ddof=1)
    expected = (plain.test.inputs[:] / 2.0**15 - mean) / (std + 1e-5)
    # float32 numbers of about 1, after differences of numbers of the same size
    np.testing.assert_allclose(task.test.inputs[:], expected, atol=1e-5)


def damage_wav(path, kind):
    if kind == "empty file":
        path.write_bytes(b"")
    elif kind == "no samples":
        write_wav(path, [])
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "chunk":
        content = bytearray(path.read_bytes())
        content[16:20] = b"\x00\x00\x00\x01"  # the format is said to be longer than the file
        path.write_bytes(content)
    elif kind == "not sound":
        path.write_bytes(b"RIFF____JUNK" + bytes(100))
    elif kind == "rate":
        write_wav(path, np.zeros(8000), rate=8000)
    elif kind == "channels":
        write_wav(path, np.zeros(8000), channels=2)
    elif kind == "width":
        write_wav(path, np.zeros(8000), width=4)
    else:
        write_wav(path, np.zeros(16_001))


WAV_DAMAGE = [
    ("empty file", "not a readable WAV file"),
    ("no samples", "0 samples, expected 1 to 16,000"),
    ("truncated", "truncated, 15,950 of 16,000 samples"),
    ("not sound", "not a readable WAV file"),
    ("chunk", "not a readable WAV file"),
    ("rate", "8000 Hz, 1 channels, 16 bits; expected 16000 Hz"),
    ("channels", "16000 Hz, 2 channels, 16 bits; expected 16000 Hz, 1 channel"),
    ("width", "16000 Hz, 1 channels, 32 bits; expected"),
    ("long", "16,001 samples, expected 1 to 16,000"),
]


@pytest.mark.parametrize("kind, reason", WAV_DAMAGE)
def test_read_wav_names_the_damaged_file(tmp_path, kind, reason):
    path = tmp_path / "clip.wav"
    write_wav(path, np.zeros(16_000))
    damage_wav(path, kind)
    with pytest.raises(ValueError, match=f"clip.wav: {reason}"):
        speech_commands.read_wav(path)


def test_speech_source_names_the_damaged_clip(tmp_path, rng):
    write_speech(tmp_path, rng, clips=2)
    damage_wav(tmp_path / "cat/01.wav", "truncated")
    with pytest.raises(ValueError, match="cat/01.wav: truncated"):
        load_source(speech_commands.speech_source(SpeechSettings(), tmp_path))


@pytest.mark.parametrize("line, reason", [
    ("cat/99.wav", "line 36: no clip cat/99.wav"),
    ("cat/00.wav", "line 36: cat/00.wav is listed twice"),
    ("c\xe4t/00.wav", "^.*validation_list.txt: not a list of clips"),
])
def test_list_official_refuses_lists_that_do_not_match(tmp_path, rng, line, reason):
    write_speech(tmp_path, rng, clips=1)
    (tmp_path / "testing_list.txt").write_text("")
    with (tmp_path / "validation_list.txt").open("a") as file:
        file.write(line + "\n")
    reason = reason if reason[0] == "^" else f"validation_list.txt, {reason}"
    with pytest.raises(ValueError, match=reason):
        speech_commands.list_official(tmp_path)


def test_list_official_refuses_a_list_that_lost_its_lines(tmp_path, rng):
    write_speech(tmp_path, rng, clips=1)
    (tmp_path / "validation_list.txt").write_text("\n")
    with pytest.raises(ValueError, match="validation_list.txt: lists no clip"):
        speech_commands.list_official(tmp_path)


def test_list_official_names_a_missing_word_and_a_missing_list(tmp_path, rng):
    write_speech(tmp_path, rng, clips=1)
    (tmp_path / "testing_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match="testing_list.txt is missing"):
        speech_commands.list_official(tmp_path)
    (tmp_path / "zero/00.wav").unlink()
    with pytest.raises(FileNotFoundError, match="zero: no .wav files"):
        speech_commands.list_official(tmp_path)


@pytest.mark.parametrize("fields", [{"words": 12}, {"words": 35, "reader": "tfds"}])
def test_speech_settings_refuse_what_cannot_be(fields):
    with pytest.raises(ValueError, match=f"{fields['words']}"):
        SpeechSettings(**fields)


def filter_bank_by_hand(sound, num_bins):
    """The filter bank of Kaldi in plain loops: a discrete transform, triangles by their edges."""
    rows = []
    for start in range(0, len(sound) - 399, 160):
        frame = [float(x) for x in sound[start : start + 400]]
        mean = sum(frame) / 400
        frame = [x - mean for x in frame]
        frame = [x - 0.97 * frame[max(i - 1, 0)] for i, x in enumerate(frame)]
        frame = [
            x * (0.5 - 0.5 * math.cos(2 * math.pi * i / 399)) ** 0.85 for i, x in enumerate(frame)
        ]
        turns = np.exp(-2j * np.pi * np.outer(np.arange(256), np.arange(400)) / 512)
        power = np.abs(turns @ np.array(frame)) ** 2
        mel = [1127 * math.log(1 + k * 31.25 / 700) for k in range(256)]
        low, high = (1127 * math.log(1 + f / 700) for f in (20, 8000))
        width = (high - low) / (num_bins + 1)
        row = []
        for b in range(num_bins):
            left, center, right = (low + (b + e) * width for e in (0, 1, 2))
            energy = sum(
                p * ((m - left) / width if m <= center else (right - m) / width)
                for p, m in zip(power, mel) if left < m < right
            )
            row.append(math.log(max(energy, 2.0**-23)))
        rows.append(row)
    return np.array(rows)


def test_filter_bank_features_match_plain_loops(rng):
    sound = 0.1 * rng.standard_normal(1500) + 0.3 * np.sin(np.arange(1500) * 0.2)
    expected = filter_bank_by_hand(sound, 40)
    # float32 of logarithms up to 10
    np.testing.assert_allclose(gsc.filter_bank_features(sound, 40), expected, atol=2e-6)


def test_filter_bank_features_of_silence_are_the_floor():
    np.testing.assert_allclose(
        gsc.filter_bank_features(np.zeros(400), 40), -23 * math.log(2), rtol=1e-6
    )


def test_gsc_source_pads_behind_the_last_frame(speech):
    folder, sounds = speech
    task = load_source(gsc.gsc_source(GscSettings(), folder))
    assert task.train.inputs.shape == (35, 98, 40)
    assert set(task.train.lengths) == {1 + (9000 - 400) // 160}  # the short clips
    assert set(task.test.lengths) == {98}
    row = int(np.argmax(task.train.targets == ALL_WORDS.index("bird")))
    expected = gsc.filter_bank_features(sounds["bird/02.wav"] / 2.0**15, 40)
    np.testing.assert_array_equal(task.train.inputs[row, :54], expected)
    assert not task.train.inputs[row, 54:].any()


def test_gsc_source_names_a_clip_shorter_than_a_frame(tmp_path, rng):
    write_speech(tmp_path, rng, clips=2)
    write_wav(tmp_path / "cat/00.wav", np.zeros(300))
    with pytest.raises(ValueError, match="cat/00.wav: 300 samples, expected at least one frame"):
        load_source(gsc.gsc_source(GscSettings(), tmp_path))


def bin_by_hand(times, units, settings):
    """Bins in a plain loop: an event belongs to the number of edges that it has reached."""
    width = 700 // settings.channels_together
    counts = np.zeros((settings.num_steps, width), int)
    late = 0
    for time, unit in zip(times, units):
        edges = [k * settings.max_time / (settings.num_steps - 1)
                 for k in range(settings.num_steps)]
        step = sum(time >= edge for edge in edges)
        if step >= settings.num_steps:
            step, late = settings.num_steps - 1, late + 1
        counts[step, unit // settings.channels_together] += 1
    return counts, late


@pytest.mark.parametrize("settings", [
    EventSettings(), EventSettings(num_steps=20, max_time=0.7, channels_together=7),
])
def test_bin_events_counts_every_event_once(rng, settings):
    times = np.sort(rng.uniform(0, 1.3, 400)).astype(np.float32)
    units = rng.integers(0, 700, 400)
    counts, late = events.bin_events(times, units, settings)
    expected, expected_late = bin_by_hand(times.astype(float), units, settings)
    np.testing.assert_array_equal(counts, expected)
    assert late == expected_late > 0
    assert counts.sum() == 400 and not counts[0].any()


def test_bin_events_allows_a_silent_recording():
    counts, late = events.bin_events(np.zeros(0), np.zeros(0), EventSettings())
    assert counts.shape == (250, 140) and not counts.any() and late == 0


@pytest.mark.parametrize("times, units, reason", [
    ([0.1], [700], "units from 700 to 700"),
    ([0.1], [-1], "units from -1"),
    ([-0.1], [3], "a time is negative"),
    ([np.nan], [3], "a time is negative or not a number"),
    ([0.1, 0.2], [3], "2 times but 1 units"),
])
def test_bin_events_refuses_what_cannot_be(times, units, reason):
    with pytest.raises(ValueError, match=reason):
        events.bin_events(np.array(times), np.array(units), EventSettings())


def make_recordings(rng, count):
    return [
        (np.sort(rng.uniform(0, 1.2, n)), rng.integers(0, 700, n)) for n in range(50, 50 + count)
    ]


def test_events_source_holds_out_a_part_of_shd(tmp_path, rng):
    train, test = make_recordings(rng, 40), make_recordings(rng, 6)
    write_events(tmp_path / "shd_train.h5", train, np.arange(40) % 20)
    write_events(tmp_path / "shd_test.h5", test, np.arange(6))
    settings = EventSettings(num_steps=25)
    source = events.events_source(settings, tmp_path)
    task = load_source(source)
    assert [len(split.targets) for split in task.splits().values()] == [36, 4, 6]
    for row, (times, units) in enumerate(test):
        expected, _ = bin_by_hand(times.astype(np.float32).astype(float), units, settings)
        np.testing.assert_array_equal(task.test.inputs[[row]][0], expected)
    totals = np.concatenate([task.train.inputs[:], task.validation.inputs[:]]).sum(axis=(1, 2))
    assert sorted(totals) == list(range(50, 90))
    learnt = np.concatenate([task.train.targets, task.validation.targets])
    np.testing.assert_array_equal(learnt, (totals - 50) % 20)
    late = sum(int((np.float32(times) >= 1.0).sum()) for times, _ in train + test)
    total = sum(len(times) for times, _ in train + test)
    assert source.notes == [
        f"{late} of {total:,} events came at 1.0 s or later; they are counted in the last step"
    ]


def test_events_source_reads_the_three_files_of_ssc(tmp_path, rng):
    for k, name in enumerate(("train", "valid", "test")):
        write_events(tmp_path / f"ssc_{name}.h5", make_recordings(rng, 3), [k, k + 10, 34])
    task = load_source(events.events_source(EventSettings(dataset="ssc", num_steps=9), tmp_path))
    assert task.validation.targets.tolist() == [1, 11, 34]
    assert task.test.inputs.shape == (3, 9, 140)


@pytest.mark.parametrize("damage, reason", [
    ("truncate", "shd_test.h5: truncated, damaged, or not an HDF5 file"),
    ("links", "shd_test.h5: truncated, damaged, or not an HDF5 file"),
    ("flat", r"shd_test.h5, recording 0: times of shape \(\), expected a list"),
    ("zeros", "shd_test.h5: damaged, HDF5 does not come to its end"),
    ("groups", "shd_test.h5: no spikes/units, labels; found"),
    ("count", "shd_test.h5: its parts do not match"),
    ("label", "shd_test.h5: labels from 0 to 20, expected 0 to 19"),
    ("pairs", r"shd_test.h5: its parts do not match, .*'labels': \(3, 2\)"),
    ("words", r"shd_test.h5: labels are \|S3, expected whole numbers"),
    ("unit", "shd_test.h5, recording 1: units from 4 to 700"),
])
def test_events_source_names_the_damaged_file(tmp_path, rng, monkeypatch, damage, reason):
    import h5py

    monkeypatch.setattr(events, "_SECONDS", 1)
    recordings, labels = make_recordings(rng, 3), [0, 1, 2]
    write_events(tmp_path / "shd_train.h5", make_recordings(rng, 20), np.arange(20))
    path = tmp_path / "shd_test.h5"
    if damage == "count":
        labels = [0, 1]
    elif damage == "label":
        labels = [0, 1, 20]
    elif damage in ("pairs", "words"):
        labels = {"pairs": [[0, 1]] * 3, "words": [b"one"] * 3}[damage]
    elif damage == "unit":
        recordings[1] = ([0.1, 0.2], [4, 700])
    write_events(path, recordings, labels)
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "zeros":
        heap = path.read_bytes().index(b"GCOL") + 16  # behind the header of the first heap
        path.write_bytes(path.read_bytes()[:heap] + bytes(64) + path.read_bytes()[heap + 64 :])
    elif damage == "groups":
        with h5py.File(path, "a") as file:
            del file["spikes/units"], file["labels"]
    elif damage == "links":
        path.write_bytes(path.read_bytes().replace(b"HEAP", b"XXXX"))
    elif damage == "flat":
        with h5py.File(path, "w") as file:
            file["spikes/times"], file["spikes/units"] = [0.1, 0.2, 0.3], [4, 5, 6]
            file["labels"] = labels
    with pytest.raises(ValueError, match=reason):
        load_source(events.events_source(EventSettings(), tmp_path))


def test_events_source_names_the_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="lacks ssc_train.h5, ssc_valid.h5, ssc_test.h5"):
        events.events_source(EventSettings(dataset="ssc"), tmp_path)


def test_open_wav_files_are_closed(tmp_path, recwarn):
    """A file that is left open would warn; warnings are errors here."""
    write_wav(tmp_path / "clip.wav", np.zeros(10), rate=8000)
    with pytest.raises(ValueError):
        speech_commands.read_wav(tmp_path / "clip.wav")
    assert not recwarn.list
    with wave.open(str(tmp_path / "clip.wav")) as file:
        assert file.getnframes() == 10
