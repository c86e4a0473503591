"""PRF on ListOps (Long Range Arena): the value of nested lists of up to 2,000 tokens.

  python -m experiments.prepare --dataset=listops --data_dir=data
  python -m experiments.main --config=experiments/configs/prf_listops.py --workdir=runs/prf_listops

Expected test accuracy: 59.20 % (arXiv 2410.03530), selected on the test split there; not confirmed
here. The data are generated here by the published rules.
Hardware: one data-centre GPU, about 1 hour; an estimate from memory traffic, not a measurement.

The variant `smoke` runs every part in seconds, on expressions of up to 31 tokens.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, lists, prepared


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None or "smoke"."""
    config = complete(
        task=prepared("listops"),
        model={"name": "prf", "preset": "listops", "d_model": 128, "n_layers": 8},
        optimizer={
            "learning_rate": 5e-3,
            "dynamics_rate": 1e-3,
            "step_size_rate": 1e-3,
            "weight_decay": 0.05,
            "schedule": "cosine",
        },
        training={
            "steps": 80_000,
            "batch_size": 50,
            "seed": 2222,
            "log_every": 100,
            "eval_every": 1920,  # an epoch
            "checkpoint_every": 960,
            "eval_batch_size": 50,
        },
    )
    return apply_variant(
        config, variant,
        task=lists(),
        model={"d_model": 8, "n_layers": 1, "fr_scale": 1.0, "dt_min": 0.2, "dt_max": 1.0},
    )
