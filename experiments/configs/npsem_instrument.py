"""NPSEM on a synthetic instrument: f descends while u ascends. A reconstruction.

  python -m experiments.main --config=experiments/configs/npsem_instrument.py --workdir=runs/iv

`python -m experiments.families npsem` plays the game of the paper itself, with plain gradients and
the average over iterates; here the optimizer is the project's. `smoke` is small.
"""

from ml_collections import config_dict

from experiments.configs.published import complete


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, or "smoke"."""
    config = complete(
        task={"name": "instrument", "seed": 0, "num_train": 20_000, "alpha": 0.01},
        model={"name": "npsem", "preset": "instrument", "width": 256},
        optimizer={
            "learning_rate": 3e-2,
            "dynamics_rate": 3e-2,
            "step_size_rate": 3e-2,
            "weight_decay": 0.0,
            "schedule": "cosine",
        },
        training={
            "steps": 4000,
            "batch_size": 32,
            "seed": 0,
            "log_every": 200,
            "eval_every": 1000,
            "checkpoint_every": 1000,
            "eval_batch_size": 500,
        },
    )
    config.evaluation.draws = 2
    if variant == "smoke":
        config.task.update(num_train=64)
        config.model.update(width=16)
        config.training.update(steps=4, log_every=2, eval_every=4, checkpoint_every=4)
    elif variant is not None:
        raise ValueError(f"variant is {variant!r}, expected 'smoke' or none")
    return config
