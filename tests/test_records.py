"""Records and their page, of runs made up here; and the committed records and their page."""

import json
import pathlib
import re
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import checks, mnist_table, paper_claims, record, results_page  # noqa: E402
from experiments.configs import listops, psmnist, quickstart  # noqa: E402
from pspike_jax.analysis import energy  # noqa: E402
from pspike_jax.command.experiment import build  # noqa: E402
from made_runs import CONFIG as NAME_OF_CONFIG, write_run  # noqa: E402

CONFIG = str(ROOT / NAME_OF_CONFIG)


@pytest.fixture(scope="module")
def experiment():
    return build(quickstart.get_config("smoke").to_dict())


def changed(**fields):
    """Return the smoke config with fields of its model and training changed."""
    config = quickstart.get_config("smoke")
    for key, value in fields.items():
        section = "model" if key in config.model else "training"
        config[section][key] = value
    return config.to_dict()


@pytest.fixture
def make_run(experiment, tmp_path):
    """A function that writes a run of some seed, accuracy and size, and reads it."""
    count = iter(range(100))

    def make(sampled=0.75, task_name=None, **fields):
        folder = tmp_path / f"run{next(count)}"
        write_run(folder, experiment, changed(**fields), sampled=sampled, task_name=task_name)
        return record.read_run(folder)

    return make


def test_read_run_thins_metrics_and_counts_minutes(make_run):
    run = make_run()
    assert [line["step"] for line in run["metrics"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert run["metrics"][2] == {"step": 3, "train/loss": 0.33333}
    assert run["minutes"] == 10  # 8 steps of 60 + 15 seconds


def test_thin_keeps_validations_and_the_last_lines():
    lines = [
        {"step": step} | ({"validation/accuracy": 0.5} if step % 10 == 0 else {})
        for step in range(1, 1001)
    ]
    steps = [line["step"] for line in record.thin(lines)]
    # 100 validations in strides of 5, 900 other lines in strides of 45: 10 of 9 each, from the end.
    assert steps == sorted([*range(50, 1001, 50), *range(49, 1000, 50)])


def test_read_run_names_what_is_not_finished(experiment, tmp_path):
    folder = write_run(tmp_path / "run", experiment, changed())
    (folder / "evaluation.json").unlink()
    with pytest.raises(FileNotFoundError, match="run is not finished: evaluation.json is missing"):
        record.read_run(folder)


def test_command_names_what_a_run_changed():
    config = changed(seed=3, d_model=8)
    # A full path is shortened to that from the root.
    written = record.command(CONFIG, config | {"mesh": config["mesh"] | {"fsdp": 2}}, "runs/a")
    head, *changes = written.split(" --config.")
    assert head == f"python -m experiments.main --config={NAME_OF_CONFIG} --workdir=runs/a"
    assert sorted(changes) == ["model.d_model=8", "training.seed=3"]


def test_command_hides_where_data_are(tmp_path):
    path = ROOT / "experiments/configs/psmnist.py"
    config = psmnist.get_config().to_dict()
    config["task"]["data_dir"] = str(tmp_path)
    task = config["task"]
    task |= {key: place for key, place in record.PLACES.items() if key in task}
    assert str(tmp_path) not in record.command(str(path), config, "runs/a")


def test_command_refuses_the_run_of_another_config():
    with pytest.raises(ValueError, match="is not of .*psmnist.py: they differ in the keys"):
        record.command(f"{ROOT}/experiments/configs/psmnist.py", changed(), "runs/a")


def test_record_of_seeds_has_their_mean_and_error(make_run):
    made = record.make_record("a", CONFIG, [make_run(0.5), make_run(0.8, seed=1)])
    assert made["config"] == NAME_OF_CONFIG
    assert made["seeds"] == [0, 1]
    # Two values d apart: standard error d / 2.
    assert made["over_seeds"]["sampled"] == pytest.approx({"mean": 0.65, "sem": 0.15, "seeds": 2})
    assert made["commands"][1].endswith("--workdir=runs/a_1 --config.training.seed=1")


def test_record_of_one_run_has_the_error_of_draws_and_examples(make_run):
    sampled = record.make_record("a", CONFIG, [make_run()])["over_seeds"]["sampled"]
    assert sampled == pytest.approx({"mean": 0.75, "sem": 0.05, "seeds": 1})  # of 0.03 and 0.04


def test_record_of_sizes_has_accuracy_against_neurons(make_run, tmp_path):
    made = record.make_record("a", CONFIG, [make_run(0.9, d_model=32), make_run(0.6)])
    assert made["neurons"] == [16, 32] and "over_seeds" not in made
    assert made["accuracies"]["digits, pspikessm"]["mean"] == [0.6, 0.9]
    assert made["accuracies"]["digits, pspikessm"]["sem"] == pytest.approx([0.05, 0.05])
    record.keep_pictures(made, tmp_path / "none", tmp_path / "pictures")
    assert (tmp_path / "pictures" / "neurons.png").read_bytes().startswith(b"\x89PNG")
    text = results_page.page({"a": made})
    assert "\n| 16 | 60.0 ± 5.0 % |\n| 32 | 90.0 ± 5.0 % |\n" in text
    assert "H 16 to 32" in text and "H 16, 32; 0.205 epochs; 1 seed |" in text


def test_record_refuses_runs_that_cannot_stand_together(make_run):
    with pytest.raises(ValueError, match="two of the runs have one config"):
        record.make_record("a", CONFIG, [make_run(), make_run()])
    with pytest.raises(ValueError, match="differ in more than neurons and seed"):
        record.make_record("a", CONFIG, [make_run(), make_run(seed=1, dropout=0.5)])


def test_keep_pictures_keeps_what_they_show(make_run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2, (20, 30, 1)) * np.array([200, 90, 10])
    folder = tmp_path / "run"
    folder.mkdir()
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "poles.png")
    record.keep_pictures(record.make_record("a", CONFIG, [make_run()]), folder, tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["poles.png"]
    with Image.open(tmp_path / "kept" / "poles.png") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), pixels)


@pytest.mark.parametrize("task_name, paper, gap", [
    ("psmnist", "98.4 %", "-3.4 points"),
    ("listops (reduced)", "55.7 %", "+39.3 points, on a reduced set"),
    ("digits", "none", ""),
])
def test_page_compares_with_the_paper(make_run, task_name, paper, gap):
    made = record.make_record("a", CONFIG, [make_run(0.95, task_name=task_name)]) | {"table": ""}
    row = f"| [a](#a) | {paper} | 95.0 ± 5.0 % | {gap} |"
    assert row in results_page.page({"a": made})


def test_papers_figures_are_those_of_the_configs():
    for (task, model), (figure, source) in results_page.PAPERS.items():
        text = {"psmnist": psmnist, "listops": listops}[task].__doc__.replace("\n", " ")
        said = re.search(r"Expected test accuracy: ([\d.]+) %, P-SpikeSSM's (.*?)[.;] ", text)
        assert float(said[1]) == figure and model == "pspikessm"
        assert re.findall(r"\d{4}\.\d{5}", said[2]) == re.findall(r"\d{4}\.\d{5}", source)


def test_committed_page_is_that_of_the_committed_records():
    assert results_page.PAGE.read_text() == results_page.page(results_page.read_records())


def test_committed_table_of_mnist_is_that_of_the_committed_records():
    assert mnist_table.PAGE.read_text() == mnist_table.page(results_page.read_records())


def test_price_of_spikes_is_what_the_dense_twin_has_more():
    def made(mean, sites):
        counted = {"spiking_picojoules": 4100.0}
        report = {"activity": sites, "energy": {
            "without_state_updates": counted, "with_state_updates": counted,
        }}
        found = {"mean": mean, "sem": 0.003, "sem_examples": 0.004}
        metrics = [{"step": 1}, {"step": 2, "validation/accuracy": 0.875}]
        run = {"evaluation": {"sampled": found}, "report": report, "metrics": metrics, "minutes": 9}
        return {"runs": [run]}

    spiking = made(0.93, {"input": {"firing_rate": [0.1, 0.3]}})
    text = mnist_table.page({"psmnist_prf": spiking, "psmnist_s4d": made(0.96, {})})
    # Errors of 0.3 and 0.4 points are 0.5 together, and of two models 0.7.
    assert "| `prf` | 93.00 ± 0.50 % | 3.0 ± 0.7 | 20 % | 4 | 4 | 9 |" in text
    assert "| `s4d` | 96.00 ± 0.50 % |  | none |" in text and "- `prf`: 87.5" in text
    assert "Not trained yet: `pspikessm`, `spikingssm`.\n" in text


def test_committed_claims_are_measured_by_the_records():
    shown = paper_claims.PAGE.read_text()
    assert results_page.fill(shown, "claims", paper_claims.content()) == shown
    assert shown.count(paper_claims.NOT_MEASURED) < len(paper_claims.CLAIMS)


def test_a_claim_whose_record_lacks_it_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(paper_claims, "ROOT", tmp_path)
    (claim,) = (c for c in paper_claims.CLAIMS if "SiLIF" in c.says)
    assert paper_claims.measured(claim) == paper_claims.NOT_MEASURED
    path = tmp_path / claim.record
    path.parent.mkdir(parents=True)
    counts = dict.fromkeys(energy.Energy._fields, 1.0)

    def model(*accuracies):
        runs = [{"accuracy": a, "firing_rate": 0.1, "operations": counts} for a in accuracies]
        seeds = {str(i): run for i, run in enumerate(runs)}
        return {"tasks": {"digits": {"test_examples": 400, "seeds": seeds}}}

    path.write_text(json.dumps({"models": {"silif": model(0.5, 0.6, 0.7)}}))
    assert paper_claims.measured(claim) == paper_claims.NOT_MEASURED
    both = {"silif": model(0.5, 0.6, 0.7), "adlif": model(0.4, 0.5, 0.6)}
    path.write_text(json.dumps({"models": both}))
    assert paper_claims.measured(claim).startswith(
        "digits: +10.0 ± 0.0 points (60.0 and 50.0 %), which stands"
    )


def test_committed_records_are_complete_and_say_nothing_of_a_place():
    for name, kept in results_page.read_records().items():
        assert not re.search(r'"/|/tmp|/home|\\\\', json.dumps(kept)), name
        if "seeds" not in kept:
            assert (results_page.RESULTS / f"{name}.md").exists()
            continue
        assert {"config", "commands", "seeds", "hardware", "runs"} <= set(kept)
        assert len(list((results_page.RESULTS / name).glob("*.png"))) >= 1
        for run in kept["runs"]:
            assert {"description", "evaluation", "report", "metrics", "minutes"} <= set(run)
        assert kept["commands"] == [
            record.command(str(ROOT / kept["config"]), run["description"]["config"], workdir)
            for run, workdir in zip(kept["runs"], results_page.workdirs(name, len(kept["runs"])))
        ]


def test_committed_page_shows_the_quickstart_as_recorded():
    kept = results_page.read_records()["quickstart"]
    shown = (ROOT / "docs" / "results.md").read_text()
    content = results_page.summary("quickstart", kept)
    assert content in shown and results_page.fill(shown, "quickstart output", content) == shown


def test_committed_checks_found_nothing_and_were_as_long_as_they_must():
    kept = results_page.read_records(checks.CHECKS)
    # {long sequence: what a device may need beside its even share}
    shares = {"long_sequence": 0.05, "long_sequence_linoss": 0.25, "long_sequence_mamba": 0.25}
    assert {"faults", "fuzz", "long_run", *shares} == set(kept)
    assert not any(found["failures"] for found in kept.values())
    assert kept["faults"]["killed_and_resumed"] >= 100
    assert kept["fuzz"]["files"] >= 2000 and kept["long_run"]["steps"] >= 10_000
    for name, beside in shares.items():
        found = kept[name]
        assert (found["length"], found["devices"]) == (2**20, 8)
        assert found["bytes_of_each_device"] <= (1 + beside) * found["bytes_of_one_device"] / 8
    assert (checks.CHECKS / "README.md").read_text() == checks.page(kept)
