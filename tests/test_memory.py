"""Who remembers what: lengths double until a model fails, rows are run once, a page shows them."""

import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import memory, memory_ladder, memory_page  # noqa: E402

SETTINGS = memory_ladder.Settings(steps=32, level_steps=6, every=2, seconds=1e9)


class Scripted:
    """Passes a length after so many updates, or never; says what it was tested on."""

    def __init__(self, needed):
        self.needed, self.tested = needed, []

    def forget(self):
        self.updates, self.spent = 0, {}

    def learn(self, task, updates):
        self.updates += updates
        length = int(task.train.lengths[0])
        self.spent[length] = self.spent.get(length, 0) + updates

    def measure(self, task, split):
        length = int(task.test.lengths[0])
        self.tested.append((length, split))
        passed = self.spent.get(length, 0) >= self.needed.get(length, 1e9)
        return (0.95 if passed else 0.5), 0.25


def test_climb_doubles_the_length_until_the_updates_are_over():
    learner = Scripted({8: 3, 16: 5})
    row = memory_ladder.climb(learner, "copying", SETTINGS)
    assert row["remembers"] == 16 and row["ended"] == "steps" and row["firing_rate"] == 0.25
    levels = [(one["length"], one["updates"], one["passed"]) for one in row["levels"]]
    assert levels == [(8, 4, True), (16, 6, True), (32, 6, False)]
    tests = [length for length, split in learner.tested if split == "test"]
    assert tests == [8, 16, 32]  # once each


def test_climb_ends_where_all_is_passed_or_the_time_is_over():
    learner = Scripted({16: 1, 32: 1})
    for _ in range(2):  # a second row begins anew
        row = memory_ladder.climb(learner, "waiting_digits", SETTINGS)
        assert (row["remembers"], row["ended"]) == (32, None)
        assert [level["updates"] for level in row["levels"]] == [2, 2]
    settings = memory_ladder.Settings(steps=16, seconds=0.0)
    row = memory_ladder.climb(Scripted({}), "parity", settings)
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
    monkeypatch.setattr(memory, "Learner", lambda model, settings: model)
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
    monkeypatch.setitem(memory.OWN, "prf", {"tau": 3.0})  # no row of it: others stay
    assert memory.begin(path, SETTINGS)["fields"]["own"]["prf"] == {"tau": 3.0}
    monkeypatch.setitem(memory.OWN, "s4d", {"d_state": 4})
    with pytest.raises(ValueError, match="has other fields"):
        memory.begin(path, SETTINGS)
    monkeypatch.undo()
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


def test_run_makes_rows_again_that_ended_by_a_shorter_time(monkeypatch, tmp_path):
    made = []

    def climb(learner, task, settings):
        made.append((task, settings.seconds))
        level = {"length": 8, "passed": False, "test": 0.5, "updates": 50}
        ended = {"copying": "seconds", "parity": "steps"}[task]
        row = {"remembers": 0, "ended": ended, "seconds": settings.seconds + 1, "levels": [level]}
        return row | {"firing_rate": None, "commit": None}

    monkeypatch.setattr(memory, "climb", climb)
    monkeypatch.setattr(memory, "Learner", lambda model, settings: model)
    for seconds in (5.0, 5.0, 9.0):
        settings = memory_ladder.Settings(seconds=seconds)
        arguments = (("s4d",), ("copying", "parity"), settings, tmp_path / "memory.json")
        record = memory.run(*arguments)
    assert made == [("copying", 5.0), ("parity", 5.0), ("copying", 9.0)]
    assert record["settings"]["seconds"] == 9.0
    page = memory_page.page(record, "memory")
    assert "0 (50 %) t50 | - | - | 0 (50 %) |" in page
    assert "| parity | 0 of 1 | 1 | 0 of 0 | 0 |" in page


def test_committed_page_of_memory_is_that_of_the_record():
    record = json.loads(memory.RECORD.read_text())
    text = memory.RECORD.with_suffix(".md").read_text()
    assert text == memory_page.page(record, "memory")
    assert memory.RECORD.with_suffix(".png").exists()
