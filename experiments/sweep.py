"""Run every configuration that a config's `sweep` names, one after another.

  python -m experiments.sweep --config=experiments/configs/psmnist.py --workdir=runs/psmnist_sweep

Each is a run of the main job in a folder named after its fields. The same command goes on with a
sweep that was killed: finished runs are left alone. With --print_only the commands are printed,
one a line, for a scheduler. What stands behind -- goes to every run, for example
-- --config.training.steps=1000.
"""

import importlib.util
import pathlib
import shlex
import subprocess
import sys
from typing import Any

from absl import app, flags

CONFIG = flags.DEFINE_string("config", None, "Config file, with :VARIANT after it for a variant.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.")
PRINT_ONLY = flags.DEFINE_bool("print_only", False, "Print the commands.")


def read_sweep(path: str) -> list[dict[str, Any]]:
    """Read the runs of a sweep.

    Args:
      path: of a config file.

    Returns:
      For each run the fields that it changes, {"section.key": value}.

    Raises:
      ValueError: the config names no sweep.
    """
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "sweep"):
        raise ValueError(f"{path} has no function sweep(add)")
    runs = []
    module.sweep(lambda **fields: runs.append(fields))
    return runs


def command(config: str, workdir: str, fields: dict[str, Any], more: list[str]) -> list[str]:
    """Write the command of one run.

    Args:
      config: the config file, with its variant.
      workdir: folder of all runs.
      fields: what the run changes.
      more: arguments that every run gets.

    Returns:
      The arguments of a process.
    """
    name = "_".join(f"{key.rpartition('.')[2]}_{value}" for key, value in fields.items())
    changes = [f"--config.{key}={value}" for key, value in fields.items()]
    return [
        sys.executable, "-m", "experiments.main", f"--config={config}",
        f"--workdir={pathlib.Path(workdir) / name}", *changes, *more,
    ]


def main(argv: list[str]) -> None:
    """Run, or print, the sweep that the flags name."""
    try:
        runs = read_sweep(CONFIG.value.partition(":")[0])
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    for fields in runs:
        arguments = command(CONFIG.value, WORKDIR.value, fields, argv[1:])
        print(shlex.join(arguments), flush=True)
        if not PRINT_ONLY.value and subprocess.run(arguments).returncode:
            raise SystemExit(f"error: the run with {fields} failed")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
