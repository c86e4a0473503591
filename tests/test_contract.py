"""What every model of the zoo keeps, whatever its family: one test a clause, over all of them.

A model that does not support something says so in `supports`, and must refuse it.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import pspike_jax
from pspike_jax.nn.roles import GROUPS, is_role

BATCH, LENGTH, FEATURES = 4, 12, 2
LENGTHS = np.array([12, 7, 1, 9], np.int32)
KEY, IDS = jax.random.key(5), jnp.arange(BATCH) + 30
SPREAD = {"decay": 0.5, "readout": 0.5, "no_decay": 0.3}  # of what is added to a start
# Sums of some dozens of float32 operations in another order.
CLOSE = {"rtol": 2e-5, "atol": 5e-5}

every_model = pytest.mark.parametrize("name", pspike_jax.list_models(kind="classifier"))


class Case:
    """A tiny model, variables that are not those of the start, and its compiled passes."""

    def __init__(self, name):
        self.model = pspike_jax.create_model(name, "tiny")
        rng = np.random.default_rng(1)
        self.inputs = draw_inputs(rng, self.model)
        boxed = jax.jit(self.model.init)({"params": KEY, "spikes": KEY}, self.inputs)
        self.boxed = boxed

        def move(leaf):
            group = leaf.group if is_role(leaf) else "no_decay"
            value = leaf.value if is_role(leaf) else leaf
            noise = jnp.asarray(rng.normal(size=value.shape), jnp.float32)
            if group in SPREAD:
                return value + SPREAD[group] * noise
            return value * (1 + 0.02 * noise)  # within the ranges that their equations need

        self.variables = jax.tree.map(move, boxed, is_leaf=is_role)
        if "batch_stats" in self.variables:
            positive = jax.tree.map(jnp.abs, self.variables["batch_stats"])
            self.variables = self.variables | {"batch_stats": positive}
        self.apply = jax.jit(
            functools.partial(self.model.apply, rngs={"spikes": KEY}),
            static_argnames=("capture", "method", "train"),
        )

    @functools.cached_property
    def whole(self):
        return self.apply(self.variables, self.inputs, LENGTHS, example_ids=IDS, capture=True)


build = functools.cache(Case)


def draw_inputs(rng, model, batch=BATCH, length=LENGTH):
    if model.config.vocab_size is not None:
        tokens = rng.integers(0, model.config.vocab_size, (batch, length))
        return jnp.asarray(tokens, jnp.int32)
    return jnp.asarray(rng.normal(size=(batch, length, FEATURES)) + 0.5, jnp.float32)


@every_model
def test_each_parameter_has_a_role_and_is_float32(name):
    params = build(name).boxed["params"]
    for path, leaf in jax.tree.leaves_with_path(params, is_leaf=is_role):
        where = jax.tree_util.keystr(path)
        assert is_role(leaf), f"{where} has no role"
        assert len(leaf.axes) == leaf.value.ndim and leaf.group in GROUPS, where
        assert leaf.value.dtype == jnp.float32, where


@every_model
def test_outputs_and_counts_are_those_of_the_valid_steps(name):
    case = build(name)
    outputs, aux = case.whole
    assert outputs.shape == (BATCH, case.model.config.num_outputs)
    assert outputs.dtype == jnp.float32 and np.isfinite(outputs).all()
    assert {"sites", "losses", "macs"} <= set(aux)
    valid = np.arange(LENGTH)[None, :] < LENGTHS[:, None]
    for site, record in aux["sites"].items():
        record = {key: np.asarray(value) for key, value in record.items()}
        assert all(value.dtype == np.float32 for value in record.values()), site
        spikes = record["spike_array"] * valid[None, :, :, None]
        np.testing.assert_array_equal(record["neuron_spikes"], spikes.sum((1, 2)))
        np.testing.assert_array_equal(record["spikes"], spikes.sum((1, 2, 3)))
        np.testing.assert_array_equal(record["steps"], valid.sum())
        p = record["probability_array"] * valid[None, :, :, None]
        np.testing.assert_allclose(record["probability"], p.sum((1, 2, 3)), rtol=1e-6)
        np.testing.assert_array_equal(record["neurons"], spikes.shape[-1])
        assert 0 < spikes.mean() < 1, f"{site} is silent or saturated: the test would see nothing"
        if "drive_array" not in record:
            assert (p != spikes).any(), f"{site}: what decides on its spikes?"
            continue
        drive = record["drive_array"]
        apart = (np.abs(drive) > 1e-5) & valid[None, :, :, None]  # more than rounding
        np.testing.assert_array_equal(drive[apart] > 0, record["spike_array"][apart] == 1)
    macs = {key: float(value) for key, value in aux["macs"].items()}
    assert all(np.isfinite(value) and value >= 0 for value in macs.values())
    assert sum(macs.values()) > 0


@every_model
def test_outputs_do_not_depend_on_padding(name):
    case = build(name)
    valid = np.arange(LENGTH)[None, :] < LENGTHS[:, None]
    other = draw_inputs(np.random.default_rng(9), case.model)
    mask = valid if other.ndim == 2 else valid[..., None]
    garbage = jnp.where(mask, case.inputs, other)
    outputs, aux = case.apply(case.variables, garbage, LENGTHS, example_ids=IDS, capture=True)
    expected, expected_aux = case.whole
    np.testing.assert_allclose(outputs, expected, **CLOSE)
    for site, record in aux["sites"].items():
        np.testing.assert_array_equal(record["spikes"], expected_aux["sites"][site]["spikes"])


@every_model
@pytest.mark.parametrize("chunks", [(1,) * 3 + (4, 5)])
def test_streams_are_the_whole_sequence_in_any_chunks(name, chunks):
    case = build(name)
    if "streaming" not in case.model.supports:
        with pytest.raises(ValueError, match="does not stream"):
            case.model.initial_state(BATCH)
        return
    expected, aux = case.apply(case.variables, case.inputs, example_ids=IDS, capture=True)
    state, start, spikes = case.model.initial_state(BATCH), 0, []
    for length in chunks:
        piece = case.inputs[:, start : start + length]
        method = "step" if length == 1 else "prefill"
        x = piece[:, 0] if length == 1 else piece
        state, (outputs, one) = case.apply(
            case.variables, state, x, example_ids=IDS, capture=True, method=method
        )
        spikes.append({site: record["spike_array"] for site, record in one["sites"].items()})
        start += length
    np.testing.assert_allclose(outputs, expected, **CLOSE)
    for site, record in aux["sites"].items():
        streamed = np.concatenate([one[site] for one in spikes], axis=2)
        np.testing.assert_array_equal(streamed, record["spike_array"], err_msg=site)


@every_model
def test_rows_that_hold_several_examples_give_what_they_give_alone(name):
    case = build(name)
    if "resets" not in case.model.supports:
        with pytest.raises(ValueError, match="resets are given"):
            case.model.apply({}, case.inputs, resets=jnp.zeros((BATCH, LENGTH), bool))
        return
    cut = 5  # two examples in each row: 5 steps and 7
    resets = jnp.zeros((BATCH, LENGTH), bool).at[:, 0].set(True).at[:, cut].set(True)
    ids = jnp.where(jnp.arange(LENGTH)[None, :] < cut, IDS[:, None], IDS[:, None] + 100)
    packed, aux = case.apply(
        case.variables, case.inputs, example_ids=ids, resets=resets, capture=True
    )
    for part, names, end in ((slice(0, cut), IDS, cut - 1), (slice(cut, None), IDS + 100, -1)):
        alone, alone_aux = case.apply(
            case.variables, case.inputs[:, part], example_ids=names, capture=True
        )
        np.testing.assert_allclose(packed[:, end], alone, **CLOSE)
        for site, record in alone_aux["sites"].items():
            spikes = aux["sites"][site]["spike_array"][:, :, part]
            np.testing.assert_array_equal(spikes, record["spike_array"], err_msg=site)


@every_model
def test_time_between_steps_is_that_of_the_steps_or_refused(name):
    case = build(name)
    ones = jnp.ones((BATCH, LENGTH), jnp.float32)
    if "dt" not in case.model.supports:
        with pytest.raises(ValueError, match="dt are given"):
            case.model.apply({}, case.inputs, dt=ones)
        return
    plain, _ = case.apply(case.variables, case.inputs, example_ids=IDS)
    same, _ = case.apply(case.variables, case.inputs, example_ids=IDS, dt=ones)
    np.testing.assert_allclose(same, plain, **CLOSE)
    slow, _ = case.apply(case.variables, case.inputs, example_ids=IDS, dt=3 * ones)
    assert np.abs(slow - plain).max() > 1e-3


@every_model
def test_a_mesh_of_eight_devices_computes_what_one_does(name):
    case = build(name)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    twice = lambda a: jax.device_put(np.concatenate([a, a]), rows)
    outputs, aux = case.apply(
        case.variables, twice(case.inputs), twice(LENGTHS), example_ids=twice(IDS), capture=True
    )
    expected, expected_aux = case.whole
    np.testing.assert_allclose(outputs[:BATCH], expected, **CLOSE)
    for site, record in aux["sites"].items():
        np.testing.assert_array_equal(record["spikes"], 2 * expected_aux["sites"][site]["spikes"])


def gradient(model, variables, inputs):
    """Return (gradients, outputs) of a training pass."""
    rngs = {"spikes": KEY, "dropout": KEY}

    def loss(params):
        (outputs, aux), _ = model.apply(
            variables | {"params": params},
            inputs,
            LENGTHS,
            train=True,
            rngs=rngs,
            mutable=["batch_stats"],
        )
        outputs = outputs.astype(jnp.float32)
        penalty = sum(aux["losses"].values(), jnp.float32(0))
        return jnp.sum(jnp.sin(outputs)) + penalty, outputs

    return jax.grad(loss, has_aux=True)(variables["params"])


@every_model
def test_each_parameter_learns(name):
    case = build(name)
    grads, _ = jax.jit(functools.partial(gradient, case.model))(case.variables, case.inputs)
    for path, leaf in jax.tree.leaves_with_path(grads):
        assert np.isfinite(leaf).all() and np.any(leaf), jax.tree_util.keystr(path)


def one_of_each_backbone():
    """Return a model for each class that stacks blocks: what recomputes them is no family's own."""
    names = pspike_jax.list_models(kind="classifier")
    kinds = {type(pspike_jax.create_model(name, "tiny").make_backbone()): name for name in names}
    return sorted(kinds.values())


@every_model
def test_pairs_of_documents_are_refused_where_nothing_compares_them(name):
    model = build(name).model
    if "pairs" in model.supports:
        paired = model.replace(documents=2)
        assert "pairs" in paired.supports and "streaming" not in paired.supports
    else:
        with pytest.raises(ValueError, match="documents=2"):
            model.replace(documents=2)


@pytest.mark.parametrize("name", one_of_each_backbone())
def test_a_pair_is_compared_by_the_features_of_each_document(name):
    case = build(name)
    if "pairs" not in case.model.supports:
        return  # refused, see above
    model, alone = case.model.replace(documents=2), case.model.replace(head="none")
    pairs = lambda a: a.reshape(2, 2, *a.shape[1:])
    inputs, lengths = pairs(case.inputs), pairs(LENGTHS)
    head = jax.eval_shape(lambda: model.init({"params": KEY, "spikes": KEY}, inputs))
    head = nn.meta.unbox(head["params"]["head"])
    rng = np.random.default_rng(4)
    head = jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), head)
    params = nn.meta.unbox(case.variables["params"])
    variables = case.variables | {"params": params | {"head": head}}

    @jax.jit
    def both(variables):
        given = {"rngs": {"spikes": KEY}}
        outputs, _ = model.apply(
            variables, inputs, lengths, example_ids=jnp.array([3, 8]), **given
        )
        params = {key: value for key, value in variables["params"].items() if key != "head"}
        features, _ = alone.apply(
            variables | {"params": params}, case.inputs, LENGTHS,
            example_ids=jnp.array([6, 7, 16, 17]), **given,
        )
        return outputs, features

    outputs, features = both(variables)
    first, second = np.float64(features[0::2]), np.float64(features[1::2])
    x = np.concatenate([first, second, first - second, first * second], axis=-1)
    x = x @ head["compare"]["kernel"] + head["compare"]["bias"]
    x = x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))
    expected = x @ head["linear"]["kernel"] + head["linear"]["bias"]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)  # float32 products


@pytest.mark.parametrize("name", one_of_each_backbone())
def test_recomputing_blocks_changes_no_gradient(name):
    case = build(name)
    results = []
    for remat in ("none", "block"):
        model = case.model.replace(remat=remat)
        results.append(jax.jit(functools.partial(gradient, model))(case.variables, case.inputs))
    (plain, outputs), (again, outputs_again) = results
    np.testing.assert_allclose(outputs_again, outputs, **CLOSE)
    for (path, one), two in zip(jax.tree.leaves_with_path(plain), jax.tree.leaves(again)):
        bound = 2e-4 * np.abs(one).max()  # sums over steps, in another order
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(two, one, rtol=0, atol=bound, err_msg=where)


@every_model
def test_bfloat16_keeps_parameters_states_and_outputs_in_float32(name):
    case = build(name)
    model = case.model.replace(precision="bfloat16")
    grads, outputs = jax.eval_shape(functools.partial(gradient, model), case.variables, case.inputs)
    floats = jax.tree.leaves((grads, outputs))
    if "streaming" in model.supports:
        states = jax.eval_shape(lambda: model.initial_state(BATCH))
        floats += [leaf for leaf in jax.tree.leaves(states) if leaf.dtype.kind in "fc"]
    assert {leaf.dtype for leaf in floats} <= {jnp.dtype("float32"), jnp.dtype("complex64")}
    quiet = functools.partial(model.apply, sampling="mean", noise=0.5)
    found = jax.jit(quiet)(case.variables, case.inputs, LENGTHS)[0]
    assert found.dtype == jnp.float32 and np.isfinite(found).all()


@every_model
def test_x64_and_strict_promotion_change_no_type(name):
    case = build(name)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        params = jax.eval_shape(case.model.init, {"params": KEY, "spikes": KEY}, case.inputs)
        grads, outputs = jax.eval_shape(
            functools.partial(gradient, case.model), case.variables, case.inputs
        )
    types = lambda tree: jax.tree.map(lambda leaf: leaf.dtype, tree)
    assert types(params) == types(case.boxed)
    assert types(grads) == types(case.variables["params"]) and outputs.dtype == jnp.float32


@every_model
def test_export_takes_any_batch(name):
    case = build(name)
    (b,) = jax.export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((b, *case.inputs.shape[1:]), case.inputs.dtype)
    apply = lambda variables, inputs: case.model.apply(
        variables, inputs, rngs={"spikes": jax.random.key(5)}
    )[0]
    exported = jax.export.export(jax.jit(apply))(case.variables, x)
    assert exported.out_avals[0].shape == (b, case.model.config.num_outputs)


@every_model
def test_fields_of_a_configuration_make_the_same_model(name):
    model = build(name).model
    fields = {f.name: getattr(model.config, f.name) for f in dataclasses.fields(model.config)}
    assert pspike_jax.create_model(name, **fields) == model
    assert hash(model) == hash(pspike_jax.create_model(name, "tiny"))
    described = pspike_jax.describe_model(name)
    assert [field.name for field in described.fields] == list(fields)
    assert all(field.meaning for field in described.fields)
    for field, value in fields.items():
        if isinstance(value, tuple):  # as JSON and ConfigDict have it
            assert pspike_jax.create_model(name, **fields | {field: list(value)}) == model


@every_model
def test_unknown_fields_and_wrong_inputs_are_named(name):
    model = build(name).model
    with pytest.raises(ValueError, match="unknown field of .*'num_output'; did you mean"):
        pspike_jax.create_model(name, num_output=3)
    with pytest.raises(TypeError, match="num_outputs is 'x'"):
        pspike_jax.create_model(name, num_outputs="x")
    wrong = np.zeros((2, 3), np.float32 if model.config.vocab_size else np.int32)
    with pytest.raises(TypeError, match="the model expects"):
        model.apply({}, wrong)
    with pytest.raises(ValueError, match="expected one of 'spikes', 'mean'"):
        model.apply({}, build(name).inputs, sampling="most")


def test_unboxed_parameters_are_those_of_the_boxes():
    case = build("pspikessm")
    shapes = jax.tree.map(jnp.shape, nn.meta.unbox(case.boxed["params"]))
    assert shapes == jax.tree.map(jnp.shape, case.variables["params"])


def test_flax_tabulates_a_model_with_its_operations():
    table = build("s4d").model.tabulate({"params": KEY}, build("s4d").inputs, compute_flops=True)
    assert "flops" in table and "S4DBlock" in table
