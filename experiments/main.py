"""The main job: train one experiment, evaluate it on the test split, and draw what it learnt.

  python -m experiments.main --config=experiments/configs/NAME.py[:VARIANT] --workdir=DIR

The same command goes on with a run that was killed. What it calls can be called from a notebook.
PODS.md, beside this file, tells how to run it on many machines.
"""

import json
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from experiments import processes
from experiments.experiment import build
from experiments.outcome import judge
from experiments.plan import plan_in_subprocess
from pspike_jax.training import fit, load
from pspike_jax.training.distributed import is_primary
from pspike_jax.training.files import run_folder, write_whole
from pspike_jax.training.workdir import CONFIG as DESCRIPTION, check_workdir, describe

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, with :VARIANT after its name for a variant."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run, and of no other.")
MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "evaluate", "plan"],
    "evaluate reads the best checkpoint so far; plan says what a run would take, and runs nothing.",
)
PLAN_DEVICES = flags.DEFINE_integer("plan_devices", None, "Number of devices to plan for.")
FINISHED = "evaluation.json"


def main(argv: list[str]) -> None:
    """Run the experiment that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    logging.set_verbosity(logging.WARNING)  # below that, Orbax tells of every file
    config = CONFIG.value.to_dict()
    if MODE.value == "plan":
        sys.exit(plan_in_subprocess(config, PLAN_DEVICES.value))
    if WORKDIR.value is None:
        raise app.UsageError("--workdir is missing")
    processes.start()
    try:
        workdir, experiment = run_folder(WORKDIR.value), build(config)
        model, task, training = experiment.model, experiment.task, experiment.training
        begun = any((workdir / name).exists() for name in (DESCRIPTION, FINISHED))
        if begun or MODE.value == "evaluate":
            check_workdir(workdir, describe(model, task, training, config))
    except (FileNotFoundError, ValueError) as error:  # no data, a wrong config, another's folder
        raise SystemExit(f"error: {error}") from error
    print(f"Task: {task.name}")
    where = {"workdir": workdir, "config": config, "mesh": experiment.mesh}
    if MODE.value == "evaluate":
        judge(experiment, load(model, task, training, **where), workdir)
    elif (workdir / FINISHED).exists():
        print(f"{workdir} holds a finished run; nothing is left to do. Results: report.txt")
    else:
        profile = processes.profile_steps()
        result = fit(model, task, training, **where, profile_steps=profile)
        evaluation = judge(experiment, result, workdir)
        if is_primary():  # written last: a run that is killed before is not finished
            write_whole(workdir / FINISHED, json.dumps(evaluation, indent=1) + "\n")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config"])
    app.run(main)
