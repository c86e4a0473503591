"""What pages of families say was measured: records that go on, arithmetic with known answers."""

import argparse
import json
import pathlib
import re
import sys
import types

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import families  # noqa: E402
from experiments.configs import (  # noqa: E402
    mamba_fscil_digits,
    pendulum_digits,
    stc_moving_digits,
)
from experiments.families import __main__ as command  # noqa: E402
from experiments.families import dlds, mamba_fscil, stc  # noqa: E402
from experiments.results_page import fill, read_records  # noqa: E402
from pspike_jax import create_model  # noqa: E402

RECORDS = read_records(command.RECORDS)


def test_a_killed_command_goes_on_after_its_last_row(monkeypatch, tmp_path):
    made = []

    def run(key):
        made.append(key)
        if len(made) == 2:
            raise KeyboardInterrupt
        return {"value": np.float64(len(made)), "curve": [1.0, 2.5]}

    family = types.SimpleNamespace(
        CAPTION="a picture", page=lambda rows: ", ".join(rows),
        runs=lambda asked: {key: lambda key=key: run(key) for key in "abc"},
    )
    monkeypatch.setattr(command, "module", lambda name: family)
    arguments = ["npsem", f"--records={tmp_path}"]
    with pytest.raises(KeyboardInterrupt):
        command.main(arguments)
    command.main(arguments)
    assert made == ["a", "b", "b", "c"]
    text = (tmp_path / "npsem.json").read_text()
    assert [*json.loads(text)["rows"]] == ["a", "b", "c"] and "[ 1.0, 2.5 ]" in text
    with pytest.raises(SystemExit):
        command.main(["npsem", "--smoke"])  # would go where the committed records are


def test_frames_are_kept_as_text():
    frames = np.random.default_rng(0).integers(0, 16, (2, 3, 5, 4, 1)) / 15
    found = [[stc.unpacked(frame) for frame in film] for film in stc.packed(frames)]
    np.testing.assert_array_equal(found, frames[..., 0])


def test_mixed_coefficients_tell_the_state_that_they_are_of():
    state = np.random.default_rng(0).normal(2, 3, (4, 50))
    mixed = np.stack([np.ones_like(state), state], -1) @ np.array([[0.3, 2.0], [-1.0, 0.5]])
    assert dlds.explained(mixed, state) == pytest.approx(1, abs=1e-12)
    other = np.random.default_rng(1).normal(size=(4, 50, 2))
    assert dlds.explained(other, state) < 0.5


def test_accuracies_of_old_and_new_classes():
    told, labels = np.array([0, 1, 1, 5, 6]), np.array([0, 1, 2, 5, 5])
    found = mamba_fscil.accuracies(told, labels, 3)
    assert found == pytest.approx({"all": 3 / 5, "base": 2 / 3, "new": 1 / 2})
    assert mamba_fscil.accuracies(told[:3], labels[:3], 3)["new"] is None


@pytest.mark.parametrize("config", [stc_moving_digits, mamba_fscil_digits, pendulum_digits])
def test_configs_of_families_make_models_small_ones_too(config):
    for variant in (None, "smoke"):
        assert create_model(**config.get_config(variant).to_dict()["model"]).config
    with pytest.raises(ValueError, match="variant is 'smok', expected 'smoke' or none"):
        config.get_config("smok")


@pytest.mark.parametrize("name", command.FAMILIES)
def test_every_family_runs_small_and_is_shown(name, tmp_path, rng):
    from test_data_series import write_digits

    write_digits(tmp_path, rng)
    asked = argparse.Namespace(
        smoke=True, workdir=tmp_path, source_dir=str(tmp_path), records=tmp_path / "records"
    )
    record = command.measured(name, asked)
    assert "nan" not in command.section(name, record)
    assert command.module(name).draw(record["rows"]).axes


@pytest.mark.parametrize("name", command.FAMILIES)
def test_committed_page_of_a_family_is_that_of_its_record(name):
    text = (ROOT / "docs" / "models" / f"{name}.md").read_text()
    content = command.section(name, RECORDS.get(name))
    assert content in text and fill(text, "measured", content) == text
    if name not in RECORDS:
        return
    assert (ROOT / "docs" / "pictures" / f"{name}.png").stat().st_size < 250_000
    assert not re.search(r'"/|/tmp|/home|\\\\', json.dumps(RECORDS[name]))
    assert not any("dirty" in row["commit"] for row in RECORDS[name]["rows"].values())


def test_committed_records_can_be_drawn():
    for name, record in RECORDS.items():
        assert command.module(name).draw(record["rows"]).axes


def test_spread_is_that_of_seeds():
    assert families.mean_and_spread([0.1, 0.2, 0.3], ".1f", 100) == "20.0 ± 10.0"
    rows = {"learnt_1": {"n": 2}, "learnt_0": {"n": 1}, "other_0": {}}
    assert families.of_name(rows, "learnt") == [{"n": 1}, {"n": 2}]
