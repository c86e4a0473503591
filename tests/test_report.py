"""The report: what it prints, writes and draws, of findings made by hand and of one real model."""

import json
import types

import numpy as np
import pytest

from pspike_jax import models
from pspike_jax.analysis import activity, energy, plots
from pspike_jax.analysis import report as report_module
from pspike_jax.analysis.measure import Findings
from pspike_jax.analysis.report import caption, report, table

EVALUATION = {
    "sampled": {"mean": 0.953, "sem": 0.0041, "draws": 8, "sem_examples": 0.0115},
    "mean_field": {"mean": 0.97, "sem": 0.0, "draws": 1},
}
HISTORY = [{"step": 1, "train/loss": 1.0, "train/accuracy": 0.5, "train/firing_rate": 0.1}]
POLES = np.array([[[0.5 + 0.1j, 0.9j]]])


class Classes:
    """An objective as a report asks for it."""

    merit, per_step, needs_targets = ("accuracy", "max"), False, True
    num_classes, names = 3, ("a", "b", "c")

    def summary(self, outputs, targets, lengths):
        assert len(outputs) == len(targets) == len(lengths)
        return {"confusion": np.eye(3, dtype=int), "names": self.names,
                "recall": np.array([1.0, np.nan, 0.5])}


TASK = types.SimpleNamespace(name="made", test="split", objective=Classes())

MODEL, STATELESS = object(), object()


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Report on given findings; returns the text and the figures by file name."""

    def run_report(model, findings, history):
        drawn = {}
        monkeypatch.setattr(report_module, "measure", lambda *_: findings)
        monkeypatch.setattr(models, "poles", lambda model, _: POLES if model is MODEL else None)
        monkeypatch.setattr(plots, "save_figure", lambda fig, path: drawn.update({path.name: fig}))
        text = report(model, {}, TASK, key=None, evaluation=EVALUATION, workdir=tmp_path,
                      history=history)
        return text, drawn

    return run_report


def made(captured=None, lengths=(4,), **operations):
    one = np.array([0.125])
    counts = {"synaptic_ops": 1000.0, "dense_macs": 20000.0, "encoder_macs": 10.0,
              "head_macs": 90.0, "real_macs": 0.0, "state_macs": 5000.0} | operations
    return Findings(
        examples=256,
        shares={"input_reverse": activity.Activity(one, one, one / 2, 0 * one, 2 * one)},
        operations=energy.Energy(**counts), captured=captured or {}, lengths=np.array(lengths),
        **SEEN,
    )


SEEN = {"outputs": np.array([[0.0, np.log(3.0), -50.0]]), "targets": np.array([2]),
        "all_lengths": np.array([4])}
SILENT = Findings(256, {}, None, {}, np.array([3]), **SEEN)


def test_report_draws_the_captured_batch_without_its_padding(run, rng):
    p = rng.random((2, 3, 6, 4))
    spikes = (p > 0.5) + 0.0
    lengths = np.array([4, 6, 2])
    site = {"spike_array": spikes, "probability_array": p, "block_output": p}
    _, drawn = run(STATELESS, made({"input": site}, lengths), [])
    assert set(drawn) == {
        "raster.png", "probabilities.png", "active_ratio.png", "confusion.png", "traces.png"
    }
    trace = drawn["traces.png"].axes[1].lines[0].get_ydata()
    rate = spikes[1, 0, :4].mean(axis=0)
    np.testing.assert_array_equal(trace, p[1, 0, :4, np.argmax(np.where(rate < 0.5, rate, -1))])
    # Of exp(0), 3 and exp(-50) the second is 75 %.
    title = drawn["raster.png"].get_suptitle()
    assert title == "Test example 1, 4 steps: label c, answer b (75 %)"
    image = drawn["raster.png"].axes[1].images[0].get_array()
    np.testing.assert_array_equal(image, spikes[1, 0, :4].T)
    ratio = drawn["active_ratio.png"].axes[0].lines[1].get_ydata()
    np.testing.assert_array_equal(ratio, 100 * activity.active_ratio(spikes, lengths)[1])
    shares = drawn["probabilities.png"].axes[0].patches[0].get_data().values
    valid = np.concatenate([p[0, b, : lengths[b]].ravel() for b in range(3)])
    expected, _ = np.histogram(valid, 50, (0, 1))
    np.testing.assert_allclose(shares, 100 * expected / 48, rtol=1e-14)  # one product, one quotient


def test_report_draws_membranes_where_a_threshold_decides(run, rng):
    drive = rng.normal(size=(2, 3, 6, 4))
    spikes = (drive > 0) + 0.0
    site = {"spike_array": spikes, "probability_array": spikes, "drive_array": drive}
    _, drawn = run(STATELESS, made({"hidden": site}, np.array([4, 6, 2])), [])
    assert "membranes.png" in drawn and "traces.png" not in drawn
    rate = spikes[1, 0, :4].mean(axis=0)
    neuron = np.argmax(np.where(rate < 0.5, rate, -1))
    ax = drawn["membranes.png"].axes[1]
    line, threshold = ax.lines
    np.testing.assert_array_equal(line.get_ydata(), drive[1, 0, :4, neuron])
    assert not np.any(threshold.get_ydata())  # drawn where the neuron would fire
    (ticks,) = (each.get_segments() for each in ax.collections)
    assert [int(tick[0, 0]) for tick in ticks] == list(1 + np.flatnonzero(spikes[1, 0, :4, neuron]))


def test_report_draws_poles_where_there_are_state_spaces(run):
    _, drawn = run(MODEL, SILENT, [])
    points = drawn["poles.png"].axes[0].collections[0].get_offsets()
    np.testing.assert_array_equal(points, [[0.5, 0.1], [0, 0.9]])


def test_report_shows_what_a_mode_does_and_where_it_came_from():
    now, before = np.full((1, 4, 1), 0.5j), np.full((1, 4, 1), 0.8 + 0j)
    crosses = plots.poles(now, before).axes[0].lines[1].get_xydata()
    np.testing.assert_allclose(crosses, [[0.8, 0]] * 4)
    time, passed = plots.modes(now, before).axes
    old, new = time.lines[0], time.lines[3]
    steps = new.get_xdata()
    np.testing.assert_allclose(new.get_ydata(), (0.5j**steps).real, atol=1e-12)
    np.testing.assert_allclose(old.get_ydata(), 0.8**steps, atol=1e-12)
    # A pole at i / 2 turns a quarter in a step: the frequency that it passes best is 1 / 4.
    best = passed.lines[3].get_xdata()[np.argmax(passed.lines[3].get_ydata())]
    assert abs(best - 0.25) < 1 / 512


def test_report_shows_residuals_and_the_input():
    found = np.array([[1.0], [2.0], [np.nan], [5.0]])
    histogram, errors = plots.residuals(np.array([[1.0], [1.0], [1.0], [3.0]]), found).axes
    assert sum(bar.get_height() for bar in histogram.patches) == 3
    np.testing.assert_array_equal(errors.lines[0].get_ydata(), [0, 1, np.nan, 2])
    for inputs, lines in ((np.arange(5), 1), (np.zeros((5, 3)), 3), (np.zeros((5, 30)), 0)):
        ax = plots.example_input(inputs, "Test example 1").axes[0]
        assert len(ax.lines) == lines and ax.get_title("left") == "Test example 1"
        assert len(ax.images) == (lines == 0)


def test_report_draws_the_history(run):
    _, drawn = run(STATELESS, SILENT, HISTORY)
    assert set(drawn) == {"learning_curve.png", "confusion.png"}
    (loss,) = drawn["learning_curve.png"].axes[0].lines
    np.testing.assert_array_equal(loss.get_xydata(), [[1, 1]])


def test_report_of_a_model_without_spikes_says_so(run, tmp_path):
    text, drawn = run(STATELESS, SILENT, [])
    assert text.endswith("The model has no spikes, so no activity and no energy to compare.")
    assert list(drawn) == ["confusion.png"]
    assert json.loads((tmp_path / "report.json").read_text())["activity"] == {}


def test_report_writes_the_numbers_that_it_prints(run, tmp_path):
    text, _ = run(STATELESS, made(), [])
    assert text == table(made(), EVALUATION)
    content = json.loads((tmp_path / "report.json").read_text())
    answers = {"confusion": np.eye(3, dtype=int).tolist(), "names": ["a", "b", "c"],
               "recall": [1.0, None, 0.5]}
    assert content == report_module.summary(made(), EVALUATION, merit="accuracy", answers=answers)
    assert content["answers"] == answers and content["merit"] == "accuracy"
    assert content["evaluation"] == EVALUATION
    assert content["activity"]["input_reverse"]["dead"] == [0.0625]
    assert content["operations"] == made().operations._asdict()


def test_report_refuses_a_task_without_a_test_split_before_writing(tmp_path):
    task = types.SimpleNamespace(name="made", test=None)
    with pytest.raises(ValueError, match="'made' has no test split"):
        report(STATELESS, {}, task, key=None, evaluation={}, workdir=tmp_path / "run", history=[])
    assert not (tmp_path / "run").exists()


def test_table_lines_up_what_was_found():
    lines = table(made(), EVALUATION).splitlines()
    assert lines[:4] == [
        "Test accuracy",
        "                     mean  s.e. of draws  s.e. of examples  draws",
        "  sampled spikes  95.30 %         0.41 %            1.15 %      8",
        "  mean field      97.00 %         0.00 %                 -      1",
    ]
    assert lines[5:8] == [
        "Activity on 256 test examples",
        "  layer, site       firing rate   mean p    dead  saturated  surrogate > 0",
        "  1, input reverse      12.50 %  12.50 %  6.25 %     0.00 %        25.00 %",
    ]
    # 0.9 pJ x 1,000 + 4.6 pJ x 100 = 1.36 nJ against 4.6 pJ x 20,100 = 92.46 nJ.
    assert lines[9:17] == [
        "Operations and energy per example (mean of 256)",
        "                                  spiking  dense twin  dense / spiking",
        "  synaptic operations            1,000 AC  20,000 MAC",
        "  encoder                          10 MAC      10 MAC",
        "  head                             90 MAC      90 MAC",
        "  state updates                 5,000 MAC   5,000 MAC",
        "  energy without state updates     1.4 nJ     92.5 nJ            67.99",
        "  energy with state updates       24.4 nJ    115.5 nJ             4.74",
    ]
    assert max(map(len, lines)) <= 100


def test_table_of_another_merit_has_no_percents_and_of_no_draws_no_error_of_draws():
    evaluation = {"sampled": {"mean": 1093.4, "sem": 0.0, "sem_examples": 0.01234, "draws": 1}}
    assert table(SILENT, evaluation, merit="mean_squared_error").splitlines()[:3] == [
        "Test mean squared error",
        "                   mean  s.e. of examples",
        "  sampled spikes  1,090            0.0123",
    ]


def test_table_shows_other_real_products_where_there_are_any():
    assert "other real products" not in table(made(), EVALUATION)
    lines = [line.split() for line in table(made(real_macs=7.0), EVALUATION).splitlines()]
    assert ["other", "real", "products", "7", "MAC", "7", "MAC"] in lines


def regression(targets, outputs, **changes):
    fields = {"per_step": False, "needs_targets": True, "num_classes": None} | changes
    findings = SILENT._replace(targets=np.array(targets), outputs=np.array(outputs))
    return caption(types.SimpleNamespace(**fields), findings)


def test_caption_says_target_and_answer_where_they_are_few_numbers():
    assert regression([0.25], [[0.5]]) == "Test example 1, 3 steps: target 0.250, answer 0.500"
    two = regression([[0.25, 1]], [[0.5, -2.0]])
    assert two == "Test example 1, 3 steps: target 0.250, 1.00, answer 0.500, -2.00"
    for changes in ({"per_step": True}, {"needs_targets": False}):
        assert regression([[1, 2, 3]], [[0.5]], **changes) == "Test example 1, 3 steps"


def test_table_says_what_is_counted_and_what_is_not():
    text = table(made(), EVALUATION)
    for words in ("updates where the line says so", "encoder, head", "0.9 pJ x AC + 4.6 pJ x MAC",
                  "Not counted: memory traffic"):
        assert words in text


def test_summary_has_no_number_that_json_lacks():
    silent = made(synaptic_ops=0.0, encoder_macs=0.0, head_macs=0.0)
    content = report_module.summary(silent, {}, merit="loss", answers={})
    assert content["energy"]["without_state_updates"]["ratio"] is None
    json.dumps(content, allow_nan=False)


def test_summary_gives_energy_with_and_without_state_updates():
    found = report_module.summary(made(), {}, merit="loss", answers={})["energy"]
    np.testing.assert_allclose(
        [list(found[name].values()) for name in ("without_state_updates", "with_state_updates")],
        [[1360, 92460, 92460 / 1360], [24360, 115460, 115460 / 24360]],
        rtol=1e-14,  # a few roundings of float64
    )
