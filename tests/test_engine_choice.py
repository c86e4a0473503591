"""What `auto` runs: the table's fastest engine at the nearest shape, and its explanation."""

import pytest

from pspike_jax.functional import engine_choice, explain_engine
from pspike_jax.functional.engine import Engine

PLAIN = {"shared": False, "two_sided": False, "state_wanted": False}


def row(length, seconds, features=128, state=8, **flags):
    return {"platform": "cpu", "length": length, "features": features, "state": state, "batch": 1,
            **PLAIN, **flags, "seconds": seconds, "measured": True}


@pytest.fixture
def table(monkeypatch):
    """A small table in the place of the committed one."""
    rows = [
        row(64, {"fft": 1.0, "chunked": 2.0}),
        row(4096, {"fft": 9.0, "chunked": 3.0, "sequential": 50.0}),
        row(64, {"sequential": 1.0, "fft": 8.0}, state_wanted=True),
        row(512, {"fft": 1.0, "chunked": 1.04}),
    ]
    estimate = {"platform": "tpu", "length": 64, "features": 128, "state": 8, **PLAIN,
                "engine": "chunked", "measured": False}
    monkeypatch.setattr(engine_choice, "_table", lambda: {"cpu": rows, "tpu": [estimate]})


@pytest.mark.parametrize("length, flags, engine", [
    (70, {}, "fft"),
    (60_000, {}, "chunked"),
    (4096, {"state_wanted": True}, "sequential"),  # a row with the same flags before a nearer one
    (512, {}, "chunked"),  # slower by less than the spread, and leaner
])
def test_choose_engine_takes_the_fastest_at_the_nearest_shape(table, length, flags, engine):
    assert engine_choice.choose_engine("cpu", length, 128, 8, **PLAIN | flags) is Engine(engine)
    assert explain_engine(length, 128, 8, platform="cpu", **flags).startswith(f"{engine}: ")


def test_explain_engine_names_the_measured_times(table):
    text = explain_engine(5000, 128, 8, platform="cpu")
    assert "L 4096, H 128, N 8" in text and "chunked 3e+03 ms, fft 9e+03 ms" in text


def test_explain_engine_says_what_is_an_estimate(table):
    assert "an estimate for tpu" in explain_engine(64, 128, 8, platform="tpu")


@pytest.mark.parametrize("arguments, platform, message", [
    ((0, 128, 8), "cpu", "length must be 1 or more, got 0"),
    ((64, 128, 8), "abacus", "platform 'abacus' has no rows"),
])
def test_explain_engine_names_what_does_not_fit(table, arguments, platform, message):
    with pytest.raises(ValueError, match=message):
        explain_engine(*arguments, platform=platform)


def test_committed_table_covers_every_platform_and_marks_estimates():
    for platform in set(engine_choice.PLATFORMS.values()):
        for line in engine_choice._table()[platform]:
            assert line["measured"] is (platform == "cpu")
            engines = line["seconds"] if line["measured"] else [line["engine"]]
            assert {Engine(name) for name in engines} <= set(Engine) - {Engine.AUTO}
