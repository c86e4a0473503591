"""What a type checker sees in a user's program: the types, and three planted mistakes."""

import pathlib
import re
import subprocess
import sys

import pytest

from pspike_jax import functional

pytest.importorskip("mypy")

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = """
import jax
import numpy as np
import pspike_jax
from pspike_jax import functional, training

inputs = np.zeros((60, 8, 2))
task = pspike_jax.data.from_arrays(inputs, np.arange(60) % 3)
model = pspike_jax.create_model("s4d", **task.model_fields)
reveal_type(model)
result = training.fit(model, task, training.TrainSettings(steps=3))
reveal_type(result)
reveal_type(result.best_step)
scores = training.evaluate(model, result.variables, task, key=jax.random.key(0))
reveal_type(scores["sampled"]["mean"])
reveal_type(scores["sampled"]["metrics"]["accuracy"]["sem_examples"])
answers = training.predict(model, result.variables, [inputs[0], inputs[1, :5]])
reveal_type(answers)
both = training.predict(model, result.variables, inputs, spread=True, draws=4)
reveal_type(both)
reveal_type(pspike_jax.load_pretrained("pspikessm_digits")[0])
result.variabels
scores["sampled"]["maen"]
training.fit(model, task, 3)
""" + "\n".join(f"reveal_type(functional.{name})" for name in functional.__all__)
# NumPy's releases say float32 in several ways.
FLOATS = r"numpy\.ndarray\[[^ ]* \.\.\.\], numpy\.dtype\[.*(float32|32Bit).*\]\]"
TYPES = [
    r"pspike_jax\.models\.sequence\.SequenceModel", r"pspike_jax\.training\.loop\.FitResult", "int",
    "float", "float", FLOATS, rf"tuple\[{FLOATS}, {FLOATS}\]",
    r"pspike_jax\.models\.sequence\.SequenceModel",
]
# What an aggregator is given and gives back is any tree of arrays.
OF_ANY_TREE = {"tree_prefixes"}
MISTAKES = ["attr-defined", "typeddict-item", "arg-type"]


def test_a_type_checker_sees_types_and_mistakes_in_a_users_program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [
        sys.executable, "-m", "mypy", "program.py", "--follow-imports=silent", "--no-error-summary",
        "--ignore-missing-imports", f"--cache-dir={tmp_path / 'cache'}",
    ]
    done = subprocess.run(
        words, cwd=tmp_path, env={"MYPYPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("program.py")]
    found = [re.sub(r'.*Revealed type is "(.*)"$', r"\1", x) for x in lines if "Revealed" in x]
    assert len(found) == len(TYPES) + len(functional.__all__), done.stdout
    for one, expected in zip(found, TYPES):
        assert re.fullmatch(expected, one), f"{one}, expected {expected}"
    names = [None] * len(TYPES) + functional.__all__
    for name, one in zip(names, found):
        # A surrogate may be any function of arrays; NumPy has no shapes; all else is known.
        known = re.sub(r"def \(\*Any, \*\*Any\)|tuple\[Any, \.\.\.\]|dtype\[Any\]", "", one)
        assert not re.search(r"\bAny\b", known) or name in OF_ANY_TREE, f"{name}: {one}"
    errors = [re.sub(r".*\[(.*)\]$", r"\1", line) for line in lines if ": error:" in line]
    assert errors == MISTAKES, done.stdout
