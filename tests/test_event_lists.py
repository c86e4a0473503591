"""Tasks of one's own events against plain loops."""

import numpy as np
import pytest

from pspike_jax.data import from_events
from pspike_jax.data.event_lists import UNITS

N, F = 20, 9
ALL = {"train": np.arange(N)}
LABELS = np.arange(N) % 2


def make_events(rng, seconds=1.0, unit="ms", dtype=np.float64):
    times = [
        (rng.uniform(0, seconds, rng.integers(2, 60)) / UNITS[unit]).astype(dtype)
        for _ in range(N)
    ]
    return times, [rng.integers(0, F, len(one)) for one in times]


@pytest.mark.parametrize(("unit", "dtype"), [("ms", float), ("us", np.int64), ("ns", np.uint64)])
def test_events_are_counted_in_bins(rng, unit, dtype):
    times, channels = make_events(rng, unit=unit, dtype=dtype)
    task = from_events(
        times, channels, LABELS, unit=unit, bin_width=0.01, duration=1.0, num_channels=F, splits=ALL
    )
    expected = np.zeros((N, 100, F))
    for row in range(N):
        for time, channel in zip(times[row], channels[row]):
            expected[row, int(time * UNITS[unit] / 0.01 + 1e-9), channel] += 1
    np.testing.assert_array_equal(task.train.inputs, expected)
    assert np.all(task.train.lengths == 100) and task.train.inputs.dtype == np.uint8


def test_without_a_duration_an_example_ends_with_its_last_event():
    times, channels = [np.array([0.0, 0.031]), np.array([0.012]), np.array([])], [[0, 1], [2], []]
    task = from_events(
        times, channels, [0, 1, 0], unit="s", bin_width=0.01, splits={"train": [0, 1, 2]}
    )
    assert task.train.lengths.tolist() == [4, 2, 1]
    assert np.argwhere(task.train.inputs).tolist() == [[0, 0, 0], [0, 3, 1], [1, 1, 2]]


def test_more_events_than_a_byte_holds_are_counted():
    task = from_events(
        [np.zeros(300), np.array([0.0, 0.02])], [np.zeros(300, int), np.array([0, 1])], [0, 1],
        unit="s", bin_width=0.01, splits={"train": [0, 1]},
    )
    assert task.train.inputs[0, 0, 0] == 300 and task.train.inputs.sum() == 302


def test_kept_events_are_tokens_with_times_between_them(rng):
    times, channels = make_events(rng, seconds=86_400.0, unit="us", dtype=np.int64)
    task = from_events(times, channels, LABELS, unit="us", num_channels=F, splits=ALL)
    assert task.vocab_size == F
    for row in range(N):
        order = np.argsort(times[row], kind="stable")
        length = len(order)
        assert task.train.lengths[row] == length
        assert task.train.inputs[row, :length].tolist() == channels[row][order].tolist()
        passed = np.diff(times[row][order], prepend=times[row][order][0]) / 1e6
        # One float32 rounding of each difference.
        np.testing.assert_allclose(task.train.dt[row, :length], passed, rtol=1e-7)


@pytest.mark.parametrize(("stated", "true"), [("s", "ms"), ("s", "us"), ("ms", "us"), ("us", "ns")])
def test_a_wrong_unit_is_guessed(rng, stated, true):
    times, channels = make_events(rng, unit=true)
    with pytest.raises(ValueError, match=f"lie behind .* in '{stated}'; do they stand in '{true}'"):
        from_events(times, channels, LABELS, unit=stated, bin_width=0.01, duration=1.0)


def test_a_unit_that_makes_too_much_or_nothing_is_refused(rng):
    times, channels = make_events(rng, unit="ns")
    with pytest.raises(ValueError, match="bins of 0.01 s .* in 's'; do they stand in"):
        from_events(times, channels, LABELS, unit="s", bin_width=0.01)
    times, channels = make_events(rng, unit="ms")  # fits in memory, and hardly a bin has an event
    with pytest.raises(ValueError, match="hold at most .* events, .* do they stand in 'ms'"):
        from_events(times, channels, LABELS, unit="s", bin_width=0.01)
    times, channels = make_events(rng, unit="s")
    with pytest.raises(ValueError, match="no event lies behind the first bin .* in 'us'"):
        from_events(times, channels, LABELS, unit="us", bin_width=0.01)


def test_a_few_late_events_are_left_out(rng):
    times, channels = make_events(rng, unit="s")
    times[3][0] = 7.0
    task = from_events(
        times, channels, LABELS, unit="s", bin_width=0.1, duration=1.0, num_channels=F, splits=ALL
    )
    assert task.train.inputs.sum() == sum(map(len, times)) - 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"unit": "minutes"}, ValueError, "unit is 'minutes', expected one of s, ms, us, ns"),
        ({"bin_width": 0.0}, ValueError, "bin_width is 0.0, expected seconds above 0"),
        ({"num_channels": 2}, ValueError, "the highest channel is 8, expected 0 to 1"),
        ({"times": [np.array([-1.0])]}, ValueError, r"times\[0\] hold -1.0, expected 0 or more"),
        ({"times": [np.array([np.nan])]}, ValueError, r"times\[0\] hold nan"),
        ({"channels": [np.array([0.5])]}, TypeError, r"channels\[0\] float64"),
        ({"channels": [np.array([-2])]}, ValueError, r"channels\[0\] hold -2"),
        ({"channels": [np.array([1, 2])]}, ValueError, r"times\[0\] have shape \(1,\)"),
        ({"channels": []}, ValueError, "1 arrays of times and 0 of channels"),
        ({"times": [np.ma.ones(1)]}, TypeError, r"times\[0\]: a masked array"),
        ({"times": [[]], "channels": [[]], "num_channels": 3}, ValueError, "hold no event"),
    ],
)
def test_events_that_are_none_are_refused(change, error, message):
    given = {"times": [np.array([0.1])], "channels": [np.array([8])], "unit": "s"} | change
    with pytest.raises(error, match=message):
        from_events(given.pop("times"), given.pop("channels"), [0], **given)
