"""The program `pspike`, in a folder that is no clone: own data by configs alone, a page a run."""

import html.parser
import json
import os
import pathlib
import platform
import subprocess
import sys

import numpy as np
import pytest

import pspike_jax
from pspike_jax.command import cli, huge_pages
from pspike_jax.command.files import config_names, import_config

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = ("arrays", "csv", "events", "wav_folder")


def pspike(folder, *words):
    """Run the program as a user does, away from the clone."""
    return subprocess.run(
        [sys.executable, "-m", "pspike_jax", *words], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run on a file of arrays."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    np.savez(
        folder / "mine.npz", inputs=rng.normal(size=(80, 9, 2)).astype(np.float32),
        targets=np.array(["<left>", "right"])[np.arange(80) % 2],
    )
    done = pspike(
        folder, "train", "arrays:smoke", "--config.task.path=mine.npz", "--workdir=run"
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


class Page(html.parser.HTMLParser):
    """Counts tags of a page, and keeps what they load."""

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loaded += [value for name, value in attributes if name in ("src", "href")]


def test_own_arrays_train_outside_a_clone_and_give_one_page(finished, capsys):
    cli.main(["report", str(finished)])
    text = (finished / "report.html").read_text()
    page = Page()
    page.feed(text)
    pictures = len(list(finished.glob("*.png")))
    assert {"kernels", "traces", "poles"} <= {path.stem for path in finished.glob("*.png")}
    assert pictures >= 4 and page.tags.count("img") == pictures
    assert all(one.startswith("data:image/png;base64,") for one in page.loaded)
    score = json.loads((finished / "evaluation.json").read_text())["sampled"]["mean"]
    assert f"<td>{score:.4g}</td>" in text or f"<td>{score:.0f}</td>" in text
    assert "pspikessm on arrays" in text and "dense twin" in text
    assert str(finished / "report.html") in capsys.readouterr().out


def test_a_run_is_evaluated_again_to_the_same_numbers(finished):
    before = (finished / "report.json").read_bytes()
    # As the run was: in a process as many devices, whose sums have one order.
    done = pspike(finished.parent, "evaluate", "run")
    assert done.returncode == 0 and "sampled spikes" in done.stdout, done.stderr
    assert (finished / "report.json").read_bytes() == before


def test_finished_runs_are_exported_and_loaded(finished, tmp_path):
    pytest.importorskip("safetensors")
    cli.main(["export", str(finished), "--format=safetensors", f"--output={tmp_path / 'model'}"])
    model, variables = pspike_jax.export.load(tmp_path / "model")
    outputs = pspike_jax.training.predict(model, variables, np.zeros((2, 9, 2), np.float32))
    assert outputs.shape == (2, 2)


@pytest.mark.parametrize(("words", "message"), [
    (["models", "pspikesm"], "did you mean 'pspikessm'"),
    (["report", "nowhere"], "nowhere is no run"),
    (["train", "arays", "--workdir=x"], "no config 'arays': expected a file, or one of arrays"),
    (["train", "arrays", "--workdir=x"], "task.path is '', and nothing is there"),
    (["evaluate", "nowhere"], "nowhere is no run"),
    (["export", "nowhere", "--format=nir", "--output=x"], "nowhere is no run"),
])
def test_errors_are_one_line_that_says_what_to_change(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    said = str(caught.value.code)
    assert said.startswith("error: ") and message in said and "\n" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("words", "message"), [
    ([], "the following arguments are required"),
    (["trian", "arrays"], "unknown command 'trian'; did you mean 'train'?"),
    (["models", "--suports=dt"], "unknown arguments --suports=dt; did you mean --supports?"),
    (["train", "arrays", "--workdri=x"], "unknown arguments --workdri=x; did you mean --workdir?"),
    (["train"], "the config is missing: a file, or one of arrays, csv"),
    (["train", "arrays"], "--workdir is missing"),
    (["prepare", "--dataset=shdd", "--data_dir=x"], "invalid choice: 'shdd'"),
    (["export", "pspikessm_digits"], "--format"),
])
def test_wrong_words_are_one_line_too(capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.startswith("error: ") and message in said
    assert said.count("\n") == 1


def test_models_lists_all_and_describes_one(capsys):
    cli.main(["models"])
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(pspike_jax.list_models())
    cli.main(["models", "silif"])
    said = capsys.readouterr().out
    assert all(f.name in said for f in pspike_jax.describe_model("silif").fields)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0 and f"usage: {'python' if command == 'check' else 'pspike'}" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_of_own_data_know_what_their_task_takes(name):
    from pspike_jax.command.experiment import call
    from pspike_jax.data import TASKS

    assert tuple(config_names()) == CONFIGS
    for variant in (None, "smoke", "silif"):
        config = import_config(name).get_config(variant)
        task = dict(config["task"])
        with pytest.raises(FileNotFoundError, match="nothing is there"):
            call(TASKS[task.pop("name")], task, "config.task")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("own", [None, "", "glibc.malloc.check=0"])
def test_a_program_starts_again_with_huge_pages_where_nobody_has_chosen(tmp_path, own):
    script = tmp_path / "program.py"
    script.write_text(
        "import importlib.util, os, sys\n"
        f"spec = importlib.util.spec_from_file_location('huge_pages', {huge_pages.__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print('started')\n"
        "sys.stdout.flush()\n"
        "module.start_again()\n"
        "print(os.environ['GLIBC_TUNABLES'], sys.argv[1:], os.getpid())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment |= {} if own is None else {"GLIBC_TUNABLES": own}
    with subprocess.Popen(
        [sys.executable, "-u", script, "--a=b c"], env=environment, text=True,
        stdout=subprocess.PIPE,
    ) as process:
        said = process.communicate()[0].splitlines()
    assert process.returncode == 0
    used = "glibc.malloc.hugetlb=1" if own is None else own
    # A process that is started again keeps its number, by which others know it.
    assert said[-1] == f"{used} ['--a=b c'] {process.pid}"
    assert said[:-1] == ["started"] * (2 if own is None else 1)
