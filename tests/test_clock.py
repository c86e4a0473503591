"""Where the time of a run goes, and which steps a profile covers."""

import pytest

from pspike_jax.training import clock as clock_module
from pspike_jax.training.clock import Clock, Profile


def test_clock_gives_seconds_per_step_and_starts_again(monkeypatch):
    times = iter([0.0, 1.0, 1.0, 4.0, 10.0, 12.0, 12.0, 14.0])
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: next(times))
    clock = Clock()
    for _ in range(2):
        with clock.part("data"):  # 0 to 1, 10 to 12
            pass
        with clock.part("compute"):  # 1 to 4, 12 to 14
            pass
        clock.end_step()
    assert clock.take() == {
        "time/data": 1.5, "time/compute": 2.5, "time/save": 0.0, "time/waiting_for_data": 3 / 8,
    }
    assert set(clock.take().values()) == {0.0}


def test_profile_covers_the_steps_that_it_was_asked_for(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(clock_module.jax.profiler, "start_trace", lambda _: calls.append("start"))
    monkeypatch.setattr(clock_module.jax.profiler, "stop_trace", lambda: calls.append("stop"))
    profile = Profile(tmp_path, (2, 3))
    for step in range(1, 5):
        profile.before(step)
        calls.append(step)
        profile.after(step, None)
    profile.close()
    assert calls == [1, "start", 2, 3, "stop", 4]


@pytest.mark.parametrize("steps", [(0, 3), (4, 3)])
def test_profile_refuses_steps_that_are_not_in_order(tmp_path, steps):
    with pytest.raises(ValueError, match="profile_steps is .* expected FIRST <= LAST, from 1"):
        Profile(tmp_path, steps)
