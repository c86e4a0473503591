"""A forecast: the Mackey-Glass equation with delay 17, 15 steps ahead, by oscillators.

  python -m experiments.main --config=experiments/configs/mackey_glass.py --workdir=runs/mackey

The equation is chaotic; series start from histories of their own, so that none of test is known.
The variants `pspikessm` and `s4d` have probabilistic spikes and a diagonal state space in place of
oscillators. `smoke` runs every part in seconds. Sizes are chosen here; `experiments.series` keeps
what comes of it.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete

MODELS = {
    None: {"name": "linoss", "preset": "linoss"},
    "pspikessm": {"name": "pspikessm", "preset": "paper", "dt_min": 0.01, "dt_max": 0.5},
    "s4d": {"name": "s4d", "causal": True, "dt_min": 0.01, "dt_max": 0.5},
}


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "smoke" or a key of MODELS."""
    return small_series(
        variant,
        task={
            "name": "mackey_glass", "tau": 17, "length": 256, "horizon": 15, "num_train": 128,
            "num_validation": 16, "num_test": 32, "seed": 0,
        },
        smoke={"length": 24, "num_train": 16, "num_validation": 8, "num_test": 8},
    )


def small_series(variant: str | None, *, task: dict, smoke: dict) -> config_dict.ConfigDict:
    """Return the config of a small model on generated series.

    Args:
      variant: None, "smoke", or a key of MODELS.
      task: of the full run.
      smoke: fields of the task that are others in the smoke variant.

    Raises:
      ValueError: an unknown variant.
    """
    small = variant == "smoke"
    if not small and variant not in MODELS:
        names = ", ".join(name for name in MODELS if name)
        raise ValueError(f"variant is {variant!r}, expected 'smoke', none or one of {names}")
    sizes = {"d_model": 16, "d_state": 16, "n_layers": 2, "dropout": 0.0}
    config = complete(
        task=task,
        model=MODELS[None if small else variant] | sizes,
        optimizer={
            "learning_rate": 1e-2, "dynamics_rate": 1e-2, "step_size_rate": 1e-2,
            "weight_decay": 0.0, "schedule": "cosine", "warmup_steps": 50,
        },
        training={
            "steps": 1000, "batch_size": 16, "seed": 0, "log_every": 50, "eval_every": 100,
            "checkpoint_every": 100, "eval_batch_size": 16,
        },
    )
    return apply_variant(
        config, "smoke" if small else None, task=task | smoke,
        model={"d_model": 4, "d_state": 4, "n_layers": 1},
    )
