"""A handful of the faults that `faults.py` tries by the hundred."""

import random

import pytest
from damage import truncate
from fault_trials import Failed, Trials


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """A run that nothing happened to, and one that was killed."""
    return Trials(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(
    "point", ["during a step", "between files of a save", "during an evaluation"]
)
def test_a_killed_run_ends_with_the_same_bits(trials, tmp_path, point):
    assert "checkpoint" in trials.kill(tmp_path / "run", random.Random(0), point)


def test_a_run_without_its_data_is_refused_and_goes_on_with_it(trials, tmp_path):
    outcome = trials.spoil_data(tmp_path / "run", random.Random(0), "inputs.npy", truncate)
    assert outcome == "refused by name, went on when it was put back"


def test_trials_notice_other_bits_lines_and_left_overs(trials):
    whole = trials.folder / "whole"
    trials.compare(whole, trials.bits)
    with pytest.raises(Failed, match="other parameters"):
        trials.compare(whole, "end 0")
    lines = (whole / "metrics.jsonl").read_text()
    (whole / "metrics.jsonl").write_text(lines.replace('"step": 40', '"step": 41'))
    with pytest.raises(Failed, match="other lines"):
        trials.compare(whole, trials.bits)
    (whole / "metrics.jsonl").write_text(lines)
    (whole / "checkpoints" / "00000039").mkdir()
    with pytest.raises(Failed, match="a half-written checkpoint was left"):
        trials.compare(whole, trials.bits)
