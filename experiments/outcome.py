"""What a trained run comes to: its evaluation on the test split, its table and its pictures."""

from typing import Any

import jax
from etils import epath

from experiments.experiment import Experiment
from pspike_jax.analysis.report import report
from pspike_jax.training import FitResult, evaluate
from pspike_jax.training.distributed import explain_lost_process, gather, is_primary, meet
from pspike_jax.training.files import local_folder, write_whole


@explain_lost_process()
def judge(experiment: Experiment, result: FitResult, workdir: epath.Path) -> dict[str, Any]:
    """Evaluate the best state of a run, print the table, and draw the pictures.

    Args:
      experiment: what was trained; every process of it must call this.
      result: of `fit` or `load`.
      workdir: folder of the run.

    Returns:
      The evaluation.
    """
    noise_key, report_key = jax.random.split(jax.random.key(experiment.evaluation.seed))
    evaluation = evaluate(
        experiment.model,
        result.variables,
        experiment.task.test,
        key=noise_key,
        draws=experiment.evaluation.draws,
        batch_size=experiment.training.eval_batch_size,
        mesh=experiment.mesh,
    )
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
            )
        print(table)
        write_whole(workdir / "report.txt", table + "\n")
        print(f"Best step by validation: {result.best_step}. Pictures and report.json: {workdir}")
    meet("report")  # who left before that would be taken for dead
    return evaluation
