"""dLDS on paths of the Lorenz system, trained by gradients through its inference.

  python -m experiments.main --config=experiments/configs/dlds_lorenz.py --workdir=runs/dlds_lorenz

Euler's steps of the system are exactly two operators, mixed by 1 and by the first state. The
authors' own fit is `training.dlds.fit_dlds`. `smoke` is small.
"""

from ml_collections import config_dict


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, or "smoke"."""
    config = config_dict.create(
        task={"name": "lorenz_states", "seed": 0, "trials": 128, "steps": 100},
        model={"name": "dlds", "preset": "lorenz", "operators": 2, "penalty": 1e-3},
        optimizer={
            "learning_rate": 1e-2,
            "dynamics_rate": 1e-2,
            "step_size_rate": 1e-2,
            "readout_rate": config_dict.placeholder(float),
            "weight_decay": 0.0,
            "b1": 0.9,
            "b2": 0.999,
            "clip_norm": config_dict.placeholder(float),
            "schedule": "cosine",
            "warmup_steps": 0,
            "decay_steps": config_dict.placeholder(int),
            "plateau_factor": 0.95,
            "plateau_patience": 10,
        },
        training={
            "steps": 1000,
            "batch_size": 32,
            "seed": 0,
            "log_every": 50,
            "eval_every": 250,
            "checkpoint_every": 250,
            "keep": 2,
            "keep_best": 1,
            "eval_batch_size": 64,
            "validation_draws": 1,
            "firing_rate_weight": 0.0,
            "firing_rate_target": 0.0,
        },
        mesh={"data": config_dict.placeholder(int), "fsdp": 1, "model": 1, "sequence": 1},
        evaluation={"draws": 2, "seed": 0},
    )
    if variant == "smoke":
        config.task.update(trials=8, steps=10)
        config.model.update(penalty=1e-2)
        config.training.update(steps=4, log_every=2, eval_every=4, checkpoint_every=4)
        config.evaluation.draws = 2
    elif variant not in (None,):
        raise ValueError(f"variant is {variant!r}, expected 'smoke' or none")
    return config
