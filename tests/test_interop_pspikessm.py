"""Weights of P-SpikeSSM's program, in and out; what they compute is replayed elsewhere."""

import json
import logging

import numpy as np
import pytest

from pspike_jax.interop import export_pspikessm, load_pspikessm

FILES = [
    "pspikessm_bidirectional_noise.npz",
    "pspikessm_bidirectional_threshold.npz",
    "pspikessm_layernorm_train_noise.npz",
    "pspikessm_unidirectional_threshold.npz",
]


def load(arrays):
    meta = json.loads(str(arrays["meta"]))
    params = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    residual = meta.get("residual", "R") is not None
    module, variables = load_pspikessm(
        params,
        prenorm=meta["prenorm"],
        norm=meta["norm"],
        residual=residual,
        length=meta["length"],
    )
    noise = 0.5
    if meta["noise"] != "half":
        layers = range(meta["n_layers"])
        noise = [(arrays[f"noise/{i}/0"], arrays[f"noise/{i}/1"]) for i in layers]
    return meta, module, variables, noise


@pytest.fixture(params=FILES)
def recorded(request, golden):
    arrays = golden(request.param)
    return arrays, *load(arrays)


def test_export_returns_what_was_loaded(recorded):
    arrays, _, module, variables, _ = recorded
    for name, value in export_pspikessm(module, variables["params"]).items():
        np.testing.assert_array_equal(value, arrays[f"param/{name}"], err_msg=name)


def test_load_reports_dropped_parameters(golden, caplog):
    with caplog.at_level(logging.WARNING):
        load(golden(FILES[0]))
    assert "layers.0.layer.output_linear.0.weight" in caplog.text
    assert "bidirectional_linear1" in caplog.text


KERNEL = "layers.0.layer.layer.kernel."
CHANGES = {
    "nothing known": (None, 17 + 4 + 1, ["missing", "surprise is unknown"]),
    "many": (
        {
            "layers.1.inp_a": None,
            "layers.0.out_b": np.zeros(3),
            "layers.0.nonsense": np.zeros(3),
            "inp2_a": np.zeros(10),  # no block's, so not one of those that are dropped
            KERNEL + "l_kernel": np.array(49),
        },
        5,
        [
            "layers.1.inp_a is missing",
            "layers.0.out_b has shape (3,); expected (10,)",
            "layers.0.nonsense is unknown",
            "inp2_a is unknown",
            "l_kernel is 49; length is 50",
        ],
    ),
    # Entries that sizes are read off are told from the others by these.
    "no readout": ({KERNEL + "C": None, "extra": np.zeros(1)}, 2, ["C is missing", "extra is"]),
    "no poles": ({KERNEL + "A_real": None}, 1, ["A_real is missing"]),
    "flat readout": ({KERNEL + "C": np.zeros((10, 8, 2))}, 1, ["expected (2, 10, 8, 2)"]),
    "readout of 9": ({KERNEL + "C": np.zeros((2, 9, 8, 2))}, 1, ["expected (2, 10, 8, 2)"]),
    "complex": ({KERNEL + "C": np.zeros((2, 10, 8), complex)}, 1, ["expected (2, 10, 8, 2)"]),
    "one pole": ({KERNEL + "A_real": np.zeros(())}, 1, ["A_real has shape (); expected (1, 8)"]),
    "poles of 3": ({KERNEL + "A_real": np.zeros((3, 8))}, 1, ["(3, 8); expected (1, 8)"]),
    "two lengths": ({KERNEL + "l_kernel": np.array([50, 50])}, 1, ["is [50, 50]; length is 50"]),
}


@pytest.mark.parametrize("change, count, messages", CHANGES.values(), ids=CHANGES.keys())
def test_load_lists_every_problem_at_once(change, count, messages, golden):
    arrays = golden("pspikessm_unidirectional_threshold.npz")
    params = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    params = {"surprise": np.zeros(1)} if change is None else params | change
    params = {name: value for name, value in params.items() if value is not None}
    with pytest.raises(ValueError) as error:
        load_pspikessm(params, prenorm=True, norm="batch", residual=False, length=50)
    first, *problems = str(error.value).splitlines()
    assert len(problems) == count
    for message in messages:
        assert any(message in problem for problem in problems)


@pytest.mark.parametrize("shape", [(50, 10), (2, 50, 9), (1, 2, 50, 10)])
def test_blocks_name_the_shape_that_they_expect(shape, golden):
    _, module, variables, _ = load(golden("pspikessm_unidirectional_threshold.npz"))
    with pytest.raises(ValueError, match=r"expected \(B, L, (F|10)\)"):
        module.apply(variables, np.zeros(shape, np.float32), noise=0.5)


@pytest.mark.parametrize("length, error", [(None, TypeError), (50.0, TypeError), (0, ValueError)])
def test_load_names_a_wrong_length(length, error):
    with pytest.raises(error, match="length"):
        load_pspikessm({}, prenorm=True, norm="batch", residual=False, length=length)
