"""What a trained run comes to: its evaluation on the test split, its table and its pictures."""

import pathlib
from typing import Any

import jax
from etils import epath

from pspike_jax.analysis.files import atomic_write, local_folder
from pspike_jax.analysis.report import report
from pspike_jax.command.experiment import Experiment, build
from pspike_jax.command.files import read_json
from pspike_jax.training import FitResult, evaluate, load
from pspike_jax.training.creation import initial_poles
from pspike_jax.training.distributed import barrier, explain_lost_process, gather, is_primary


def load_best(workdir: pathlib.Path) -> tuple[Experiment, FitResult]:
    """Read what a run has left so far, on whatever devices are here.

    Args:
      workdir: of the run.

    Returns:
      The experiment, and its best variables.

    Raises:
      FileNotFoundError: the folder holds no run, or no whole checkpoint; or the data are missing.
      ValueError: the config is wrong.
    """
    config = read_json(workdir / "config.json")["config"]
    experiment = build(config | {"mesh": {}})
    where = {"workdir": workdir, "config": config, "mesh": experiment.mesh}
    return experiment, load(experiment.model, experiment.task, experiment.training, **where)


def test(experiment: Experiment, variables: Any) -> dict[str, Any]:
    """Evaluate variables on the test split, with the draws that the config names.

    Args:
      experiment: what they were trained in; every process of it must call this.
      variables: of its model.

    Returns:
      The evaluation.
    """
    noise_key, _ = _keys(experiment)
    return evaluate(
        experiment.model,
        variables,
        experiment.task,
        "test",
        key=noise_key,
        draws=experiment.evaluation.draws,
        batch_size=experiment.training.eval_batch_size,
        mesh=experiment.mesh,
    )


@explain_lost_process()
def write_report(experiment: Experiment, result: FitResult, workdir: epath.Path) -> dict[str, Any]:
    """Evaluate the best state of a run, print the table, and draw the pictures.

    Args:
      experiment: what was trained; every process of it must call this.
      result: of `fit` or `load`.
      workdir: folder of the run.

    Returns:
      The evaluation.
    """
    evaluation = test(experiment, result.variables)
    _, report_key = _keys(experiment)
    variables = gather(result.variables)
    if is_primary():
        with local_folder(workdir) as folder:
            table = report(
                experiment.model,
                variables,
                experiment.task,
                key=report_key,
                evaluation=evaluation,
                workdir=folder,
                history=result.history,
                initial_poles=initial_poles(
                    experiment.model, experiment.task, experiment.training
                ),
            )
        print(table)
        atomic_write(workdir / "report.txt", table + "\n")
        print(f"Best step by validation: {result.best_step}. Pictures and report.json: {workdir}")
    barrier("report")  # who left before that would be taken for dead
    return evaluation


def _keys(experiment: Experiment) -> tuple[jax.Array, jax.Array]:
    """Return keys for the evaluation and for the report."""
    noise_key, report_key = jax.random.split(jax.random.key(experiment.evaluation.seed))
    return noise_key, report_key
