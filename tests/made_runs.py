"""Workdirs of runs that never were: the files of a finished run, with chosen numbers."""

import json

from pspike_jax.training.workdir import describe

CONFIG = "experiments/configs/quickstart.py:smoke"
EVALUATION = {
    "sampled": {"mean": 0.75, "sem": 0.03, "draws": 8, "sem_examples": 0.04, "examples": 360},
    "mean_field": {"mean": 0.8, "sem": 0.0, "draws": 1, "sem_examples": 0.04, "examples": 360},
    "threshold": {"mean": 0.7, "sem": 0.0, "draws": 1, "sem_examples": 0.04, "examples": 360},
}
CIRCUMSTANCES = {"versions": {"jax": "1.2.3"}, "commit": "abc", "platform": "cpu"}


def write_run(folder, experiment, config, *, sampled=0.75, task_name=None):
    """Write the files of a finished run, and two pictures; return its folder."""
    described = describe(experiment.model, experiment.task, experiment.training, config).tree
    if task_name is not None:
        described["task"]["name"] = task_name
    evaluation = json.loads(json.dumps(EVALUATION))
    evaluation["sampled"]["mean"] = sampled
    lines = [
        {"step": step, "train/loss": 1 / step, "time/compute": 60.0, "time/data": 15.0}
        | ({"validation/accuracy": 0.5} if step % 4 == 0 else {})
        for step in range(1, 9)
    ]
    folder.mkdir()
    files = {
        "config.json": json.dumps(described | CIRCUMSTANCES),
        "evaluation.json": json.dumps(evaluation),
        "report.json": json.dumps({"activity": {"input": {"firing_rate": [0.25]}}}),
        "report.txt": "Test accuracy\n  as it was printed\n",
        "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in lines),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder
