"""SeqBoat on ListOps of reduced length, at most 200 tokens; how much attention does it need?

  python -m experiments.main --config=experiments/configs/seqboat_listops.py --workdir=runs/seqboat

The published rules with lengths of 50 to 200 in place of 500 to 2,000, so the paper's figures are
not comparable; the majority class has about 17 %. The variants `always` and `never` are the
controls: every step attends, or none does. `smoke` runs every part in seconds.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, lists, short_lists


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "always", "never" or "smoke"."""
    config = complete(
        task=short_lists(),
        model={
            "name": "seqboat",
            "preset": "listops",
            "d_model": 64,
            "d_qk": 32,
            "n_layers": 3,
            "d_state": 8,
            "window": 32,
            "max_positions": 256,
        },
        optimizer={
            "learning_rate": 4e-3,
            "dynamics_rate": 4e-3,
            "step_size_rate": 4e-3,
            "weight_decay": 1e-3,
            "b2": 0.98,
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
    if variant in ("always", "never"):
        config.model.attend = variant
        return config
    return apply_variant(
        config,
        variant,
        task=lists(),
        model={"d_model": 8, "d_qk": 4, "n_layers": 1, "window": 4, "max_positions": 16},
    )
