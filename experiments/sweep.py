"""Run every configuration that a config's `sweep` names, one after another.

  python -m experiments.sweep --config=experiments/configs/psmnist.py --workdir=runs/psmnist_sweep

Each is a run of the main job in a folder named after its fields. The same command goes on with a
sweep that was killed: finished runs are left alone. With --print_only the commands are printed,
one a line, for a scheduler. What stands behind -- goes to every run, for example
-- --config.training.steps=1000.
"""

import argparse
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pspike_jax.command.files import import_config


def collect(declare: Callable[..., None]) -> list[dict[str, Any]]:
    """Return the runs that a config's function calls `add` with, {"section.key": value} each."""
    runs = []
    declare(lambda **fields: runs.append(fields))
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, or print, the sweep that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.sweep", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="file, with :VARIANT after its name")
    parser.add_argument("--workdir", required=True, help="folder of all runs")
    parser.add_argument("--print_only", action="store_true", help="print the commands")
    parser.add_argument("more", nargs="*", help="behind --: arguments of every run")
    asked = parser.parse_args(arguments)
    try:
        config = import_config(asked.config.partition(":")[0])
    except OSError as error:
        raise SystemExit(f"error: {error}") from error
    if not hasattr(config, "sweep"):
        raise SystemExit(f"error: {asked.config} has no function sweep(add)")
    runs = collect(config.sweep)
    for fields in runs:
        words = command(asked.config, asked.workdir, fields, asked.more)
        print(shlex.join(words), flush=True)
        status = 0 if asked.print_only else subprocess.run(words).returncode
        if status:
            raise SystemExit(f"error: the run with {fields} ended with status {status}")


if __name__ == "__main__":
    main()
