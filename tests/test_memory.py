"""Who remembers what: lengths double until a model fails, rows are run once, a page shows them."""

import json
import pathlib
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import memory, memory_ladder, memory_page  # noqa: E402

SETTINGS = memory_ladder.Settings(steps=32, level_steps=6, every=2, seconds=1e9)


class Scripted:
    """Passes a length after so many updates, or never; says what it was tested on."""

    needed: dict[int, int] = {}
    tested: list[tuple[int, str]] = []

    def __init__(self, model, task, settings):
        self.updates, self.state = 0, types.SimpleNamespace(step=0)
        self.spent = {}

    def learn(self, task, updates):
        self.updates += updates
        length = int(task.train.lengths[0])
        self.spent[length] = self.spent.get(length, 0) + updates

    def measure(self, task, split):
        length = int(task.test.lengths[0])
        self.tested.append((length, split))
        passed = self.spent.get(length, 0) >= self.needed.get(length, 1e9)
        return (0.95 if passed else 0.5), 0.25


@pytest.fixture
def scripted(monkeypatch):
    """Put a script in the place of training."""
    monkeypatch.setattr(memory_ladder, "Learner", Scripted)
    monkeypatch.setattr(memory_ladder, "_compile", lambda learner, task: None)
    monkeypatch.setattr(Scripted, "tested", [])

    def script(**needed):
        monkeypatch.setattr(Scripted, "needed", {int(k[1:]): v for k, v in needed.items()})
        return Scripted

    return script


def test_climb_doubles_the_length_until_the_updates_are_over(scripted):
    learner = scripted(_8=3, _16=5)
    row = memory_ladder.climb(None, "copying", SETTINGS)
    assert row["remembers"] == 16 and row["ended"] == "steps" and row["firing_rate"] == 0.25
    levels = [(one["length"], one["updates"], one["passed"]) for one in row["levels"]]
    assert levels == [(8, 4, True), (16, 6, True), (32, 6, False)]
    tests = [length for length, split in learner.tested if split == "test"]
    assert tests == [8, 16, 32]  # once each


def test_climb_ends_where_all_is_passed_or_the_time_is_over(scripted):
    scripted(_16=1, _32=1)
    row = memory_ladder.climb(None, "waiting_digits", SETTINGS)
    assert (row["remembers"], row["ended"]) == (32, None)
    scripted()
    row = memory_ladder.climb(None, "parity", memory_ladder.Settings(steps=16, seconds=0.0))
    assert (row["remembers"], row["ended"]) == (0, "seconds")
    assert row["levels"][0]["updates"] == 50


def test_make_task_gives_every_task_and_length_to_one_program():
    shapes = set()
    for name in memory_ladder.THRESHOLDS:
        for length in memory_ladder.lengths(name, SETTINGS):
            task = memory_ladder.make_task(name, length, SETTINGS)
            assert (task.train.lengths == length).all()
            shapes.add((task.train.inputs.shape[1:], task.objective, task.vocab_size))
    assert len(shapes) == 1


def test_run_makes_each_row_once_and_goes_on_where_it_was(monkeypatch, tmp_path):
    path, made = tmp_path / "memory.json", []

    def climb(model, task, settings):
        made.append((type(model).__name__, task))
        if len(made) == 3:
            raise KeyboardInterrupt
        level = {"length": 8, "passed": len(made) == 1, "test": 0.5}
        row = {"remembers": 8 * level["passed"], "ended": "steps", "levels": [level]}
        return row | {"firing_rate": None, "commit": None}

    monkeypatch.setattr(memory, "climb", climb)
    facts = {"S4D": False, "SpikingNetwork": True}
    monkeypatch.setattr(memory, "_facts", lambda model: {
        "spiking": facts[type(model).__name__], "parameters": 1234, "tasks": {}
    })
    arguments = (("s4d", "event_ssm", "lif"), ("copying", "parity"), SETTINGS, path)
    with pytest.raises(KeyboardInterrupt):
        memory.run(*arguments)
    record = memory.run(*arguments)
    assert made == [("S4D", "copying"), ("S4D", "parity"), *[("SpikingNetwork", "copying")] * 2,
                    ("SpikingNetwork", "parity")]
    assert json.loads(path.read_text()) == record and "pool" in record["left_out"]["event_ssm"]
    with pytest.raises(ValueError, match="has other settings"):
        memory.run(("s4d",), ("copying",), memory_ladder.Settings(), path)
    memory.main([f"--record={path}", "--page", "--models=s4d,event_ssm,prf"])
    assert "This run did not reach `prf`. It lacks 6 rows" in path.with_suffix(".md").read_text()
    lines = path.with_suffix(".md").read_text().splitlines()
    assert "| `s4d` | 1,234 |  | **8** | - | - | 0 (50 %) | - |" in lines
    dense, spiking = (lines.index(next(x for x in lines if x.startswith(f"| *{kind}*")))
                      for kind in ("dense", "spiking"))
    assert dense < lines.index("| `s4d` | 1,234 |  | **8** | - | - | 0 (50 %) | - |") < spiking
    assert path.with_suffix(".png").stat().st_size > 0


def test_committed_page_of_memory_is_that_of_the_record():
    record = json.loads(memory.RECORD.read_text())
    text = memory.RECORD.with_suffix(".md").read_text()
    assert text == memory_page.page(record, "memory")
    assert memory.RECORD.with_suffix(".png").exists()
