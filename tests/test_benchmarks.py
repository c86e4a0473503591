"""Benchmarks: contenders agree, records keep their format, and the page says what they say."""

import json
import pathlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import (  # noqa: E402
    compiled_table,
    dplr_engines,
    engine_choice,
    gated,
    neurons,
    reset_neurons,
    sampling,
    shares,
    ssm_engines,
    stream,
    summary,
    ties,
    timing,
    train_step,
)


def program(name, function, *arguments):
    return timing.compile_program(name, function, *arguments)


def test_check_agreement_returns_differences_relative_to_the_peak():
    x = jnp.array([1.0, -4.0])
    programs = [
        program("plain", lambda x: {"y": x}, x),
        program("other", lambda x: {"y": x + 0.5}, x),
    ]
    assert timing.check_agreement(programs, 0.2) == {"other": 0.125}


@pytest.mark.parametrize("wrong", [0.5, np.nan])
def test_check_agreement_names_who_differs(wrong):
    programs = [program(name, lambda x, d=d: x + d, jnp.ones(3)) for name, d in
                (("plain", 0), ("good", 0), ("bad", wrong))]
    with pytest.raises(ValueError, match="plain: bad by .* expected at most 0.1$"):
        timing.check_agreement(programs, 0.1)


def test_measure_takes_turns(monkeypatch):
    order = []
    monkeypatch.setattr(timing.Program, "run", lambda self: order.append(self.name))
    programs = [timing.Program(name, 0.0, 0, None, ()) for name in "ab"]
    records = timing.measure(programs, setting={"L": 1}, rounds=3, sample_s=0, warm_s=0)
    # The first turn tells how often to run; a short program runs once before it is timed.
    assert order == [*"ab", *"aabb", *"bbaa", *"aabb"]
    assert [len(r["rounds_s"]) for r in records] == [3, 3]


def test_ratio_compares_within_rounds():
    slow, fast = {"rounds_s": [2.0, 30.0, 4.0]}, {"rounds_s": [1.0, 10.0, 1.0]}
    assert timing.ratio(slow, fast) == 3  # of 2, 3 and 4


def check_report(name, measure, draw, folder):
    """Run a benchmark in small; raise unless its files hold what was measured."""
    timing.report(name, measure, draw, quick=True, folder=folder)
    header, records = timing.read(folder / f"{name}.jsonl")
    assert {"processor", "cores", "jax", "commit", "load_average"} <= set(header)
    for record in records:
        assert record["q1_s"] <= record["median_s"] <= record["q3_s"]
        assert record["temp_bytes"] >= 0 and record["compile_s"] > 0
    assert draw is None or (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    return records


def test_ssm_engines_agree_with_plain_programs(tmp_path, monkeypatch):
    monkeypatch.setattr(ssm_engines, "ENGINES", ("fft",))  # others have tests of their own
    records = check_report("ssm_engines", ssm_engines.measure, ssm_engines.draw, tmp_path)
    names = [*ssm_engines.PLAIN, "auto", *ssm_engines.ENGINES]
    for passes in ssm_engines.PASSES:
        assert [r["contender"] for r in timing.select(records, **{"pass": passes})] == names
    # The tolerance that long sequences need hides nothing here.
    assert max(r["difference"] for r in records[1:] if "difference" in r) < 1e-5


def test_gated_engine_agrees_with_plain_scans_and_its_memory_is_told(tmp_path):
    records = check_report("gated", gated.measure, None, tmp_path)
    compared = timing.select(records, part="contenders")
    assert [r["contender"] for r in compared] == [*gated.PLAIN, "chunked"]
    assert max(r["difference"] for r in compared[1:]) < 1e-5 and compared[-1]["bytes"] >= 0
    text = "\n".join(summary.rows({"gated": records}))
    assert text.count("decays that change") == 2 and "exponent" in text


WHOLE = {module.__name__.rpartition(".")[2]: module for module in
         (dplr_engines, neurons, reset_neurons, shares)}


@pytest.mark.parametrize("name", WHOLE)
def test_benchmarks_run_and_their_contenders_agree(name, tmp_path):
    records = check_report(name, WHOLE[name].measure, getattr(WHOLE[name], "draw", None), tmp_path)
    # What is compared is compared in small, too: sums of few numbers.
    assert all(r.get("difference", 0) < 1e-4 for r in records)


def test_engine_choice_keeps_what_comes_near_the_fastest(monkeypatch):
    seconds = {"auto": 9.0, "chunked": 2.0, "fft": 1.0, "associative": 2.1, "sequential": 1.9}
    timed = []

    def compare(shape, passes, models, **how):
        timed.append((list(models), how))
        return [{"contender": name, "median_s": seconds[name]} for name in models]

    monkeypatch.setattr(engine_choice, "compare", compare)
    records = engine_choice.measure(False)
    near = ["auto", "chunked", "fft", "sequential"]
    assert timed[:2] == [(list(seconds), engine_choice.FEW), (near, engine_choice.MANY)]
    assert timed[-4:-2] == [  # psMNIST: no scans
        (["auto", "chunked", "fft"], engine_choice.FEW),
        (["auto", "chunked", "fft"], engine_choice.MANY),
    ]
    assert len(records) == sum(len(names) for names, how in timed if how == engine_choice.MANY)


def test_engine_choice_runs_and_agrees(tmp_path):
    records = check_report("engine_choice", engine_choice.measure, None, tmp_path)
    assert records[0]["contender"] == "auto" and len(records) > 1


def test_engine_table_replaces_the_rows_of_its_platform(tmp_path):
    path = tmp_path / "engine_table.json"
    row = {"length": 1, "seconds": {"fft": 0.5}, "measured": True}
    old = [{"platform": "cpu", "length": 7}, {"platform": "tpu", "measured": False}]
    path.write_text(json.dumps(old))
    ssm_engines.write_table(path, [{"platform": "cpu"} | row])
    assert json.loads(path.read_text()) == [{"platform": "cpu"} | row, old[1]]


def test_sampling_agrees_with_the_plain_sampler(tmp_path):
    records = check_report("sampling", sampling.measure, sampling.draw, tmp_path)
    assert {r["contender"] for r in records} == {*sampling.SAMPLERS, "linear_ssm, auto"}


@pytest.mark.parametrize("name", ["official", "paper"])
def test_plain_training_step_has_the_loss_and_gradient_of_the_model(name):
    length = 16
    model, variables, inputs, labels = train_step.make(
        name, 2, length, n_layers=1, d_model=4, d_state=4
    )
    contenders = {
        "plain": train_step.plain_logits(name, length),
        "pspike_jax": train_step.model_logits(model, variables),
    }
    noise = train_step.uniforms(model, inputs)
    differences = train_step.check(contenders, variables["params"], inputs, labels, noise)
    # Sums over 32 steps in float32; a spike that flipped would move a gradient by 1e-2.
    assert differences["pspike_jax"] < 1e-3


def test_stream_latencies_are_of_a_stream_that_agrees_with_the_parallel_pass(tmp_path):
    records = check_report("stream", stream.random_model, lambda records: stream.draw(
        records + [record | {"model": "digits"} for record in records]), tmp_path)
    assert [r["t"] for r in records] == [1, 20]


def passes(spikes, p):
    return {"spike_array": np.asarray(spikes), "probability_array": np.asarray(p)}


def test_ties_are_disagreements_that_follow_from_no_other():
    spikes, p = np.zeros((3, 2, 4, 1)), np.full((3, 2, 4, 1), 0.5)
    others, q = spikes.copy(), p.copy()
    for where in ((0, 0, 2), (1, 0, 1), (1, 0, 3), (2, 0, 0), (2, 0, 2), (2, 1, 3)):
        others[where], q[where] = 1, 0.5 + 0.01 * (1 + where[0])
    found = ties.ties(passes(spikes, p), passes(others, q))
    # In example 0, (1, 3) and (2, 2) come after (0, 2) or (1, 1).
    assert (found["draws"], found["disagreements"], found["ties"]) == (24, 6, 4)
    assert found["widest"] == pytest.approx(0.03)


def test_ties_refuse_a_wide_disagreement(monkeypatch):
    counts = {"draws": 9, "disagreements": 1, "ties": 1, "widest": 2e-5}
    monkeypatch.setattr(ties, "modes", lambda quick: [("engine fft", counts)])
    with pytest.raises(ValueError, match="engine fft"):
        ties.measure(True)


def test_committed_page_says_what_the_records_say():
    page = (ROOT / "docs" / "performance.md").read_text()
    assert f"<!-- performance -->\n{summary.content(timing.RESULTS)}<!-- end of" in page


def test_committed_table_and_page_follow_from_compiled_programs():
    rows = json.loads(compiled_table.TABLE_PATH.read_text())
    made = [row for row in rows if row["platform"] in compiled_table.DECIDES]
    assert made == compiled_table.all_rows(timing.RESULTS)
    page = (ROOT / "docs" / "performance.md").read_text()
    content = compiled_table.content(timing.RESULTS)
    assert f"<!-- compiled -->\n{content}<!-- end of" in page


def test_rows_of_compiled_programs_count_what_is_started():
    sizes = {"batch": 1, "length": 64, "features": 4, "state": 2}
    one = {"recurrence": "linear_ssm", "devices": 1, "compiles": True, **sizes}
    (row,) = compiled_table.table_rows("gpu", [
        one | {"engine": "fft", "least_s": 2e-6, "operations": 10},
        one | {"engine": "sequential", "least_s": 1e-6, "operations": 64},
        one | {"engine": "chunked", "compiles": False},
        one | {"engine": "associative", "devices": 4, "least_s": 0.0, "operations": 0},
    ])
    assert row["estimated_seconds"] == {"fft": 12e-6, "sequential": 65e-6}
    assert (row["engine"], row["measured"]) == ("fft", False)


def record(contender, *seconds, **setting):
    return setting | {"contender": contender, "rounds_s": list(seconds), "temp_bytes": 0}


def test_summary_tells_what_is_reached_from_what_is_missed(tmp_path):
    setting = {"batch": 1, "H": 64, "N": 32, "pass": "forward+backward"}
    records = [
        record("plain fft", 26.0, 28.0, 30.0, L=16_384, **setting),
        record("auto", 2.0, 2.0, 2.0, L=16_384, **setting),
        record("fft", 2.6, 2.6, 2.6, L=16_384, **setting),
        record("chunked", 2.0, 2.0, 2.0, L=16_384, **setting),
    ]
    machine = {"processor": "P", "cores": 2, "jax": "1", "load_average": 0.1}
    timing.write(tmp_path, "ssm_engines", machine, records)
    text = summary.content(tmp_path)
    row = "| {} | B 1, H 64, N 64, L 16,384 | at least {}x | {}x | {} |"
    assert row.format("`auto` against plain fft", 13, 14, "reached") in text
    assert row.format("`chunked` against `fft`", 1.5, 1.3, "missed: ")[:-2] in text
    assert "65,536" not in text, "a row without a record"
