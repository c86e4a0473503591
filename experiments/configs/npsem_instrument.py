"""NPSEM on a synthetic instrument: f descends while u ascends. A reconstruction.

  python -m experiments.main --config=experiments/configs/npsem_instrument.py --workdir=runs/iv

`experiments/instrument.py` plays the game of the paper itself, with plain gradients and the average
over iterates; here the optimizer is the project's. `smoke` is small.
"""

from ml_collections import config_dict


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, or "smoke"."""
    config = config_dict.create(
        task={"name": "instrument", "seed": 0, "num_train": 20_000, "alpha": 0.01},
        model={"name": "npsem", "preset": "instrument", "width": 256},
        optimizer={
            "learning_rate": 3e-2,
            "dynamics_rate": 3e-2,
            "step_size_rate": 3e-2,
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
            "steps": 4000,
            "batch_size": 32,
            "seed": 0,
            "log_every": 200,
            "eval_every": 1000,
            "checkpoint_every": 1000,
            "keep": 2,
            "keep_best": 1,
            "eval_batch_size": 500,
            "validation_draws": 1,
            "firing_rate_weight": 0.0,
            "firing_rate_target": 0.0,
        },
        mesh={"data": config_dict.placeholder(int), "fsdp": 1, "model": 1, "sequence": 1},
        evaluation={"draws": 2, "seed": 0},
    )
    if variant == "smoke":
        config.task.update(num_train=64)
        config.model.update(width=16)
        config.training.update(steps=4, log_every=2, eval_every=4, checkpoint_every=4)
        config.evaluation.draws = 2
    elif variant not in (None,):
        raise ValueError(f"variant is {variant!r}, expected 'smoke' or none")
    return config
