"""Whole models against float64 loops: logits, counts, gradients, padding, sharing of noise."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle_models import Oracle
from small_models import (
    LENGTH,
    compiled,
    draw_inputs,
    draw_noise,
    draw_variables,
    small_model,
)

LENGTHS = jnp.array([7, LENGTH, 1])
TIE = 1e-5  # rounding in float32 moves drives of these sizes by less

# Every choice of the paper's block, and every way to pool, stands in one of these.
VARIANTS = {
    "causal": ("pspikessm", {}),
    "two_sided": ("pspikessm", {"causal": False, "shared_dynamics": True, "pool": "last"}),
    "bidirectional": (
        "pspikessm",
        {"causal": False, "bidirectional": True, "vocab_size": 5, "pool": "none"},
    ),
    "batch_norm_after": (
        "pspikessm",
        {
            "norm": "batch",
            "prenorm": False,
            "residual": False,
            "mixer": "none",
            "activation": "relu",
        },
    ),
    "lif": ("lif_ssm", {}),
    "s4d": ("s4d", {"causal": False}),
}


class Case:
    """A variant with drawn parameters, run by the model and by the oracle on the same noise."""

    def __init__(self, name, fields):
        self.model = model = small_model(name, **fields)
        self.inputs = draw_inputs(model)
        self.variables = draw_variables(model, self.inputs)
        samplers = 4 if fields.get("bidirectional") else 2
        self.noise = draw_noise(samplers) if name == "pspikessm" else None
        self.train = fields.get("norm") == "batch"

        def run(variables, inputs, lengths, noise):
            return model.apply(
                variables,
                inputs,
                lengths,
                train=self.train,
                noise=noise,
                capture=True,
                mutable=["batch_stats"],
            )

        arguments = (self.variables, self.inputs, LENGTHS, self.noise)
        self.program = compiled(run, *arguments)
        (self.logits, self.aux), self.stats = self.program(*arguments)
        self.oracle = Oracle(model, self.variables, LENGTHS, self.noise, self.train)
        self.expected = self.oracle.classify(self.inputs)

    def with_garbage(self):
        """Run again with other values where inputs are padding."""
        padding = np.arange(LENGTH)[None, :] >= np.asarray(LENGTHS)[:, None]
        inputs = np.array(self.inputs)
        if inputs.ndim == 2:
            inputs[padding] = (inputs[padding] + 1) % self.model.config.vocab_size
        else:
            inputs[padding] = 1e3
        return self.program(self.variables, jnp.asarray(inputs), LENGTHS, self.noise)


build_case = functools.cache(lambda variant: Case(*VARIANTS[variant]))


@pytest.fixture(params=VARIANTS)
def case(request):
    return build_case(request.param)


def valid_steps(logits):
    """Logits of every step after an example's end are of no concern."""
    logits = np.asarray(logits)
    if logits.ndim == 3:
        logits = logits * (np.arange(LENGTH)[None, :] < np.asarray(LENGTHS)[:, None])[..., None]
    return logits


def test_model_matches_the_float64_loop(case):
    assert case.oracle.margin > TIE, "a drive of this seed is a tie: take another"
    expected = valid_steps(case.expected)
    # Some thirty float32 operations in a row, 6e-8 each, on features that cancel in the norms.
    np.testing.assert_allclose(
        valid_steps(case.logits), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


def test_model_counts_the_activity_of_the_float64_loop(case):
    assert set(case.aux["sites"]) == set(case.oracle.records)
    for site, record in case.aux["sites"].items():
        for name, expected in case.oracle.counts(site).items():
            # Counts are whole numbers; the sum of probabilities rounds in float32.
            rtol = 1e-5 if name == "probability" else 0
            np.testing.assert_allclose(record[name], expected, rtol=rtol, err_msg=f"{site} {name}")


def test_model_captures_the_spikes_of_the_float64_loop(case):
    for site, record in case.aux["sites"].items():
        spikes = np.stack([layer[0] for layer in case.oracle.records[site]])
        valid = case.oracle.valid[None, ..., None]
        np.testing.assert_array_equal(record["spike_array"] * valid, spikes * valid)
        assert 0.1 < spikes.mean() < 0.9, "silent or saturated: the test would see nothing"


def test_logits_do_not_depend_on_padding(case):
    (logits, _), _ = case.with_garbage()
    # Bitwise: what is masked enters every sum as an exact zero.
    np.testing.assert_array_equal(valid_steps(logits), valid_steps(case.logits))


def test_activity_does_not_depend_on_padding(case):
    (_, aux), _ = case.with_garbage()
    for site, record in aux["sites"].items():
        for name in case.oracle.counts(site):
            np.testing.assert_array_equal(record[name], case.aux["sites"][site][name])


def test_batch_statistics_match_the_float64_loop():
    case = build_case("batch_norm_after")
    running = case.stats["batch_stats"]["backbone"]["blocks"]["fuse"]["norm"]["batch"]
    for name, values in running.items():
        expected = [statistics[name] for statistics in case.oracle.statistics]
        np.testing.assert_allclose(values, expected, rtol=1e-5)  # a mean of 20 float32 values


def test_batch_statistics_do_not_depend_on_padding():
    case = build_case("batch_norm_after")
    _, stats = case.with_garbage()
    chex.assert_trees_all_equal(stats, case.stats)


def gradients(model, train=False, sampling="spikes", lengths=None, seed=0):
    """Return the variables, inputs, weights and gradients of sum(weights logits)."""
    inputs = draw_inputs(model)
    variables = draw_variables(model, inputs, seed)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3)), jnp.float32)

    def loss(params, variables, key):
        (logits, _), _ = model.apply(
            variables | {"params": params},
            inputs,
            lengths,
            train=train,
            sampling=sampling,
            rngs={"spikes": key},
            mutable=["batch_stats"],
        )
        return jnp.sum(weights * logits)

    arguments = (variables["params"], variables, jax.random.key(5))
    program = compiled(jax.value_and_grad(loss), *arguments)
    return variables, inputs, weights, program(*arguments)


paper_gradients = functools.cache(lambda remat: gradients(small_model(remat=remat)))


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_every_parameter_gets_a_gradient(preset):
    if preset == "paper":
        *_, (_, grads) = paper_gradients("none")
    else:
        model = small_model(preset=preset, vocab_size=5)
        *_, (_, grads) = gradients(model, train=True, seed=9)
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(gradient).all(), path
        # A neuron that is never between its bounds learns nothing for the moment, and `official`
        # has some; half an array without a gradient would be a direction or layer that is dead.
        assert np.mean(np.asarray(gradient) != 0) > 0.8, path


def test_rematerialization_repeats_the_noise():
    *_, (loss, grads) = paper_gradients("none")
    *_, (loss_again, grads_again) = paper_gradients("block")
    # Another draw in the backward pass would change which clamps pass a gradient, by per cents.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(loss_again, loss)
    jax.tree.map(close, grads_again, grads)


def test_mean_field_gradient_matches_differences_of_the_float64_loop():
    model = small_model(causal=False, bidirectional=True)
    variables, inputs, weights, (_, grads) = gradients(model, sampling="mean", lengths=LENGTHS)
    rng = np.random.default_rng(2)

    def loss(params):
        oracle = Oracle(model, {"params": params}, LENGTHS)
        return np.sum(np.asarray(weights, np.float64) * oracle.classify(inputs)), oracle.margin

    leaves, tree = jax.tree_util.tree_flatten_with_path(variables["params"])
    assert loss(variables["params"])[1] > TIE, "a drive of this seed is at a kink: take another"
    step = 1e-6
    for i, (path, leaf) in enumerate(leaves):
        direction = rng.normal(size=leaf.shape)

        def moved(h):
            values = [np.float64(a) for _, a in leaves]
            values[i] = values[i] + h * direction
            return loss(jax.tree.unflatten(tree, values))[0]

        # Central differences err by step^2 and by 1e-16 / step; the float32 gradient by the
        # rounding of some hundred terms.
        expected = (moved(step) - moved(-step)) / (2 * step)
        found = np.sum(np.float64(jax.tree.leaves(grads)[i]) * direction)
        scale = np.linalg.norm(jax.tree.leaves(grads)[i]) * np.linalg.norm(direction)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * scale, err_msg=str(path))


def test_causal_model_has_no_gradient_from_later_inputs():
    model = small_model(pool="none", engine="chunked")
    inputs = draw_inputs(model, batch=1)
    variables = draw_variables(model, inputs)

    def outputs(inputs):
        return model.apply(variables, inputs, sampling="mean")[0][0].sum(axis=-1)

    jacobian = np.asarray(compiled(jax.jacrev(outputs), inputs)(inputs))[:, 0]  # (L, L, F)
    later = np.arange(LENGTH)[None, :] > np.arange(LENGTH)[:, None]
    assert not jacobian[later].any()  # exactly zero: the engine multiplies by zeros
    assert jacobian[~later].any(axis=-1).all(), "every earlier input has a say"
