"""One key, one noise: the same uniforms and spikes however a model is run."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from oracle_models import Oracle
from small_models import (
    check_noise,
    compiled,
    draw_inputs,
    draw_noise,
    draw_variables,
    keyed_noise,
    small_model,
)

IDS = jnp.arange(8) + 30
KEY = jax.random.key(12)
TIE = 1e-5  # rounding in float32 moves probabilities by less

# The uniform of each site in order of use, where each has its own, and as the program shares them.
OWN = {"input": 0, "input_reverse": 1, "output": 2, "output_reverse": 3}
SHARED = {"input": 0, "input_reverse": 1, "output": 0, "output_reverse": 0}


def captured(outputs):
    """Keep the arrays of (logits, aux), so that no program computes the counts."""
    logits, aux = outputs
    names = ("spike_array", "probability_array")
    sites = aux["sites"].items()
    return logits, {"sites": {site: {n: record[n] for n in names} for site, record in sites}}


def run(model):
    """Return a function of (variables, inputs, lengths, ids, key) to (logits, aux)."""
    return lambda variables, inputs, lengths, ids, key: captured(
        model.apply(variables, inputs, lengths, example_ids=ids, capture=True, rngs={"spikes": key})
    )


class Pass:
    """The pass that others are compared with: eight examples, jitted, on one device."""

    def __init__(self):
        self.model = small_model()
        self.inputs = draw_inputs(self.model, batch=8)
        self.variables = draw_variables(self.model, self.inputs)
        self.lengths = jnp.array([12, 3, 7, 12, 1, 9, 11, 5])
        self.arguments = (self.variables, self.inputs, self.lengths, IDS, KEY)
        self.program = compiled(run(self.model), *self.arguments)
        self.logits, self.aux = self.program(*self.arguments)
        self.noise = keyed_noise(self.model, KEY, 2, IDS, jnp.arange(12))
        for site, sampler in (("input", 0), ("output", 1)):
            p = self.aux["sites"][site]["probability_array"]
            uniform = np.stack([arrays[sampler] for arrays in self.noise])
            assert np.min(np.abs(p - uniform)) > TIE, "a tie at this seed: take another key"

    def check(self, logits, aux, rows=slice(None)):
        """Raise where noise bits or spikes differ at all, or logits by more than rounding."""
        noise = jax.tree.map(lambda array: array[rows], self.noise)
        check_noise(aux, noise, {"input": 0, "output": 1})
        for site, record in aux["sites"].items():
            expected = self.aux["sites"][site]["spike_array"][:, rows]
            np.testing.assert_array_equal(record["spike_array"], expected)
        # The same spikes; float32 sums in another order.
        np.testing.assert_allclose(logits, self.logits[rows], rtol=1e-5, atol=1e-5)


single = functools.cache(Pass)


def test_spikes_compare_with_the_documented_uniforms():
    check_noise(single().aux, single().noise, {"input": 0, "output": 1})


def test_pass_repeats_bitwise():
    again = single().program(*single().arguments)
    chex.assert_trees_all_equal(again, (single().logits, single().aux))


def test_example_is_the_same_in_another_batch():
    rows = np.array([4, 0, 2])
    variables, inputs, lengths, ids, key = single().arguments
    arguments = (variables, inputs[rows], lengths[rows], ids[rows], key)
    logits, aux = compiled(run(single().model), *arguments)(*arguments)
    single().check(logits, aux, rows)


def test_example_is_the_same_with_padding_behind_it():
    variables, inputs, _, ids, key = single().arguments
    rows, steps = np.flatnonzero(single().lengths == 7), slice(0, 7)
    alone = (variables, inputs[rows, steps], jnp.array([7]), ids[rows], key)
    logits, aux = compiled(run(single().model), *alone)(*alone)
    cut = lambda record: {name: array[:, rows, steps] for name, array in record.items()}
    noise = jax.tree.map(lambda array: array[rows, steps], single().noise)
    check_noise(aux, noise, {"input": 0, "output": 1})
    for site, record in aux["sites"].items():
        expected = cut(single().aux["sites"][site])["spike_array"]
        np.testing.assert_array_equal(record["spike_array"], expected)
    # The same spikes; float32 sums in another order.
    np.testing.assert_allclose(logits, single().logits[rows], rtol=1e-5, atol=1e-5)


def test_rematerialization_has_the_same_spikes():
    model = small_model(remat="block")

    def loss(variables, *arguments):
        logits, aux = run(model)(variables, *arguments)
        return jnp.sum(logits), (logits, aux)

    program = compiled(jax.grad(loss, has_aux=True), *single().arguments)
    single().check(*program(*single().arguments)[1])


def test_pass_without_jit_has_the_same_spikes_and_numbers_examples_by_row():
    variables, inputs, lengths, _, key = single().arguments
    rows = (variables, inputs, lengths, jnp.arange(8), key)
    logits, aux = run(single().model)(variables, inputs, lengths, None, key)
    expected, expected_aux = single().program(*rows)
    for site, record in aux["sites"].items():
        np.testing.assert_array_equal(
            record["spike_array"], expected_aux["sites"][site]["spike_array"]
        )
    # The same spikes; float32 sums in another order.
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_given_noise_has_the_same_spikes():
    model = single().model
    program = lambda variables, inputs, lengths, noise: captured(
        model.apply(variables, inputs, lengths, noise=noise, capture=True)
    )
    arguments = (*single().arguments[:3], single().noise)
    single().check(*compiled(program, *arguments)(*arguments))


def test_mesh_of_eight_devices_has_the_same_spikes():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    program = jax.jit(run(single().model), in_shardings=(whole, rows, rows, rows, whole))
    logits, aux = program(*single().arguments)
    assert len(logits.sharding.device_set) == 8
    single().check(logits, aux)
    again = program(*single().arguments)
    chex.assert_trees_all_equal(again, (logits, aux))


def test_official_block_shares_the_uniforms_of_the_program():
    model = small_model(preset="official", vocab_size=5)
    inputs, noise = draw_inputs(model), draw_noise(2)
    program = lambda variables, inputs, noise: captured(
        model.apply(variables, inputs, noise=noise, capture=True)
    )
    arguments = (draw_variables(model, inputs), inputs, noise)
    _, aux = compiled(program, *arguments)(*arguments)
    assert set(aux["sites"]) == set(SHARED)
    check_noise(aux, noise, SHARED)


def test_independent_noise_gives_each_sampler_its_own():
    model = small_model(preset="official", vocab_size=5, noise_sharing="independent")
    assert model.config.samplers == OWN


class Documents:
    """A model that compares two documents, run once, and its pass in float64."""

    def __init__(self):
        self.model = model = small_model(documents=2, vocab_size=5)
        self.inputs = draw_inputs(model)
        self.variables = draw_variables(model, self.inputs)
        self.lengths = jnp.array([[3, 12], [12, 12], [7, 1]])
        self.ids = jnp.array([5, 2, 9])
        self.arguments = (self.variables, self.inputs, self.lengths, self.ids, KEY)
        self.program = compiled(run(model), *self.arguments)
        self.logits, self.aux = self.program(*self.arguments)
        rows = jnp.array([10, 11, 4, 5, 18, 19])  # 2 id and 2 id + 1, one for each document
        noise = keyed_noise(model, KEY, 2, rows, jnp.arange(12))
        self.oracle = Oracle(model, self.variables, self.lengths, noise)
        self.expected = self.oracle.classify(self.inputs)


documents = functools.cache(Documents)


def test_two_documents_match_the_float64_loop():
    assert documents().oracle.margin > TIE, "a drive of this seed is a tie: take another"
    # Rounding of some thirty float32 operations in a row.
    np.testing.assert_allclose(documents().logits, documents().expected, rtol=0, atol=2e-5)


def test_two_documents_are_the_same_in_another_order_of_examples():
    order = np.array([2, 0, 1])
    variables, inputs, lengths, ids, key = documents().arguments
    logits, _ = documents().program(variables, inputs[order], lengths[order], ids[order], key)
    np.testing.assert_array_equal(logits, documents().logits[order])


def test_two_equal_documents_draw_apart():
    variables, inputs, lengths, ids, key = documents().arguments
    same = inputs.at[:, 1].set(inputs[:, 0])
    _, aux = documents().program(variables, same, lengths, ids, key)
    first, second = (aux["sites"]["input"]["spike_array"][:, i::2] for i in (0, 1))
    assert not np.array_equal(first, second)


ATTUNED = {"parametrization": "dplr", "pool": "none", "d_state": 4, "l_max": 12}


@functools.cache
def attuned():
    """A causal model whose kernel is attuned to 12 steps."""
    model = small_model(**ATTUNED)
    inputs = draw_inputs(model)
    return model, draw_variables(model, inputs), inputs


def half_threshold(model, variables, inputs):
    run = lambda variables, inputs: model.apply(variables, inputs, noise=0.5)[0]
    return np.asarray(compiled(run, variables, inputs)(variables, inputs))


def test_attuned_kernel_is_truncated_for_shorter_inputs():
    model, variables, inputs = attuned()
    whole = half_threshold(model, variables, inputs)
    part = half_threshold(model, variables, inputs[:, :7])
    # Kernels by FFTs of one length; convolutions of 7 and of 12 steps round differently.
    np.testing.assert_allclose(part, whole[:, :7], rtol=0, atol=2e-5 * np.abs(whole).max())


def test_attuned_kernel_refuses_longer_inputs():
    model, variables, inputs = attuned()
    longer = jnp.concatenate([inputs, inputs[:, :1]], axis=1)
    with pytest.raises(ValueError, match="13 steps.* attuned to 12.* l_max"):
        jax.eval_shape(lambda: model.apply(variables, longer, noise=0.5))


def test_attuned_kernel_without_a_length_is_an_error():
    with pytest.raises(ValueError, match="l_max is None"):
        small_model(**ATTUNED | {"l_max": None})


def test_mean_field_needs_no_randomness():
    model = single().model
    shape = jax.eval_shape(
        lambda: model.apply(single().variables, single().inputs, sampling="mean")[0]
    )
    assert shape.shape == (8, 3)
