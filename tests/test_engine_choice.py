"""What `auto` runs: the table's fastest engine at the nearest shape, and its explanation."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from pspike_jax.functional import engine_choice, explain_engine, linear_ssm
from pspike_jax.functional.engine import Engine
from pspike_jax.nn.mixers import DPLRSSM

linear_ssm_room = sys.modules["pspike_jax.functional.linear_ssm"]  # the function hides its module
PLAIN = {"shared": False, "two_sided": False, "state_wanted": False}


def row(length, seconds, features=128, state=8, batch=1, **flags):
    return {"platform": "cpu", "length": length, "features": features, "state": state,
            "batch": batch, **PLAIN, **flags, "seconds": seconds, "measured": True}


@pytest.fixture
def table(monkeypatch):
    """A small table in the place of the committed one."""
    rows = [
        row(64, {"fft": 1.0, "chunked": 2.0}),
        row(4096, {"fft": 9.0, "chunked": 3.0, "sequential": 50.0}),
        row(64, {"sequential": 1.0, "fft": 8.0}, state_wanted=True),
        row(512, {"fft": 1.0, "chunked": 1.04}),
        row(64, {"fft": 30.0, "chunked": 20.0}, batch=32),
    ]
    estimate = {"platform": "tpu", "length": 64, "features": 128, "state": 8, "batch": 1,
                **PLAIN, "engine": "chunked", "measured": False}
    monkeypatch.setattr(engine_choice, "_table", lambda: {"cpu": rows, "tpu": [estimate]})


@pytest.mark.parametrize("length, batch, flags, engine", [
    (70, 1, {}, "fft"),
    (70, 12, {}, "chunked"),
    (60_000, 1, {}, "chunked"),
    # A row with the same flags comes before a nearer one.
    (4096, 1, {"state_wanted": True}, "sequential"),
    (512, 1, {}, "chunked"),  # slower by less than the spread, and leaner
])
def test_choose_engine_takes_the_fastest_at_the_nearest_shape(table, length, batch, flags, engine):
    chosen = engine_choice.choose_engine("cpu", length, 128, 8, batch, **PLAIN | flags)
    assert chosen is Engine(engine)
    text = explain_engine(length, 128, 8, batch=batch, platform="cpu", **flags)
    assert text.startswith(f"{engine}: ")


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


def test_auto_goes_by_the_batch(table, monkeypatch):
    asked = []
    monkeypatch.setattr(linear_ssm_room, "choose_engine", lambda *sizes, **_: (
        asked.append(sizes[1:]) or Engine.SEQUENTIAL
    ))
    system = (jnp.zeros((5, 2), jnp.complex64),) * 3
    linear_ssm(jnp.zeros((3, 4, 7, 5)), *system)
    linear_ssm(jnp.zeros((7, 5)), *system)
    assert set(asked) == {(7, 5, 2, 12), (7, 5, 2, 1)}


def test_committed_table_covers_every_platform_and_marks_estimates():
    for platform in set(engine_choice.PLATFORMS.values()):
        for line in engine_choice._table()[platform]:
            assert line["measured"] is (platform == "cpu")
            seconds = line["seconds"] if line["measured"] else line["estimated_seconds"]
            assert {Engine(name) for name in seconds} <= set(Engine) - {Engine.AUTO}
            if not line["measured"]:
                assert engine_choice.fastest(seconds) is Engine(line["engine"])
                assert line["note"].startswith("compiled, not measured")


@pytest.mark.parametrize(("steps", "convolves"), [(255, True), (256, False)])
def test_low_rank_layers_convolve_on_cpus_where_steps_are_few_for_their_state(steps, convolves):
    layer = DPLRSSM(2, 4, True, False, True, 1e-3, 1e-1, 256)
    u = jax.ShapeDtypeStruct((1, steps, 2), jnp.float32)
    variables = jax.eval_shape(lambda u: nn.meta.unbox(layer.init(jax.random.key(0), u)), u)
    program = jax.jit(layer.apply).trace(variables, u).lower(lowering_platforms=("cpu",))
    assert ("stablehlo.fft" in program.as_text()) == convolves
