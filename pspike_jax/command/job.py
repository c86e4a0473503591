"""The main job: train one experiment, evaluate it on the test split, and draw what it learnt.

  pspike train CONFIG[:VARIANT] --workdir=DIR
  python -m experiments.main --config=experiments/configs/NAME.py[:VARIANT] --workdir=DIR

The same command goes on with a run that was killed. What it calls can be called from a notebook.
docs/pods.md tells how to run it on many machines.
"""

import argparse
import json
import logging
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from pspike_jax.analysis.files import atomic_write
from pspike_jax.command import overrides, processes
from pspike_jax.command.experiment import build
from pspike_jax.command.files import CONFIGS, config_names
from pspike_jax.command.outcome import write_report
from pspike_jax.command.plan import plan_in_subprocess
from pspike_jax.command.reader import Reader
from pspike_jax.training import fit, load
from pspike_jax.training.distributed import is_primary
from pspike_jax.training.files import run_folder
from pspike_jax.training.workdir import CONFIG as DESCRIPTION, check_workdir, describe

FINISHED = "evaluation.json"


def parser(prog: str = "pspike train", configs: pathlib.Path = CONFIGS) -> Reader:
    """Return the reader of the command line.

    Args:
      prog: what help and messages call the command.
      configs: folder of the configs that help names.
    """
    made = Reader(
        prog=prog, description=__doc__,
        epilog="--config.SECTION.KEY=VALUE changes a key of the config, for example "
        "--config.model.surrogate=boxcar;\nfields of the model that the file does not list, too. "
        "The head of each config names its variants.\n\n"
        f"configs: {', '.join(config_names(configs))}",
    )
    made.add_argument(
        "--config", help="file, or name of a config, with :VARIANT after it; may stand first alone"
    )
    made.add_argument("--workdir", help="folder of this run, and of no other")
    made.add_argument(
        "--mode", choices=["train", "evaluate", "plan"], default="train",
        help="evaluate reads the best checkpoint so far; plan says what a run would take, and "
        "runs nothing",
    )
    made.add_argument("--plan_devices", type=int, help="number of devices to plan for")
    made.add_argument("--traceback", action="store_true", help="show where an error comes from")
    processes.add_flags(made)
    return made


def main(
    arguments: Sequence[str] | None = None, prog: str = "pspike train",
    configs: pathlib.Path = CONFIGS,
) -> None:
    """Run the experiment that the command line names.

    Args:
      arguments: of the command; None takes those of this process.
      prog, configs: as of `parser`.

    Raises:
      SystemExit: the user has to change something; the message is one line, or, where data are
        missing, some.
    """
    reader = parser(prog, configs)
    asked, changes = reader.parse_known_args(arguments)
    unknown = [word for word in changes if not word.startswith(overrides.PREFIX)]
    if unknown:
        reader.refuse(unknown)
    if asked.config is None:
        reader.error(f"the config is missing: a file, or one of {', '.join(config_names(configs))}")
    if asked.workdir is None and asked.mode != "plan":
        reader.error("--workdir is missing")
    logging.getLogger("absl").setLevel(logging.WARNING)  # below that, Orbax tells of every file
    try:
        config = overrides.read(asked.config, changes)
        if config["task"].get("path"):  # the run is looked at from other folders, too
            config["task"]["path"] = os.path.abspath(os.path.expanduser(config["task"]["path"]))
        if asked.mode == "plan":
            sys.exit(plan_in_subprocess(config, asked.plan_devices))
        processes.start(asked)
        run(config, run_folder(asked.workdir), asked)
    except (ImportError, OSError, TypeError, ValueError) as error:  # no data, another's folder
        if asked.traceback:
            raise
        raise SystemExit(f"error: {error}") from error


def run(config: Mapping[str, Any], workdir: epath.Path, asked: argparse.Namespace) -> None:
    """Train, or evaluate.

    Args:
      config: of the experiment.
      workdir: folder of the run.
      asked: the command line.
    """
    experiment = build(config)
    model, task, training = experiment.model, experiment.task, experiment.training
    begun = any((workdir / name).exists() for name in (DESCRIPTION, FINISHED))
    if begun or asked.mode == "evaluate":
        check_workdir(workdir, describe(model, task, training, config))
    print(f"Task: {task.name}")
    where = {"workdir": workdir, "config": config, "mesh": experiment.mesh}
    if asked.mode == "evaluate":
        write_report(experiment, load(model, task, training, **where), workdir)
    elif (workdir / FINISHED).exists():
        print(f"{workdir} holds a finished run; nothing is left to do. Results: report.txt")
    else:
        result = fit(model, task, training, **where, profile_steps=asked.profile_steps)
        evaluation = write_report(experiment, result, workdir)
        if is_primary():  # written last: a run that is killed before is not finished
            atomic_write(workdir / FINISHED, json.dumps(evaluation, indent=1) + "\n")
