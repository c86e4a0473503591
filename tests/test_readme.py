"""What the README and the pages beside it say is what the code does."""

import configparser
import importlib
import pathlib
import re
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
import yaml

import pspike_jax
from pspike_jax.data.catalog import CATALOG

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the configs

from experiments.configs import psmnist  # noqa: E402
from pspike_jax.command import job  # noqa: E402
from pspike_jax.training.preemption import EXIT_CODE  # noqa: E402

README = (ROOT / "README.md").read_text()
sys.path.insert(0, str(ROOT / "docs"))

import pages  # noqa: E402

# Sizes of the README's example, and those that a test can afford. 250 examples leave 175 to learn.
TINY = {
    "1000": "250", "d_model=32": "d_model=8", "steps=300": "steps=10", "range(20)": "range(4)",
}


def section(title):
    """Return the text between a heading of the second level and the next."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.M | re.S)
    assert found, f"the README has no section {title!r}"
    return found[1]


def blocks(language, text):
    """Return the contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


@pytest.fixture(scope="module")
def example():
    """Names that the Python blocks define when they are run one after another, in small."""
    code = "\n".join(blocks("python", section("Python in ten lines")))
    for size, tiny in TINY.items():
        assert size in code
        code = code.replace(size, tiny)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_python_example_trains_and_evaluates(example):
    losses = [line["train/loss"] for line in example["result"].history]
    assert losses and np.all(np.isfinite(losses))
    sampled = example["scores"]["sampled"]
    assert sampled["draws"] == 8 and sampled["examples"] == 50
    assert 0 <= sampled["mean"] <= 1
    assert np.isfinite(example["value"])  # of the loop that is driven by hand


def test_streamed_example_ends_at_the_logits_of_the_whole_sequence(example):
    whole, _ = jax.jit(example["model"].apply)(
        example["result"].variables, example["task"].test.inputs[:1],
        rngs={"spikes": example["stream"]},
    )
    # Two engines; logits of order 1 differ by rounding unless a spike falls on a tie, and for
    # these keys none does.
    np.testing.assert_allclose(example["logits"], whole, atol=1e-4)


def test_readme_is_short_and_has_ten_lines_of_each():
    assert len(README.encode()) <= 8192
    fit, loop, _ = blocks("python", section("Python in ten lines"))
    assert len(fit.splitlines()) == 10 and len(loop.splitlines()) <= 12


def test_models_are_all_named():
    assert pages.models_table(None) in section("Models"), "run: python docs/pages.py"


def test_tree_lists_every_package_and_nothing_that_is_not_there():
    tree, path, listed = blocks("", section("Architecture"))[0], [], set()
    for line in tree.splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()
        path = path[: len(indent) // 2] + [name.rstrip("/")]
        listed.add("/".join(path))
    assert [entry for entry in listed if not (ROOT / entry).exists()] == []
    packages = {str(p.parent.relative_to(ROOT)) for p in ROOT.glob("pspike_jax/*/__init__.py")}
    assert packages <= listed


def test_commands_name_configs_and_extras_that_exist():
    commands = blocks("bash", section("Two commands"))
    assert len(commands) == 2
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for command in commands:
        (extra,) = re.findall(r"\[(\w+)\]", command)
        assert extra in setup["options.extras_require"]
        assert all((ROOT / path).exists() for path in re.findall(r"--config=(\S+)", command))


def test_ci_runs_the_test_command_of_the_readme():
    marked = re.search(r"^<!-- test command -->\n```bash\n(.*?)^```$", README, re.M | re.S)
    assert marked[1] == blocks("bash", section("Two commands"))[1]
    program = (ROOT / ".ci" / "run").read_text()
    extract = re.search(r"^test_command=\$\(awk '.*?' README.md\)$", program, re.M | re.S)
    done = subprocess.run(
        ["bash", "-c", extract[0] + '; printf "%s\\n" "$test_command"'],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )
    assert done.stdout == marked[1]


def test_links_lead_to_files():
    named = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    dead = [
        (page.name, target)
        for page in [*named, *ROOT.glob("docs/**/*.md")]
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert dead == []


def test_citation_names_the_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {pspike_jax.__version__}\n" in citation


def test_table_of_experiments_is_that_of_the_configs_and_the_catalog():
    experiments_page = (ROOT / "docs" / "experiments.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|", experiments_page, re.M)
    configs = {path.stem for path in ROOT.glob("experiments/configs/*.py")}
    assert {name for name, *_ in rows} <= configs and len(rows) == 13
    for name, sets, sizes in rows:
        names = re.findall(r"`(\w+)`", sets)
        module = importlib.import_module(f"experiments.configs.{name}")
        assert module.get_config().task.dataset == names[0]
        known = [CATALOG[dataset].size for dataset in names]
        assert list(dict.fromkeys(known)) == sizes.split(", ")


PODS = (ROOT / "experiments" / "PODS.md").read_text()


# Flags of gcloud, Slurm and srun in the commands of that page.
OTHERS = {"zone", "worker", "command", "nodes", "ntasks-per-node", "gpus-per-node", "time",
          "requeue", "signal", "kill-on-bad-exit", "length", "devices",
          "xla_cpu_collective_call_terminate_timeout_seconds"}


FLAGS = {word[2:] for action in job.parser()._actions for word in action.option_strings}


def test_commands_for_many_machines_have_flags_and_keys_that_exist():
    named = set(re.findall(r"--([a-z][\w.-]*)", PODS))
    keys = {f"config.{s}.{k}" for s, fields in psmnist.get_config().items() for k in fields}
    assert {"plan_devices", "coordinator", "config.mesh.fsdp", "heartbeat"} <= named
    assert named - FLAGS - keys - {"config.mesh."} == OTHERS


def test_kubernetes_job_fits_itself_and_the_program():
    text = re.search(r"^    apiVersion.*?(?=^\S)", PODS, re.M | re.S)[0]
    service, job = yaml.safe_load_all(textwrap.dedent(text))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (command,) = container["args"]
    assert f"--num_processes={job['spec']['completions']}" in command
    assert job["spec"]["parallelism"] == job["spec"]["completions"]
    name, subdomain = job["metadata"]["name"], job["spec"]["template"]["spec"]["subdomain"]
    assert f"--coordinator={name}-0.{subdomain}:" in command
    assert service["metadata"]["name"] == subdomain and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name}
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [EXIT_CODE] and rule["action"] == "Ignore"
