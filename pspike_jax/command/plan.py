"""A plan of a run, made in a process of its own that has as many virtual devices as the mesh."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jax

from pspike_jax.command.experiment import build
from pspike_jax.training.plan import plan


def plan_in_subprocess(config: Mapping[str, Any], devices: int | None) -> int:
    """Print the plan of a config.

    Args:
      config: as `pspike_jax.command.experiment.build` takes it.
      devices: how many there will be; None takes as many as the config's mesh names.

    Returns:
      The status to exit with; where it is not 0, the message is already printed.
    """
    if devices is None:
        devices = math.prod(size or 1 for size in config["mesh"].values())
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    program = [sys.executable, "-m", "pspike_jax.command.plan"]
    return subprocess.run(program, input=json.dumps(config), text=True, env=environment).returncode


def main() -> None:
    """Read a config as JSON from standard input; print its plan."""
    try:
        experiment = build(json.load(sys.stdin))
        said = plan(experiment.model, experiment.task, experiment.training, experiment.mesh)
    except (OSError, TypeError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{said}\n\nmade for {jax.device_count()} virtual CPU devices: others' numbers differ")


if __name__ == "__main__":
    main()
