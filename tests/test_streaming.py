"""Streams: by steps and by chunks of any length, what the parallel pass gives on each prefix."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import (
    LENGTH,
    check_noise,
    compiled,
    draw_inputs,
    draw_noise,
    draw_variables,
    keyed_noise,
    small_model,
)

KEY, IDS, BATCH = jax.random.key(3), jnp.array([6, 4]), 2
TIE = 1e-5  # rounding in float32 moves probabilities by less
BY_STEP, BY_CHUNK = (1,) * LENGTH, (5, 1, 1, 5)
SAMPLERS = {"input": 0, "output": 1}
SHARED = {"input": 0, "input_reverse": 1, "output": 0, "output_reverse": 0}

MODELS = {
    "keyed": ("pspikessm", "paper", {}),
    "dplr": ("pspikessm", "paper", {"parametrization": "dplr", "pool": "last", "l_max": 16}),
    "official": ("pspikessm", "official", {"causal": True, "vocab_size": 5, "l_max": 16}),
    "lif": ("lif_ssm", "paper", {}),
    "s4d": ("s4d", "s4d", {"pool": "none"}),
}


class Stream:
    """A model and its programs: the parallel pass, and one for each length of a chunk."""

    def __init__(self, name):
        kind, preset, fields = MODELS[name]
        self.model = small_model(kind, preset, **fields)
        self.keyed = name == "keyed"
        self.samplers = SHARED if name == "official" else SAMPLERS
        self.inputs = draw_inputs(self.model, batch=BATCH)
        self.variables = draw_variables(self.model, self.inputs)
        self.noise = None
        if self.keyed:
            self.noise = keyed_noise(self.model, KEY, 2, IDS, jnp.arange(LENGTH))
        elif kind == "pspikessm":
            self.noise = draw_noise(2, batch=BATCH)
        self.programs = {}

    def call(self, steps):
        """Return keyword arguments of a call that covers a slice of the steps."""
        if self.keyed:
            return {"rngs": {"spikes": KEY}, "example_ids": IDS}
        return {"noise": jax.tree.map(lambda a: a[:, steps], self.noise)}

    def run(self, name, function, *arguments):
        if name not in self.programs:
            self.programs[name] = compiled(function, *arguments)
        return self.programs[name](*arguments)

    def parallel(self, length):
        """Return (logits, aux) of the parallel pass on the first steps, the rest padding."""

        def apply(inputs, lengths, call):
            return self.model.apply(self.variables, inputs, lengths, capture=True, **call)

        lengths = jnp.full(BATCH, length)
        return self.run("parallel", apply, self.inputs, lengths, self.call(slice(None)))

    def chunk(self, state, start, length):
        """Return (state, (logits, aux)) after the next steps."""

        def apply(state, inputs, call):
            method, x = ("step", inputs[:, 0]) if length == 1 else ("prefill", inputs)
            return self.model.apply(self.variables, state, x, capture=True, method=method, **call)

        steps = slice(start, start + length)
        return self.run(length, apply, state, self.inputs[:, steps], self.call(steps))

    def stream(self, lengths):
        """Run the chunks; return the final state, [(end, logits)] and [aux]."""
        state, end, logits, records = self.model.initial_state(BATCH), 0, [], []
        for length in lengths:
            state, (scores, aux) = self.chunk(state, end, length)
            end += length
            logits.append((end, scores))
            records.append(aux)
        return state, logits, records


build = functools.cache(Stream)


def joined(records, name):
    """Return {site: array} with the chunks' arrays joined along time."""
    return {
        site: np.concatenate([aux["sites"][site][name] for aux in records], axis=2)
        for site in records[0]["sites"]
    }


def cases(*names):
    """Every model by steps, and all but `official`, whose SSM is that of "dplr", by chunks."""
    by_step = [(name, BY_STEP) for name in names]
    by_chunk = [(name, BY_CHUNK) for name in names if name != "official"]
    return pytest.mark.parametrize("name, lengths", [*by_step, *by_chunk, ("keyed", (6, 1, 5))])


@cases(*MODELS)
def test_stream_has_the_logits_of_the_parallel_pass_on_each_prefix(name, lengths):
    model = build(name)
    _, streamed, _ = model.stream(lengths)
    before = 0
    for end, logits in streamed:
        expected, _ = model.parallel(end)
        if name == "s4d":  # without pooling: the scores of the chunk's steps, or of the one step
            expected = expected[:, end - 1] if end - before == 1 else expected[:, before:end]
        before = end
        # The same spikes; states and kernels round differently in float32.
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=2e-5, err_msg=f"at {end}")


@cases("keyed", "dplr", "official", "lif")
def test_stream_has_the_spikes_of_the_parallel_pass(name, lengths):
    model = build(name)
    _, expected = model.parallel(LENGTH)
    if model.noise is not None:
        for site, sampler in model.samplers.items():
            uniform = np.stack([arrays[sampler] for arrays in model.noise])
            gap = np.abs(expected["sites"][site]["probability_array"] - uniform)
            assert gap.min() > TIE, "a tie at this seed: take another key"
    _, _, records = model.stream(lengths)
    for site, spikes in joined(records, "spike_array").items():
        np.testing.assert_array_equal(spikes, expected["sites"][site]["spike_array"], err_msg=site)
        assert 0.02 < spikes.mean() < 0.95, "silent or saturated: the test would see nothing"


@cases("keyed", "dplr", "official", "lif")
def test_stream_counts_what_the_parallel_pass_counts(name, lengths):
    model = build(name)
    _, expected = model.parallel(LENGTH)
    _, _, records = model.stream(lengths)
    for site in expected["sites"]:
        for count in ("spikes", "steps", "neuron_spikes"):
            total = sum(np.asarray(aux["sites"][site][count]) for aux in records)
            np.testing.assert_array_equal(total, expected["sites"][site][count], err_msg=count)


@pytest.mark.parametrize("lengths", [BY_STEP, BY_CHUNK, (6, 1, 5)])
def test_stream_noise_goes_on_where_the_last_chunk_ended(lengths):
    model = build("keyed")
    _, _, records = model.stream(lengths)
    arrays = {name: joined(records, name) for name in ("spike_array", "probability_array")}
    sites = {site: {name: arrays[name][site] for name in arrays} for site in SAMPLERS}
    check_noise({"sites": sites}, model.noise, SAMPLERS)


def test_stream_noise_of_a_late_step_is_that_of_its_number():
    model = build("keyed")
    late = 2**31 - 2
    state = model.model.initial_state(BATCH) | {"t": jnp.int32(late)}
    state, (_, aux) = model.chunk(state, 0, 1)
    noise = keyed_noise(model.model, KEY, 2, IDS, jnp.array([late]))
    check_noise(aux, noise, SAMPLERS)
    assert state["t"] == late + 1


@pytest.mark.parametrize("name", MODELS)
def test_stream_counts_its_steps(name):
    state, _, _ = build(name).stream(BY_STEP)
    assert state["t"] == LENGTH


def test_stream_state_is_a_value():
    model = build("keyed")
    state, _, _ = model.stream((5,))
    first, again = model.chunk(state, 5, 1), model.chunk(state, 5, 1)
    chex.assert_trees_all_equal(first, again)
