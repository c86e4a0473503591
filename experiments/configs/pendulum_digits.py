"""Networks of pendulums on handwritten digits, 8 x 8 pixels read one by one.

  python -m experiments.main --config=experiments/configs/pendulum_digits.py --workdir=runs/pendulum

The paper trains no network: task and sizes are this project's. The variant `author` has the
published program's step in place of the solution. `smoke` runs every part in seconds.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "author" or "smoke"."""
    config = complete(
        task={"name": "digits", "seed": 0},
        model={
            "name": "pendulum",
            "preset": "author" if variant == "author" else "default",
            "widths": (64, 64),
        },
        optimizer={
            "learning_rate": 6e-3,
            "dynamics_rate": 6e-3,
            "step_size_rate": 6e-3,
            "weight_decay": 0.01,
            "schedule": "cosine",
            "warmup_steps": 156,
        },
        training={
            "steps": 1716,  # 44 epochs of 39 batches
            "batch_size": 32,
            "seed": 0,
            "log_every": 13,
            "eval_every": 429,
            "checkpoint_every": 429,
            "eval_batch_size": 120,
        },
    )
    if variant == "author":
        return config
    return apply_variant(
        config, variant, task={"name": "digits", "seed": 0}, model={"widths": (8, 8)}
    )
