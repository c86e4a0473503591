"""Mamba, Mamba-2, gated linear attention or a prefix-scannable model on ListOps of reduced length.

  python -m experiments.main --config=experiments/configs/selective_listops.py --workdir=runs/mamba

The published rules with lengths of 50 to 200 in place of 500 to 2,000; the majority class has about
17 %. Sizes and settings are chosen here, alike for all four; no paper has this experiment.

The variants `mamba2`, `gla` and `psm` take another model; `smoke` runs every part in seconds.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, lists, short_lists

# {model: its fields}, of some 100,000 to 150,000 parameters each.
MODELS = {
    "mamba": {"d_model": 64, "n_layers": 4, "d_state": 16},
    "mamba2": {"d_model": 64, "n_layers": 4, "d_state": 32, "head_features": 32},
    "gla": {"d_model": 64, "n_layers": 3, "d_state": 8, "d_mlp": 128},
    "psm": {"d_model": 64, "n_layers": 2, "chunk": 8, "l_max": 208},
}


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "smoke" or the name of another model."""
    name = "mamba" if variant in (None, "smoke") else variant
    if name not in MODELS:
        raise ValueError(f"variant is {variant!r}, expected 'smoke', none or one of {[*MODELS]}")
    config = complete(
        task=short_lists(),
        model={"name": name, "preset": "classifier", "dropout": 0.1, **MODELS[name]},
        optimizer={
            "learning_rate": 2e-3,
            "dynamics_rate": 2e-3,
            "step_size_rate": 2e-3,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
            "schedule": "cosine",
            "warmup_steps": 500,
        },
        training={
            "steps": 7500,  # 5 epochs
            "batch_size": 32,
            "seed": 0,
            "log_every": 100,
            "eval_every": 1500,
            "checkpoint_every": 1500,
            "eval_batch_size": 100,
        },
    )
    return apply_variant(
        config, "smoke" if variant == "smoke" else None,
        task=lists(),
        model={"d_model": 8, "n_layers": 1, "d_state": 4},
    )
