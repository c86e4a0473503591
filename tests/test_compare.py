"""The comparison of models: sizes, choices by validation alone, counts, what stands, the page."""

import copy
import json
import pathlib
import sys

import jax
import numpy as np
import pytest
from matplotlib.text import Text

import pspike_jax
from pspike_jax.data import from_arrays

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import (  # noqa: E402
    compare, comparison, comparison_page, comparison_plots, step_costs
)
from experiments.comparison_statistics import Summary, difference, front  # noqa: E402
from pspike_jax.analysis.energy import Energy  # noqa: E402

NO_MEMORY = {"models": {}, "thresholds": {"copying": 0.9}}
SHAPES = {"digits": (64, 1, 10), "japanese_vowels": (29, 12, 9), "spoken_digits": (92, 13, 10)}


def task_of(length, channels, classes, examples=40):
    """Noise, loud enough for spikes; a quarter is for validation, half for test."""
    rng = np.random.default_rng(0)
    inputs = (20 * rng.normal(size=(examples, length, channels))).astype(np.float32)
    targets = np.concatenate([np.arange(classes), rng.integers(0, classes, examples - classes)])
    return from_arrays(inputs, targets, validation=0.25, test=0.5, seed=0)


@pytest.mark.parametrize("name", SHAPES)
def test_every_classifier_of_the_zoo_is_built_causal_and_with_two_layers(name):
    assert set(pspike_jax.list_models(kind="classifier")) < set(compare.comparison.rows())
    task = task_of(*SHAPES[name])
    for row in comparison.rows():
        config = comparison.make_model(row, task, 32).config
        layers = [getattr(config, name, None) for name in ("n_layers", "stage_layers")]
        assert 2 in layers or len(config.widths) == 2, row
        assert getattr(config, "causal", True) and not getattr(config, "bidirectional", False), row


def test_width_found_is_the_nearest_that_the_model_takes(monkeypatch):
    task = task_of(*SHAPES["japanese_vowels"])
    # Two layers of w neurons of 6 numbers each, 12 channels, 9 outputs with a leak each.
    counted = comparison.count_parameters(comparison.make_model("lif", task, 10), task)
    assert counted == 12 * 10 + 10 * 10 + 10 * 9 + 2 * 3 * 10 + 3 * 9
    sizes = []
    monkeypatch.setattr(comparison, "count_parameters", lambda model, task: sizes.append(
        model.config.widths[0]) or 10 * model.config.widths[0] ** 2)
    # 44 and 45 are nearest to 20,000 = 10 w^2; s5rf's blocks take 40 and 48 alone, 20 % off.
    assert comparison.find_width("lif", task) == (45, 20_250)
    assert len(sizes) <= 7
    with pytest.raises(ValueError, match="s5rf has 23,040 parameters at width 48, not 20,000"):
        comparison.find_width("s5rf", task)


def operations(additions=1500.0, products=2500.0):
    return Energy(additions, 0.0, 0.0, 0.0, products, 1000.0)._asdict()


class Script:
    """What stands in for training: the second rate has the lowest loss, the third none."""

    def __init__(self):
        self.calls = []

    def train(self, model, task, rate, seed, steps):
        row = type(model).__name__, model.config.d_model
        self.calls.append(("train", *row, rate, seed, steps))
        if rate == comparison.RATES[2]:
            return {"error": "step 3: the loss is not finite"}
        # The first rate would win if the test split were asked.
        found = {"accuracy": 0.9, "loss": abs(rate - comparison.RATES[1])}
        return {"validation": found, "variables": "V", "seconds": 1.0}

    def test(self, model, task, variables, seed):
        self.calls.append(("test", seed))
        dense = type(model).__name__ == "S4D"
        return {
            "accuracy": 0.5 + seed / 10, "firing_rate": None if dense else 0.25,
            "operations": operations(0.0 if dense else 1500.0),
        }


@pytest.fixture
def scripted(monkeypatch):
    script = Script()
    for name in ("train", "test"):
        monkeypatch.setattr(compare, name, getattr(script, name))
    made = {name: task_of(*shape) for name, shape in SHAPES.items()}
    monkeypatch.setattr(compare, "make_task", lambda name, data_dir: made[name])
    monkeypatch.setattr(compare, "find_width", lambda row, task: (32, 20_000))
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    return script


def run(path, tasks=("digits",), models=("lif_ssm", "s4d"), seeds=3):
    record = compare.begin(path)
    compare.compare(record, path, "FILES", tasks, models, seeds)
    return json.loads(path.read_text())


def test_rates_are_chosen_by_validation_and_the_test_split_is_read_once_a_seed(scripted, tmp_path):
    record = run(tmp_path / "record.json", models=("lif_ssm",))
    steps, tuning = comparison.STEPS["digits"], comparison.TUNING_STEPS
    what = [call if call[0] == "test" else call[3:] for call in scripted.calls]
    assert what == [(rate, comparison.TUNING_SEED, tuning) for rate in comparison.RATES] + [
        one for seed in range(3)
        for one in ((comparison.RATES[1], seed, steps), ("test", seed))
    ]
    kept = record["models"]["lif_ssm"]
    assert kept["learning_rate"] == comparison.RATES[1] and comparison.TUNING_SEED not in range(9)
    assert "variables" not in kept["tasks"]["digits"]["seeds"]["0"]


def test_a_finished_run_is_not_run_again_and_a_changed_model_is(scripted, tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    first = run(path)
    scripted.calls.clear()
    assert run(path) == first and not scripted.calls
    run(path, seeds=4)
    assert [call[0] for call in scripted.calls] == 2 * ["train", "test"]
    scripted.calls.clear()
    monkeypatch.setitem(comparison.OWN, "s4d", {"initializer": "lin"})
    run(path)
    assert len(scripted.calls) == 3 + 6 and scripted.calls[0][1] == "S4D"
    monkeypatch.setattr(comparison, "BATCH", 64)
    with pytest.raises(ValueError, match="has other batch"):
        run(path)


def test_a_model_that_does_not_fit_is_left_out_with_its_reason(scripted, tmp_path, monkeypatch):
    def refuse(row, task):
        raise ValueError("too wide\nand long")

    monkeypatch.setattr(compare, "find_width", refuse)
    record = run(tmp_path / "record.json")
    assert record["left_out"] == {"lif_ssm": "too wide", "s4d": "too wide"}
    text = comparison_page.page(record, NO_MEMORY, "record")
    assert "`s4d` is not here: too wide.\n" in text and "Nothing has been trained yet." in text


def test_records_of_two_processes_become_one(scripted, tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    alone, record = run(one, models=("s4d",)), run(two, models=("lif_ssm",))
    compare.add(record, one)
    assert record["models"].keys() == {"s4d", "lif_ssm"}
    assert record["models"]["s4d"] == alone["models"]["s4d"]
    with pytest.raises(ValueError, match="or has \\['s4d'\\], too"):
        compare.add(record, one)
    record["settings"]["batch"] = 1
    del record["models"]["s4d"]
    with pytest.raises(ValueError, match="has other settings"):
        compare.add(record, one)


def test_steps_are_timed_once_with_the_width_that_was_trained(scripted, tmp_path, monkeypatch):
    asked, quartiles = [], {"q1": 1e-3, "median": 2e-3, "q3": 3e-3, "temporary_bytes": 4_200_000}
    monkeypatch.setattr(step_costs, "make_task", compare.make_task)
    monkeypatch.setattr(step_costs, "find_width", lambda row, task: (77, 20_000))
    monkeypatch.setattr(
        step_costs, "time_step", lambda row, task, width: asked.append((row, width)) or quartiles
    )
    path = tmp_path / "record.json"
    record = run(path, models=("s4d",))
    for _ in range(2):
        step_costs.time_steps(record, path, "FILES", ("s4d", "lif"))
    assert asked == [("s4d", 32), ("lif", 77)]
    text = comparison_page.page(json.loads(path.read_text()), NO_MEMORY, "record")
    assert "| `lif` | 2.0 | 1.0 | 3.0 | 4.2 |" in text


def summary(*accuracies, examples=10_000, additions=0.0):
    named = {str(seed): value for seed, value in enumerate(accuracies)}
    error = np.std(accuracies, ddof=1) / len(accuracies) ** 0.5
    energy = Energy(additions, 0, 0, 0, 0, 0)
    return Summary(named, float(np.mean(accuracies)), error, 0.5, energy, examples)


def test_a_difference_stands_where_students_t_and_the_examples_say_so():
    best = summary(0.90, 0.92, 0.94)
    # Paired differences 0.02, 0.03, 0.04: error 0.01 / sqrt(3); t of 2 degrees is 4.303, which
    # asks for 0.0248.
    gap = difference(best, summary(0.88, 0.89, 0.90))
    assert gap.mean == pytest.approx(0.03) and gap.error == pytest.approx(0.01 / 3**0.5)
    assert gap.stands
    # 0.015 less: 0.015 is below it. And 200 examples alone blur 0.9 by 0.02 each.
    assert not difference(best, summary(0.895, 0.905, 0.915)).stands
    few = summary(0.90, 0.92, 0.94, examples=200)
    assert not difference(few, summary(0.88, 0.89, 0.90, examples=200)).stands
    assert not difference(summary(0.9, 0.8)._replace(accuracies={"0": 0.9}), best).stands


def test_front_holds_what_no_other_model_beats_in_both():
    found = {
        "best": summary(0.9, 0.9, additions=9.0), "cheap": summary(0.5, 0.5, additions=1.0),
        "beaten": summary(0.6, 0.6, additions=8.0), "middle": summary(0.7, 0.7, additions=4.0),
    }
    assert front(found, lambda one: one.synaptic_ops) == ["cheap", "middle", "best"]


def test_page_shows_means_differences_twins_and_what_is_missing(scripted, tmp_path):
    path = tmp_path / "record.json"
    record = run(path, tasks=("digits", "spoken_digits"))
    dense = record["models"]["s4d"]["tasks"]["digits"]["seeds"]
    for run_of_seed in dense.values():
        run_of_seed["accuracy"] += 0.2
    for row in ("s4d", "lif_ssm"):
        record["models"][row]["tasks"]["digits"]["test_examples"] = 10_000
    memory = {"thresholds": {"a": 0.9}, "models": {"s4d": {"tasks": {"a": {"remembers": 64}}}}}
    text = comparison_page.page(record, memory, "record")
    # Of 0.5, 0.6 and 0.7: mean 60 %, standard error 0.1 / sqrt(3) = 5.8 points. Energy: 3,500
    # products at 4.6 pJ, or 2,500 without states; 1,500 additions at 0.9 pJ. With memory of 10 pJ a
    # word, 2,500 products at 24.6 pJ, 1,000 of states at 17.9 pJ, additions at 30.9 pJ.
    assert (
        "| `s4d` | 80.0 ± 5.8 % |  |  |  | 3,500 | 16.1 | 11.5 |  | 79.4 | 20,000 | 32 | 0.01 |"
    ) in text
    assert (
        "| `lif_ssm` | 60.0 ± 5.8 % | **20.0 ± 0.0** | 25.0 % | 1,500 | 3,500 | 17.4 | 12.8 | "
        "1.35 | 126 | 20,000 | 32 | 0.01 |"
    ) in text
    assert "| `lif_ssm` | `s4d` | **-20.0 ± 0.0** | +0.0 ± 0.0 | 1.1 times more |" in text
    assert "`s4d` is first, 80.0 %. 0 of 1 others" not in text  # of one other nothing is said
    missing = [line for line in text.splitlines() if line.startswith("Not run yet on")]
    assert len(missing) == 2 and "`silif`" in missing[0] and "`lif_ssm`" not in missing[0]
    assert "Nothing was run yet on Japanese vowels." in text
    assert "Time and memory of a step were not measured yet." in text
    assert "All five were run with 1 of the models here." in text


def test_stopped_runs_are_named_and_do_not_count(scripted, tmp_path):
    record = run(tmp_path / "record.json", models=("s4d",))
    seeds = record["models"]["s4d"]["tasks"]["digits"]["seeds"]
    seeds["1"] = {"error": "not finite", "commit": "c"}
    text = comparison_page.page(record, NO_MEMORY, "record")
    assert "Stopped: `s4d`, seed 1: not finite." in text
    assert "| `s4d` | 60.0 ± 10.0 % |" in text  # of 0.5 and 0.7


def test_labels_cover_no_other_label():
    rng = np.random.default_rng(0)
    names = {f"a model {number}": (10 ** (2 * x), 10 ** (2 * y))
             for number, (x, y) in enumerate(rng.random((34, 2)))}
    fig, (ax,) = comparison_plots._figure(1)
    comparison_plots._scatter(ax, {name: summary(0.5, 0.6) for name in names}, names)
    fig.draw_without_rendering()
    boxes = [Text.get_window_extent(one) for one in ax.texts]  # an annotation's has its line in it
    assert len(boxes) == 34
    overlaps = [one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i]]
    assert sum(overlaps) == 0


def tiny(task, name, **fields):
    """Return an untrained model, and its variables."""
    model = pspike_jax.create_model(name, num_outputs=3, **fields)
    rngs = {"params": jax.random.key(0), "spikes": jax.random.key(1)}
    return model, jax.jit(model.init)(rngs, task.test.inputs[:1])


def test_operations_of_a_spiking_network_are_those_of_its_captured_spikes():
    task = task_of(10, 2, 3, examples=80)
    model, variables = tiny(task, "rlif", widths=(6, 5), dropout=0.0)
    found = compare.test(model, task, variables, 0)
    logits, aux = jax.jit(lambda v, x: model.apply(v, x, capture=True))(
        variables, task.test.inputs
    )
    spikes = [float(np.sum(aux["sites"][f"hidden_{i}"]["spike_array"])) for i in range(2)]
    assert sum(spikes) > 50
    examples = len(task.test.lengths)
    # A spike reaches the next layer's neurons and the others of its own.
    additions = (spikes[0] * (5 + 5) + spikes[1] * (3 + 4)) / examples
    counts = Energy(**found["operations"])
    np.testing.assert_allclose(counts.synaptic_ops, additions, rtol=1e-6)  # float32 sums
    np.testing.assert_allclose(found["firing_rate"], sum(spikes) / (examples * 10 * 11), rtol=1e-6)
    assert counts.real_products + counts.state_macs == 10 * 2 * 6
    accuracy = np.mean(np.argmax(logits, axis=-1) == task.test.targets)
    assert found["accuracy"] == pytest.approx(accuracy)


def test_operations_of_the_dense_twin_are_products_and_states():
    task = task_of(10, 2, 3, examples=80)
    model, variables = tiny(task, "s4d", d_model=4, d_state=6, n_layers=2)
    found = compare.test(model, task, variables, 0)
    counts = Energy(**found["operations"])
    assert found["firing_rate"] is None and counts.synaptic_ops == 0
    # Encoder 2 x 4, each layer 4 x 8 and, for 3 pairs of 4 features, 6; head 4 x 3 once.
    assert counts.real_products == 10 * (8 + 2 * 32) + 12
    assert counts.state_macs == 10 * 2 * 6 * 3 * 4


def test_committed_page_of_the_comparison_is_that_of_the_record():
    record = json.loads(compare.RECORD.read_text())
    memory = json.loads(comparison_page.MEMORY.read_text())
    text = compare.RECORD.with_suffix(".md").read_text()
    assert text == comparison_page.page(copy.deepcopy(record), memory, "comparison")
    for row, kept in record["models"].items():
        for found in kept["tasks"].values():
            assert abs(found["parameters"] / comparison.SIZE - 1) <= comparison.TOLERANCE, row
            assert not any("dirty" in run["commit"] for run in found["seeds"].values()), row
