"""dLDS on paths of the Lorenz system, trained by gradients through its inference.

  python -m experiments.main --config=experiments/configs/dlds_lorenz.py --workdir=runs/dlds_lorenz

Euler's steps of the system are exactly two operators, mixed by 1 and by the first state. The
authors' own fit is `recipes.dlds.fit_dlds`. `smoke` is small.
"""

from ml_collections import config_dict

from experiments.configs.published import complete


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, or "smoke"."""
    config = complete(
        task={"name": "lorenz_states", "seed": 0, "trials": 128, "steps": 100},
        model={"name": "dlds", "preset": "lorenz", "operators": 2, "penalty": 1e-3},
        optimizer={
            "learning_rate": 1e-2,
            "dynamics_rate": 1e-2,
            "step_size_rate": 1e-2,
            "weight_decay": 0.0,
            "schedule": "cosine",
        },
        training={
            "steps": 1000,
            "batch_size": 32,
            "seed": 0,
            "log_every": 50,
            "eval_every": 250,
            "checkpoint_every": 250,
            "eval_batch_size": 64,
        },
    )
    config.evaluation.draws = 2
    if variant == "smoke":
        config.task.update(trials=8, steps=10)
        config.model.update(penalty=1e-2)
        config.training.update(steps=4, log_every=2, eval_every=4, checkpoint_every=4)
    elif variant is not None:
        raise ValueError(f"variant is {variant!r}, expected 'smoke' or none")
    return config
