"""STC on films of moving digits, which it continues; for `experiments.families`, not the main job.

  python -m experiments.families stc

Films are no sequences of `fit`: the model is trained by `experiments/families/stc.py`. As in the
published program, the loss is the mean squared error over all next frames, and the share of later
inputs that are true frames falls from 1 to 0 over half of training (scheduled sampling). Sizes are
chosen here, for one core; `smoke` runs in seconds.
"""

from ml_collections import config_dict


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, or "smoke"."""
    config = config_dict.create(
        task={
            "seed": 0, "counts": (1000, 1, 64), "frames": 12, "size": 16, "digits": 1, "speed": 1.0,
        },
        model={"name": "stc", "preset": "moving_digits", "cell": "lif", "widths": (16, 16),
               "filter_size": 3},
        training={
            "steps": 600, "batch_size": 8, "learning_rate": 2e-3, "given": 6, "seed": 0,
        },
    )
    if variant == "smoke":
        config.task.update(counts=(8, 1, 4), frames=6)
        config.model.update(widths=(4, 4), groups=2)
        config.training.update(steps=2, batch_size=4, given=3)
    elif variant is not None:
        raise ValueError(f"variant is {variant!r}, expected 'smoke' or none")
    return config
