"""Engines may disagree about a spike at a tie, and nowhere before it."""

import functools
import pathlib
import sys

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import compiled, draw_inputs, draw_noise, draw_variables, small_model

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks import ties  # noqa: E402

BATCH, LENGTH, FIRST = 8, 40, 30  # no tie before the step FIRST
TIE = 1e-5


@functools.cache
def program(engine):
    """Return a function of uniforms to the arrays of a pass by an engine."""
    model = small_model(engine=engine)
    inputs = draw_inputs(model, batch=BATCH, length=LENGTH)
    variables = draw_variables(model, inputs)
    run = lambda noise: model.apply(variables, inputs, noise=noise, capture=True)[1]
    shape = draw_noise(2, batch=BATCH, length=LENGTH)
    executable = compiled(run, shape)
    return lambda noise: ties.stacked(executable(noise))


@functools.cache
def reference():
    """The chunked engine: its pass, and noise that ties with its drives at the late steps.

    The uniforms of the first layer's output at these steps are the very probabilities that this
    engine finds, which others round differently.
    """
    chunked, noise = program("chunked"), draw_noise(2, batch=BATCH, length=LENGTH)
    (first_input, first_output), second = noise
    p = jnp.asarray(chunked(noise)["probability_array"][1])
    late = (jnp.arange(LENGTH) >= FIRST)[None, :, None] & (p > 0) & (p < 1)
    noise = ((first_input, jnp.where(late, p, first_output)), second)
    return noise, chunked(noise)


@pytest.mark.parametrize("engine", ["sequential", "fft"])
def test_first_disagreement_of_engines_is_a_tie(engine):
    noise, expected = reference()
    found = program(engine)(noise)
    counts = ties.ties(expected, found)
    assert counts["ties"] > 0, "these engines round alike: the test would see nothing"
    assert counts["disagreements"] > counts["ties"], "no tie had a consequence"
    assert counts["widest"] <= TIE
    before = slice(0, FIRST)
    np.testing.assert_array_equal(
        found["spike_array"][:, :, before], expected["spike_array"][:, :, before]
    )


def test_tied_drives_lie_within_rounding_of_their_uniforms():
    noise, expected = reference()
    uniform = np.asarray(noise[0][1])
    tied = np.abs(expected["probability_array"][1] - uniform) <= TIE
    assert tied[:, FIRST:].mean() > 0.3 and not tied[:, :FIRST].any()


def test_pass_with_ties_repeats_bitwise():
    noise, expected = reference()
    chex.assert_trees_all_equal(program("chunked")(noise), expected)
