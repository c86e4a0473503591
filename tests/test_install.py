"""What a user installs: wheel and sdist as an index would check them, and their use elsewhere.

Takes minutes a Python, and an index to install from: `python -m pytest -n 0 -m slow
tests/test_install.py`. Pythons are those on the path and those of pyenv.
"""

import os
import pathlib
import shutil
import subprocess
import tarfile
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
LEFT = ("build", "dist", ".git", ".venv*", "runs", "*.egg-info", "__pycache__", ".*_cache")
USE = """
import pathlib, warnings
warnings.simplefilter("error", DeprecationWarning)
import numpy as np
import pspike_jax
from pspike_jax.training import TrainSettings, evaluate, fit, predict
assert "site-packages" in pspike_jax.__file__, pspike_jax.__file__
assert (pathlib.Path(pspike_jax.__file__).parent / "py.typed").exists()
model, variables, card = pspike_jax.load_pretrained("pspikessm_digits")
answers = predict(model, variables, np.zeros((2, 64, 1), np.float32))
assert answers.shape == (2, 10) and np.isfinite(answers).all()
task = pspike_jax.data.from_arrays(np.random.default_rng(0).normal(size=(60, 8, 2)),
                                   np.arange(60) % 3, test=0.2)
model = pspike_jax.create_model("s4d", **task.model_fields, d_model=4, n_layers=1)
fit(model, task, TrainSettings(steps=2, batch_size=8, eval_batch_size=8), progress=False)
print("used")
"""


def python(minor):
    """Return a Python of this minor version that makes virtual environments, or skip."""
    versions = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    here = [shutil.which(f"python3.{minor}")]
    here += sorted(versions.glob(f"versions/3.{minor}.*/bin/python"))
    for candidate in filter(None, here):
        asked = [candidate, "-c", "import ensurepip, sys; print(sys.version_info[1])"]
        done = subprocess.run(asked, capture_output=True, text=True)
        if done.stdout.strip() == str(minor):
            return str(candidate)
    pytest.skip(f"no Python 3.{minor} here")


def run(*words, folder):
    """Run a program away from the clone; fail with what it said."""
    ours = ("PYTHONPATH", "XLA_", "JAX_")  # the tests' own settings are not a user's
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The sdist, the wheel that is built of it, and a Python with twine."""
    folder = tmp_path_factory.mktemp("packages")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*LEFT))
    venv.create(folder / "tools", with_pip=True)
    tools = str(folder / "tools" / "bin" / "python")
    run(tools, "-m", "pip", "install", "-q", "build", "twine", folder=folder)
    run(tools, "-m", "build", "--outdir", "dist", "source", folder=folder)
    (sdist,), (wheel,) = folder.glob("dist/*.tar.gz"), folder.glob("dist/*.whl")
    return sdist, wheel, tools


def test_an_index_would_take_the_packages(packages):
    sdist, wheel, tools = packages
    files = str(sdist), str(wheel)
    said = run(tools, "-m", "twine", "check", "--strict", *files, folder=wheel.parent)
    assert said.count("PASSED") == 2
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("py.typed", "functional/engine_table.json", "pretrained/pspikessm_digits.npz",
                 "check/truth.npz"):
        assert f"pspike_jax/{part}" in names
    assert not [name for name in names if name.startswith(("tests/", "experiments/"))]
    with tarfile.open(sdist) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    assert {"tests/conftest.py", "tests/lanes.py", "mkdocs.yml", "docs/index.md"} <= inside


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_the_wheel_is_used_away_from_the_clone(packages, tmp_path, minor):
    _, wheel, _ = packages
    run(python(minor), "-m", "venv", "fresh", folder=tmp_path)
    fresh = str(tmp_path / "fresh" / "bin" / "python")
    run(fresh, "-m", "pip", "install", "-q", str(wheel), folder=tmp_path)
    assert run(fresh, "-c", USE, folder=tmp_path).strip() == "used"
    said = run(str(tmp_path / "fresh" / "bin" / "pspike"), "models", "s4d", folder=tmp_path)
    assert "d_state" in said
