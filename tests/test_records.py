"""Records, their page and published models, of runs made up here; the committed page is theirs."""

import hashlib
import json
import pathlib
import re
import sys

import jax
import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import cards, publish, record, reevaluate, results_page, runs  # noqa: E402
from experiments.configs import listops, psmnist, quickstart  # noqa: E402
from experiments.experiment import build  # noqa: E402
from made_runs import CONFIG as NAME_OF_CONFIG, EVALUATION, write_run  # noqa: E402
from pspike_jax.data import Split  # noqa: E402
from pspike_jax.pretrained import load_pretrained  # noqa: E402
from small_models import draw_variables  # noqa: E402

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
        return runs.read_run(folder)

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
    steps = [line["step"] for line in runs.thin(lines)]
    # 100 validations in strides of 5, 900 other lines in strides of 45: 10 of 9 each, from the end.
    assert steps == sorted([*range(50, 1001, 50), *range(49, 1000, 50)])


def test_read_run_names_what_is_not_finished(experiment, tmp_path):
    folder = write_run(tmp_path / "run", experiment, changed())
    (folder / "evaluation.json").unlink()
    with pytest.raises(FileNotFoundError, match="run is not finished: evaluation.json is missing"):
        runs.read_run(folder)


def test_command_names_what_a_run_changed():
    config = changed(seed=3, d_model=8)
    written = runs.command(CONFIG, config | {"mesh": config["mesh"] | {"fsdp": 2}}, "runs/a")
    head, *changes = written.split(" --config.")
    assert head == f"python -m experiments.main --config={CONFIG} --workdir=runs/a"
    assert sorted(changes) == ["model.d_model=8", "training.seed=3"]


def test_command_hides_where_data_are(tmp_path):
    path = ROOT / "experiments/configs/psmnist.py"
    config = psmnist.get_config().to_dict()
    config["task"]["data_dir"] = str(tmp_path)
    task = config["task"]
    task |= {key: place for key, place in runs.PLACES.items() if key in task}
    assert str(tmp_path) not in runs.command(str(path), config, "runs/a")


def test_command_refuses_the_run_of_another_config():
    with pytest.raises(ValueError, match="is not of .*psmnist.py: they differ in the keys"):
        runs.command(f"{ROOT}/experiments/configs/psmnist.py", changed(), "runs/a")


def test_record_of_seeds_has_their_mean_and_error(make_run):
    made = record.make_record("a", CONFIG, [make_run(0.5), make_run(0.8, seed=1)])
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


def test_committed_records_are_complete_and_say_nothing_of_a_place():
    for name, kept in results_page.read_records().items():
        assert not re.search(r'"/|/tmp|/home|\\\\', json.dumps(kept)), name
        if "models" in kept:
            continue
        assert {"config", "commands", "seeds", "hardware", "runs"} <= set(kept)
        assert len(list((results_page.RESULTS / name).glob("*.png"))) >= 1
        for run in kept["runs"]:
            assert {"description", "evaluation", "report", "metrics", "minutes"} <= set(run)
        assert kept["commands"] == [
            runs.command(kept["config"], run["description"]["config"], workdir)
            for run, workdir in zip(kept["runs"], results_page.workdirs(name, len(kept["runs"])))
        ]


def test_readme_shows_the_quickstart_as_recorded():
    kept, readme = results_page.read_records()["quickstart"], (ROOT / "README.md").read_text()
    content = record.summary("quickstart", kept)
    assert content in readme and record.fill(readme, "quickstart output", content) == readme


@pytest.fixture
def published(experiment, tmp_path, monkeypatch):
    """A function that publishes a made-up run with drawn variables; and those variables."""
    variables = draw_variables(experiment.model, experiment.task.test.inputs[:1])
    result = type("Result", (), {"variables": variables, "best_step": 4})
    monkeypatch.setattr(publish, "load_best", lambda folder: (experiment, result))
    (tmp_path / "weights").mkdir()

    def make(**fields):
        folder = write_run(tmp_path / "run", experiment, changed(), **fields)
        return publish.publish(
            "a", CONFIG, folder, weights=tmp_path / "weights", samples=tmp_path / "samples"
        )

    return make, variables


def test_published_model_comes_back_with_card_and_sample(published, experiment, tmp_path):
    make, variables = published
    card = make()
    module, found, read = load_pretrained("a", tmp_path / "weights")
    assert module == experiment.model and read == card
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    assert card["figures"]["test_accuracy"] == EVALUATION and card["best_step"] == 4
    assert card["command"].endswith(f"--config={CONFIG} --workdir=runs/a")
    assert card["data"]["licence"] == "CC BY 4.0"
    with np.load(tmp_path / "samples" / "a.npz", allow_pickle=False) as sample:
        np.testing.assert_array_equal(sample["inputs"], experiment.task.test.inputs[:64])
        np.testing.assert_array_equal(sample["labels"], experiment.task.test.labels[:64])
        assert sample["logits"].shape == (64, 10)


@pytest.mark.parametrize("fields, limit, message", [
    ({"task_name": "unheard of"}, 10**6, "no words about the data of 'unheard of'"),
    ({}, 1000, "the weights take .* bytes, expected at most 1,000"),
])
def test_publish_leaves_nothing_where_it_fails(
    published, tmp_path, monkeypatch, fields, limit, message
):
    monkeypatch.setattr(publish, "LARGEST", limit)
    with pytest.raises(ValueError, match=message):
        published[0](**fields)
    assert not [*(tmp_path / "weights").iterdir()] and not (tmp_path / "samples").exists()


def test_check_same_refuses_another_array_or_module(published, experiment):
    variables = published[1]
    other = jax.tree.map(lambda leaf: leaf + 1, variables)
    publish.check_same((experiment.model, variables, {}), experiment, variables)
    with pytest.raises(ValueError, match="not all arrays come back"):
        publish.check_same((experiment.model, other, {}), experiment, variables)
    with pytest.raises(ValueError, match="the card gives"):
        publish.check_same((experiment.model.clone(dropout=0.9), variables, {}), experiment, {})


def test_drawn_pictures_are_bars_and_rings_in_bit_reversal_order():
    inputs, lengths, labels = publish.draw_pictures()
    assert inputs.shape == (16, 784, 1) and (lengths == 784).all() and (labels == -1).all()
    order = [int(f"{number:010b}"[::-1], 2) for number in range(1024)]
    order = [number for number in order if number < 784]
    pictures = np.empty((16, 784))
    pictures[:, order] = inputs[:, :, 0]
    pictures = pictures.reshape(16, 28, 28)
    # Rings look the same after a quarter turn; the first bar lies, the fifth stands.
    np.testing.assert_allclose(pictures[8:], np.rot90(pictures[8:], axes=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(pictures[4], pictures[0].T, atol=1e-6)
    assert (pictures[0].argmax(axis=0)[8:20] == 13).all()
    assert len(np.unique(pictures.round(3), axis=0)) == 16


def test_fingerprint_is_that_of_the_numbers_and_no_other():
    rng = np.random.default_rng(0)
    inputs = rng.random((1500, 3, 1)).astype(np.float32)
    split = Split(inputs, np.full(1500, 3), rng.integers(0, 4, 1500))
    digest = hashlib.sha256()
    for rows in (slice(0, 1024), slice(1024, 1500)):
        for array, dtype in zip(split, (np.float32, np.int32, np.int32)):
            digest.update(array[rows].astype(dtype).tobytes())
    assert cards.fingerprint(split) == digest.hexdigest()
    inputs[1400, 2, 0] += 1
    assert cards.fingerprint(split) != digest.hexdigest()


def test_compare_allows_noise_and_two_examples():
    def results(mean, sem):
        return {"sampled": {"mean": mean, "sem": sem, "examples": 100}}

    # Four times hypot(0.003, 0.004) is 0.02, and two examples of 100 as much.
    for mean, expected in ((0.939, True), (0.941, False), (0.861, True), (0.859, False)):
        table, agree = reevaluate.compare(results(0.9, 0.003), results(mean, 0.004))
        assert agree is expected and f"{mean:.2%}" in table


def test_reevaluate_takes_the_card_at_its_word(monkeypatch):
    seen = []
    monkeypatch.setattr(reevaluate, "test", lambda *found: seen.append(found) or EVALUATION)
    card, now = reevaluate.reevaluate("pspikessm_digits", draws=3)
    module, variables, expected = load_pretrained("pspikessm_digits")
    assert card == expected["figures"]["test_accuracy"] and now == EVALUATION
    experiment, used = seen[0]
    assert experiment.model == module and experiment.evaluation.draws == 3
    assert experiment.evaluation.seed == expected["config"]["evaluation"]["seed"]
    jax.tree.map(np.testing.assert_array_equal, used, variables)
    monkeypatch.setattr(reevaluate, "fingerprint", lambda split: "other")
    with pytest.raises(ValueError, match="the test set has sha256 other, that of the card "):
        reevaluate.reevaluate("pspikessm_digits")
    with pytest.raises(ValueError, match="are in no folder: leave --data_dir out"):
        reevaluate.reevaluate("pspikessm_digits", data_dir="data")


def test_reevaluate_ends_with_an_error_where_figures_differ(monkeypatch):
    off = {way: result | {"mean": 0.1} for way, result in EVALUATION.items()}
    monkeypatch.setattr(reevaluate, "reevaluate", lambda **asked: (EVALUATION, off))
    with pytest.raises(SystemExit, match="these are not the figures of the card"):
        reevaluate.main(["--name=pspikessm_digits"])
