"""Networks of reset-based neurons: the common contract, readouts, padding, streaming, training."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax import models
from pspike_jax.functional.dropout import dropout
from pspike_jax.models.silif import NEURONS

LENGTH, BATCH, INPUTS, CLASSES = 21, 4, 6, 3
LENGTHS = np.asarray([21, 13, 1, 20], np.int32)
POOLS = ("softmax_sum", "mean", "last", "max")

# Parameters are drawn from these ranges, not from `init`: neurons then fire within 21 steps.
RANGES = {
    "kernel": (-2, 2),
    "recurrent": (-1, 1),
    "scale": (2, 4),
    "bias": (1, 3),
    "mean": (-1, 1),
    "var": (0.5, 2),
    "alpha": (0.83, 0.95),
    "beta": (0.965, 0.985),
    "a": (0.1, 0.5),
    "b": (0.1, 1),
    "log_dt": (-5, -4),
    "log_rate_u": (3, 5),
    "log_rate_w": (1, 2),
    "log_damping": (-1, 0),
    "frequency": (2, 9),
    "damping": (-9, -2),
}


def build(name, rng, **fields):
    """Return a small model and its variables."""
    sizes = {"num_outputs": CLASSES, "widths": (8,), "norm": "layer", "dropout": 0.0}
    model = pspike_jax.create_model(name, **sizes | fields)
    vocabulary = model.config.vocab_size
    inputs = jnp.zeros((1, 2), jnp.int32) if vocabulary else jnp.zeros((1, 2, INPUTS))
    rngs = {"params": jax.random.key(0), "spikes": jax.random.key(0)}
    shapes = jax.eval_shape(model.init, rngs, inputs)

    def draw(path, leaf):
        # The resonator multiplies its currents by dt = 0.004.
        gain = 100 if name == "resonate_and_fire" and path[-1].key in ("scale", "bias") else 1
        return jnp.asarray(gain * rng.uniform(*RANGES[path[-1].key], leaf.shape), jnp.float32)

    return model, jax.tree.map_with_path(draw, nn.meta.unbox(shapes))


def draw_inputs(rng, batch=BATCH):
    """Return (B, L, F) events, most of them zero."""
    return jnp.asarray(rng.random((batch, LENGTH, INPUTS)) < 0.3, jnp.float32)


def jitted(model):
    """Return the model's apply, compiled."""
    return jax.jit(model.apply, static_argnames=("capture", "method"))


def test_zoo_has_the_eight_models():
    names = {"silif", "csilif", "adlif", "cadlif", "lif", "rlif", "radlif", "resonate_and_fire"}
    assert names <= set(pspike_jax.list_models())


@pytest.fixture(scope="module", params=NEURONS)
def trained(request):
    """A training pass of each model: its name, activity, gradients and statistics."""
    rng = np.random.default_rng(7)
    model, variables = build(request.param, rng, norm="batch", dropout=0.2)
    inputs, labels = draw_inputs(rng), jnp.asarray([0, 1, 2, 0])

    def loss(params):
        (logits, aux), updated = model.apply(
            variables | {"params": params},
            inputs,
            LENGTHS,
            train=True,
            capture=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        losses = jax.nn.log_softmax(logits)[jnp.arange(BATCH), labels]
        return -jnp.mean(losses), (aux, updated["batch_stats"])

    gradient, (aux, stats) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    return request.param, aux, gradient, variables["batch_stats"], stats


def test_every_parameter_learns(trained):
    _, _, gradient, old_stats, stats = trained
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.isfinite(leaf).all() and np.any(leaf), jax.tree_util.keystr(path)
    for old, new in zip(jax.tree.leaves(old_stats), jax.tree.leaves(stats), strict=True):
        assert (old != new).all()


def test_activity_counts_the_captured_spikes_of_valid_steps(trained):
    name, aux, *_ = trained
    site = {field: np.asarray(value) for field, value in aux["sites"]["hidden"].items()}
    valid = np.arange(LENGTH)[None, :] < LENGTHS[:, None]
    spikes = site["spike_array"] * valid[None, :, :, None]
    assert spikes.shape == (1, BATCH, LENGTH, 8)
    assert 0.02 < spikes.mean() < 0.8
    np.testing.assert_array_equal(site["spikes"], spikes.sum((1, 2, 3)))
    np.testing.assert_array_equal(site["probability"], site["spikes"])
    np.testing.assert_array_equal(site["neuron_spikes"], spikes.sum((1, 2)))
    np.testing.assert_array_equal(site["steps"], [valid.sum()])
    np.testing.assert_array_equal(site["neurons"], [8])
    own = 7 if name in ("rlif", "radlif") else 0
    np.testing.assert_array_equal(site["fan_out"], [CLASSES + own])
    assert ((site["surrogate"] > 0) & (site["surrogate"] <= valid.sum() * 8)).all()


def test_layers_of_unequal_width_are_sites_of_their_own(rng):
    model, variables = build("lif", rng, widths=(8, 4), bidirectional=True)
    _, aux = jitted(model)(variables, draw_inputs(rng), LENGTHS)
    aux = aux["sites"]
    assert list(aux) == ["hidden_0", "hidden_1"]
    assert [site["neurons"].tolist() for site in aux.values()] == [[16], [8]]
    assert [site["fan_out"].tolist() for site in aux.values()] == [[4], [CLASSES]]
    assert aux["hidden_1"]["neuron_spikes"].shape == (1, 8)


@pytest.mark.parametrize("pool", POOLS)
def test_logits_do_not_depend_on_padding(pool, rng):
    model, variables = build("silif", rng, pool=pool, bidirectional=pool != "last")
    inputs, other = draw_inputs(rng), draw_inputs(rng)
    valid = (np.arange(LENGTH)[None, :] < LENGTHS[:, None])[..., None]
    apply = jitted(model)
    logits, aux = apply(variables, inputs, LENGTHS)
    padded, padded_aux = apply(variables, jnp.where(valid, inputs, other), LENGTHS)
    np.testing.assert_array_equal(logits, padded)
    chex.assert_trees_all_equal(aux, padded_aux)
    alone, _ = apply(variables, inputs[1:2, : LENGTHS[1]])
    # Compiled for another shape: sums of up to 21 terms round in another order.
    np.testing.assert_allclose(alone[0], logits[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", POOLS)
def test_examples_of_length_zero_count_nowhere(pool, rng):
    """Evaluation fills a batch with such rows: they add no activity and disturb no other row."""
    model, variables = build("lif", rng, pool=pool)
    inputs, apply = draw_inputs(rng), jitted(model)
    logits, aux = apply(variables, inputs, jnp.asarray([21, 0, 5, 0]))
    other, other_aux = apply(variables, inputs.at[1].set(1.0), jnp.asarray([21, 0, 5, 0]))
    np.testing.assert_array_equal(logits[::2], other[::2])
    assert aux["sites"]["hidden"]["steps"] == 26
    chex.assert_trees_all_equal(aux, other_aux)


@pytest.mark.parametrize("pool", POOLS)
def test_readout_matches_float64_loop(pool, rng):
    model, variables = build("lif", rng, pool=pool, norm="none")
    logits, aux = jitted(model)(variables, draw_inputs(rng), LENGTHS, capture=True)
    weights = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"]["head"])
    currents = (
        np.asarray(aux["sites"]["hidden"]["spike_array"][0], np.float64)
        @ weights["input"]["kernel"]
    )
    for example, length in enumerate(LENGTHS):
        u, potentials = np.zeros(CLASSES), []
        for current in currents[example, :length]:
            u = weights["alpha"] * u + (1 - weights["alpha"]) * current
            potentials.append(u)
        u = np.stack(potentials)
        shares = np.exp(u) / np.exp(u).sum(-1, keepdims=True)
        expected = {
            "softmax_sum": shares.sum(0),
            "mean": u.mean(0),
            "last": u[-1],
            "max": u.max(0),
        }[pool]
        # float32 sums over 21 steps.
        np.testing.assert_allclose(logits[example], expected, rtol=1e-5, atol=1e-5)


def test_bidirectional_layer_runs_the_same_neurons_backward(rng):
    """One layer: its second half of features is the first half's response to reversed inputs."""
    model, variables = build("adlif", rng, bidirectional=True)
    apply, inputs = jitted(model), draw_inputs(rng)
    full = np.full(BATCH, LENGTH, np.int32)
    _, aux = apply(variables, inputs, full, capture=True)
    _, mirrored = apply(variables, inputs[:, ::-1], full, capture=True)
    spikes, other = (
        aux["sites"]["hidden"]["spike_array"][0],
        mirrored["sites"]["hidden"]["spike_array"][0],
    )
    np.testing.assert_array_equal(spikes[..., 8:], other[:, ::-1, :8])
    assert spikes[..., 8:].any() and (spikes[..., :8] != spikes[..., 8:]).any()
    # Within its length: the same response, shifted, where what is cut off comes first.
    inputs = inputs.at[:, : LENGTH - 13].set(0)
    _, short = apply(
        variables, jnp.roll(inputs, 13 - LENGTH, axis=1), np.full(BATCH, 13, np.int32), capture=True
    )
    _, long = apply(variables, inputs, full, capture=True)
    np.testing.assert_array_equal(
        short["sites"]["hidden"]["spike_array"][0, :, :13, 8:],
        long["sites"]["hidden"]["spike_array"][0, :, -13:, 8:],
    )


@pytest.mark.parametrize(
    "name, pool",
    [
        ("csilif", "softmax_sum"),
        ("radlif", "mean"),
        ("silif", "max"),
        ("resonate_and_fire", "last"),
    ],
)
def test_streaming_equals_the_whole_sequence(name, pool, rng, key):
    widths = (8, 8) if name == "csilif" else (8,)
    random_state = name == "csilif"
    model, variables = build(
        name, rng, norm="batch", pool=pool, widths=widths, random_state=random_state
    )
    apply, inputs, rngs = jitted(model), draw_inputs(rng), {"spikes": key()}
    whole, aux = apply(variables, inputs, capture=True, rngs=rngs)
    state, spikes = model.initial_state(BATCH), []
    if random_state:
        state = model.apply({}, BATCH, method="drawn_state", rngs=rngs)
    for piece in (inputs[:, :9], inputs[:, 9:18]):
        state, (logits, counts) = apply(variables, state, piece, capture=True, method="prefill")
        spikes.append(counts["sites"]["hidden"]["spike_array"])
    for t in range(18, LENGTH):
        state, (logits, counts) = apply(variables, state, inputs[:, t], capture=True, method="step")
        spikes.append(counts["sites"]["hidden"]["spike_array"])
    assert state["t"] == LENGTH
    np.testing.assert_array_equal(jnp.concatenate(spikes, 2), aux["sites"]["hidden"]["spike_array"])
    # Sums over chunks round in another order.
    np.testing.assert_allclose(logits, whole, rtol=1e-5, atol=1e-5)


def test_activity_penalty_has_a_gradient(rng):
    model, variables = build("silif", rng)
    inputs = draw_inputs(rng)

    def rate(params):
        _, aux = model.apply({"params": params}, inputs)
        return jnp.sum(aux["sites"]["hidden"]["probability"])

    gradient = jax.jit(jax.grad(rate))(variables["params"])
    assert np.any(gradient["backbone"]["layers_0"]["input"]["kernel"])


def test_fields_of_firing_reach_the_neurons():
    fields = {"threshold": 2.0, "surrogate": "arctan", "detach_reset": True}
    model = pspike_jax.create_model("lif", widths=(4, 4), **fields)
    for layer in model.make_backbone().make_blocks:
        site = layer(parent=None).make_site(parent=None)
        assert site.neuron.threshold == 2.0
        assert (site.surrogate, site.detach_reset) == ("arctan", True)


def test_random_states_follow_the_example(rng, key):
    model, variables = build("csilif", rng, random_state=True, bidirectional=True)
    inputs, spike_key, apply = draw_inputs(rng), key(), jitted(model)
    order = jnp.arange(BATCH)
    logits, _ = apply(variables, inputs, example_ids=order, rngs={"spikes": spike_key})
    order = jnp.asarray([2, 0, 3, 1])
    permuted, _ = apply(variables, inputs[order], example_ids=order, rngs={"spikes": spike_key})
    np.testing.assert_array_equal(permuted, logits[order])
    other, _ = apply(variables, inputs, example_ids=order, rngs={"spikes": key()})
    assert (other != logits).all()
    with pytest.raises(ValueError, match="random states need rngs="):
        model.apply(variables, inputs)


def test_noise_stands_for_every_variable_of_a_random_state(rng):
    model, variables = build("csilif", rng, random_state=True)
    inputs, apply = draw_inputs(rng), jitted(model)
    fill = lambda zero: jnp.full_like(zero, 0.5 + 0.5j if jnp.iscomplexobj(zero) else 0.5)
    resting = model.resting_state(BATCH)
    head = resting["head"] | {"u": fill(resting["head"]["u"])}
    half = resting | {"layers": jax.tree.map(fill, resting["layers"]), "head": head}
    given, _ = apply(variables, inputs, state=half)
    np.testing.assert_array_equal(given, apply(variables, inputs, noise=0.5)[0])
    mean = functools.partial(model.apply, sampling="mean")
    np.testing.assert_array_equal(given, jax.jit(mean)(variables, inputs)[0])
    rest, _ = apply(variables, inputs, state=resting)
    assert (given != rest).all()


def test_tokens_are_spikes_on_lines_of_their_own(rng):
    tokens = jnp.asarray(rng.integers(0, INPUTS, (BATCH, LENGTH)), jnp.int32)
    model, variables = build("lif", rng, vocab_size=INPUTS)
    got, _ = jitted(model)(variables, tokens)
    expected, _ = jitted(model.replace(vocab_size=None))(variables, jax.nn.one_hot(tokens, INPUTS))
    np.testing.assert_array_equal(got, expected)


def test_batch_over_eight_devices_spikes_as_on_one(rng, key):
    model, variables = build("silif", rng, norm="batch", dropout=0.3, widths=(8, 8))
    inputs = draw_inputs(rng, 8)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    rngs = {"dropout": key()}

    @jax.jit
    def run(inputs):
        (logits, aux), _ = model.apply(
            variables, inputs, train=True, rngs=rngs, mutable=["batch_stats"]
        )
        return logits, aux["sites"]["hidden"]["neuron_spikes"]

    logits, spikes = run(inputs)
    sharded_logits, sharded_spikes = run(jax.device_put(inputs, rows))
    # Batch statistics are summed in another order; no drive lies that close to the threshold.
    np.testing.assert_array_equal(spikes, sharded_spikes)
    np.testing.assert_allclose(logits, sharded_logits, rtol=1e-5, atol=1e-5)


def test_poles_are_the_eigenvalues_of_the_neurons(rng):
    model, variables = build("adlif", rng, widths=(8, 8))
    got = models.poles(model, variables)
    assert got.shape == (2, 8, 2)
    params = variables["params"]["backbone"]["layers_1"]["neurons"]["neuron"]
    # Both eigenvalues of x -> [[p, q], [a, beta]] x, from trace and determinant in float64.
    alpha, beta, a = (np.asarray(params[name], np.float64) for name in ("alpha", "beta", "a"))
    p = alpha - (1 - alpha) * a
    root = np.sqrt(((p + beta) / 2) ** 2 - alpha * beta + 0j)
    expected = np.stack([(p + beta) / 2 - root, (p + beta) / 2 + root], -1)
    # Float32 coefficients; a square root near zero halves the digits.
    np.testing.assert_allclose(np.sort_complex(got[1]), np.sort_complex(expected), atol=1e-3)
    assert models.poles(*build("lif", rng, widths=(8, 4))) is None


def test_dropout_keeps_a_share_and_scales_it(key):
    """alpha = 1e-6: z = 4.9 on 96,000 draws of rate 0.3 sees a bias of 0.0073."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(40, 30, 80)), jnp.float32)
    dropped, pull = jax.vjp(lambda x: dropout(x, jax.random.key(1), 0.3), x)
    kept = np.asarray(dropped != 0)
    assert abs(kept.mean() - 0.7) < 4.9 * np.sqrt(0.21 / kept.size)
    np.testing.assert_allclose(dropped, kept * x / 0.7, rtol=1e-6)  # one rounding
    np.testing.assert_array_equal(pull(x)[0], dropped)
    other = np.asarray(dropout(x, jax.random.key(2), 0.3) != 0)
    assert abs(np.corrcoef(kept.ravel(), other.ravel())[0, 1]) < 4.9 / np.sqrt(kept.size)
    with pytest.raises(ValueError, match=r"rate is 1.0; expected a number in \[0, 1\)"):
        dropout(x, jax.random.key(0), 1.0)


def test_gradient_behind_dropout_is_that_of_the_loss(rng):
    """The readout's weights act smoothly: their gradient is the loss's slope, given the mask."""
    model, variables = build("lif", rng, norm="none", pool="mean", dropout=0.4)
    inputs = draw_inputs(rng)

    @jax.jit
    @jax.value_and_grad
    def loss(kernel):
        params = variables["params"]
        params = params | {"head": params["head"] | {"input": {"kernel": kernel}}}
        rngs = {"dropout": jax.random.key(3)}
        logits, _ = model.apply({"params": params}, inputs, train=True, rngs=rngs)
        return jnp.sum(logits * jnp.arange(CLASSES)[None])

    kernel = variables["params"]["head"]["input"]["kernel"]
    direction = jnp.asarray(rng.normal(size=kernel.shape), jnp.float32)
    value, gradient = loss(kernel)
    # The loss is linear in these weights, so that a large step is exact but for rounding.
    slope = loss(kernel + direction)[0] - value
    np.testing.assert_allclose(jnp.sum(gradient * direction), slope, rtol=1e-4)


def test_refuses_what_does_not_fit(rng):
    model, variables = build("lif", rng)
    inputs = draw_inputs(rng)
    with pytest.raises(ValueError, match="expected one of 'spikes', 'mean'"):
        model.apply(variables, inputs, sampling="means")
    with pytest.raises(ValueError, match=r"expected \[\(4, 8\)"):
        model.apply(variables, inputs, state=model.initial_state(BATCH + 1))
    with pytest.raises(TypeError, match="floating"):
        model.apply(variables, inputs.astype(jnp.int32))
    with pytest.raises(ValueError, match="does not stream"):
        model.replace(bidirectional=True).initial_state(2)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"widths": ()}, "widths is empty"),
        ({"norm": "group"}, "norm is 'group'; expected one of 'batch', 'layer', 'none'"),
        ({"pool": "sum"}, "pool is 'sum'"),
        ({"surrogate": "box"}, "surrogate is 'box'"),
        ({"dropout": 1.0}, "dropout is 1.0; expected in"),
        ({"widths": (8, 0)}, "a number of widths must be at least 1, not 0"),
        ({"width": 3}, "did you mean 'widths'"),
        ({"widths": 8}, "widths is 8; expected"),
        ({"threshold": "1"}, "threshold is '1'; expected a number"),
        ({"threshold": float("nan")}, "threshold is nan; expected a finite number"),
    ],
)
def test_create_model_names_the_wrong_field(fields, message):
    with pytest.raises((TypeError, ValueError), match=message):
        pspike_jax.create_model("silif", **fields)
