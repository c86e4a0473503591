"""The main job: train one experiment, evaluate it on the test split, and draw what it learnt.

  python -m experiments.main --config=experiments/configs/NAME.py[:VARIANT] --workdir=DIR

The same command goes on with a run that was killed. What it calls can be called from a notebook.
"""

import json
import pathlib

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from experiments.experiment import build
from pspike_jax.analysis.report import report
from pspike_jax.training import evaluate, fit, load
from pspike_jax.training.files import write_whole

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, with :VARIANT after its name for a variant."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run, and of no other.")
MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "evaluate"], "evaluate reads the best checkpoint so far."
)
FINISHED = "evaluation.json"


def main(argv: list[str]) -> None:
    """Run the experiment that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    logging.set_verbosity(logging.WARNING)  # below that, Orbax tells of every file
    config, workdir = CONFIG.value.to_dict(), pathlib.Path(WORKDIR.value)
    try:
        experiment = build(config)
    except (FileNotFoundError, ValueError) as error:  # missing data, or a wrong config
        raise SystemExit(f"error: {error}") from error
    model, task, training = experiment.model, experiment.task, experiment.training
    print(f"Task: {task.name}")
    where = {"workdir": workdir, "config": config, "mesh": experiment.mesh}
    if MODE.value == "evaluate":
        result = load(model, task, training, **where)
    elif (workdir / FINISHED).exists():
        step = load(model, task, training, **where).best_step
        print(f"{workdir} holds a finished run; its best step by validation is {step}.")
        return
    else:
        result = fit(model, task, training, **where)
    noise_key, report_key = jax.random.split(jax.random.key(experiment.evaluation.seed))
    evaluation = evaluate(
        model,
        result.variables,
        task.test,
        key=noise_key,
        draws=experiment.evaluation.draws,
        batch_size=training.eval_batch_size,
        mesh=experiment.mesh,
    )
    table = report(
        model,
        result.variables,
        task,
        key=report_key,
        evaluation=evaluation,
        workdir=workdir,
        history=result.history,
    )
    print(table)
    write_whole(workdir / "report.txt", table + "\n")
    if MODE.value == "train":  # written last: a run that is killed before is not finished
        write_whole(workdir / FINISHED, json.dumps(evaluation, indent=1) + "\n")
    print(f"Best step by validation: {result.best_step}. Pictures and report.json: {workdir}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
