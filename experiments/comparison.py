"""What `experiments.compare` compares: models of equal size, and the config of each run."""

from typing import Any

EPOCHS = {"japanese_vowels": 100, "spoken_digits": 30}
EXAMPLES = {"japanese_vowels": 216, "spoken_digits": 2168}  # that training sees
BATCH = 32
RATES = (3e-3, 1e-2, 3e-2)
SEEDS, TUNING_SEED = (0, 1, 2), 100
VALIDATION_DRAWS, TEST_DRAWS = 4, 8  # of the noise

_STATE_SPACE = {
    "n_layers": 2, "d_state": 16, "norm": "batch", "dropout": 0.1,
    # Time constants of 2 to 50 steps, for sequences of 7 to 92.
    "dt_min": 0.02, "dt_max": 0.5,
}


def _reset_based(width: int) -> dict[str, Any]:
    return {"widths": (width, width), "norm": "batch", "dropout": 0.1}


# Widths that bring each model within 5 % of 20,000 parameters on either data set.
MODELS = {
    "silif": _reset_based(126),
    "csilif": _reset_based(127),
    "adlif": _reset_based(127),
    "cadlif": _reset_based(127),
    "lif": _reset_based(128),
    "rlif": _reset_based(77),
    "radlif": _reset_based(76),
    # Its Euler step multiplies currents by dt = 0.004: at threshold 1 it would never fire.
    "resonate_and_fire": _reset_based(128) | {"threshold": 0.05},
    "pspikessm": {"preset": "paper", "d_model": 72} | _STATE_SPACE,
    "s4d": {"d_model": 60} | _STATE_SPACE,
}


def make_config(
    dataset: str, data_dir: str, model: str, rate: float, seed: int, epochs: int
) -> dict[str, Any]:
    """Return the config of one run, as `command.experiment.build` takes it."""
    steps = EXAMPLES[dataset] // BATCH  # of an epoch
    validation = steps * max(1, epochs // 10)
    return {
        "task": {"name": dataset, "source_dir": data_dir, "seed": 0},
        "model": {"name": model} | MODELS[model],
        "optimizer": {
            "learning_rate": rate, "dynamics_rate": rate, "step_size_rate": rate,
            "weight_decay": 0.0, "schedule": "cosine", "warmup_steps": steps,
        },
        "training": {
            "steps": steps * epochs, "batch_size": BATCH, "seed": seed, "log_every": steps,
            "eval_every": validation, "checkpoint_every": validation, "keep": 1,
            "eval_batch_size": 128, "validation_draws": VALIDATION_DRAWS,
        },
        "mesh": {},
        "evaluation": {"draws": TEST_DRAWS, "seed": seed},
    }
