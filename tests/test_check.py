"""`python -m pspike_jax.check`: it passes here, and sees faults that are put into the package."""

import json

import jax
import numpy as np
import pytest
from oracles import linear_ssm as oracle

from pspike_jax.check import __main__ as check
from pspike_jax.check import comparisons, table, truth
from pspike_jax.functional import engine_choice


def test_stored_truth_is_that_of_another_loop():
    stored = truth.load()
    Lambda = stored["Lambda_re"] + 1j * stored["Lambda_im"]
    C = stored["C_re"] + 1j * stored["C_im"]
    y, _ = oracle(stored["u"], Lambda, np.ones_like(Lambda), C, np.zeros(truth.H))
    np.testing.assert_allclose(stored["y"], y, rtol=0, atol=1e-12 * np.abs(y).max())
    # The gradient of sum(weight y) along one direction, by a difference: y is linear in u.
    rng = np.random.default_rng(0)
    direction = rng.normal(size=stored["u"].shape)
    moved, _ = oracle(stored["u"] + direction, Lambda, np.ones_like(Lambda), C, np.zeros(truth.H))
    slope = np.sum(stored["weight"] * (moved - y))
    np.testing.assert_allclose(np.sum(stored["u_bar"] * direction), slope, rtol=1e-10)
    np.testing.assert_array_equal(stored["noise"], truth.noise())


def test_check_passes_on_this_machine(capsys):
    assert check.main(["--json", "--no-table"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] and report["platform"] == jax.default_backend()
    names = " ".join(one["name"] for one in report["comparisons"])
    for word in (*comparisons.ENGINES, "noise", "gradients", "stream", "bfloat16"):
        assert word in names


@pytest.mark.parametrize("fault", ["engine", "noise"])
def test_check_fails_and_names_what_a_device_computes_wrongly(fault, monkeypatch, capsys):
    right = {"engine": comparisons.linear_ssm, "noise": comparisons.uniforms}[fault]

    def slightly_wrong(*args, engine=None, **kwargs):
        if fault == "noise":
            return right(*args, **kwargs) + np.float32(2.0**-24)
        y, state = right(*args, engine=engine, **kwargs)
        return (y * (1 + 1e-3), state) if engine == "chunked" else (y, state)

    name = {"engine": "linear_ssm", "noise": "uniforms"}[fault]
    monkeypatch.setattr(comparisons, name, slightly_wrong)
    monkeypatch.setattr(comparisons, "_streams", lambda: ())
    monkeypatch.setattr(comparisons, "_bfloat16", lambda: ())
    assert check.main([]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAIL" in line]
    word = {"engine": "chunked", "noise": "noise"}[fault]
    assert failed and all(word in line for line in failed)


def test_auto_follows_the_table_of_this_device(monkeypatch, tmp_path):
    monkeypatch.setenv("PSPIKE_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(table, "SHAPES", ((1, 16, 2, 2),))
    rows = table.measure()
    rows[0]["seconds"] = {"fft": 1.0, "sequential": 1e-9}
    table.write(rows)
    engine_choice._table.cache_clear()
    try:
        assert engine_choice.explain_engine(16, 2, 2).startswith("sequential")
        engine_choice.user_table().write_text("{}")  # not a table: the package's own serves
        engine_choice._table.cache_clear()
        assert not engine_choice.explain_engine(4096, 64, 8).startswith("sequential")
    finally:
        engine_choice._table.cache_clear()
