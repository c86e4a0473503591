"""Programs compile for accelerators that are not here, where their compilers are installed."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import chips  # noqa: E402

LACKING = {name: chips.missing(chip) for name, chip in chips.CHIPS.items()}
if all(LACKING.values()):
    reasons = "; ".join(sorted(set(LACKING.values())))
    pytest.skip(f"no compiler of an accelerator: {reasons}", allow_module_level=True)

import pspike_jax  # noqa: E402
from benchmarks import compiled, compiled_programs  # noqa: E402

targets = pytest.mark.parametrize("target", chips.CHIPS)


def case(kind):
    """Return a program of a few numbers."""
    if kind == "engine":
        setting = compiled_programs._sizes("linear_ssm", "chunked", 4, 256, 8, 4)
        make = compiled_programs.functools.partial(compiled_programs._diagonal, "chunked")
        return compiled_programs._engine(setting, make, (1, 4))
    model = pspike_jax.create_model("pspikessm", "tiny", vocab_size=None)
    trace = lambda mesh: compiled_programs.trace_step(model, 4, 16, 1, mesh)
    return compiled_programs.Case("step", {"batch": 4, "length": 16}, trace, (1, 4))


@targets
@pytest.mark.parametrize("kind, devices", [("engine", 1), ("step", 4)])
def test_engine_and_step_compile(target, kind, devices):
    if LACKING[target]:
        pytest.skip(LACKING[target])
    record = compiled.compile_case(case(kind), chips.CHIPS[target], devices)
    assert record["compiles"], record
    assert record["note"] == "compiled, not measured"
    assert record["bytes"] > 0 and record["flops"] > 0 and record["least_s"] > 0
    assert record["unknown_loops"] == 0
    assert (record["collective_bytes"] > 0) == (devices > 1)
