"""S5-RF on the Spiking Heidelberg Digits: 250 steps of 140 channels, 20 words.

  python -m experiments.prepare --dataset=shd --data_dir=data
  python -m experiments.main --config=experiments/configs/s5rf_shd.py --workdir=runs/s5rf_shd

Expected test accuracy: none known to us on SHD; 78.8 % on SSC (arXiv 2504.00719). Two layers of 128
and 20 epochs are the authors' settings, as are the rates; their augmentation of SSC is not used.
Hardware: one data-centre GPU, minutes; an estimate from memory traffic, not a measurement.

The variant `smoke` runs every part in seconds, on a synthetic stand-in.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, prepared, stand_in


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None or "smoke"."""
    config = complete(
        task=prepared("shd"),
        model={"name": "s5rf", "preset": "shd"},
        optimizer={
            "learning_rate": 4e-3,
            "dynamics_rate": 2e-3,
            "step_size_rate": 2e-3,
            "weight_decay": 1e-4,
            "schedule": "cosine",
        },
        training={
            "steps": 1140,  # 20 epochs
            "batch_size": 128,
            "seed": 0,
            "log_every": 19,
            "eval_every": 57,  # an epoch
            "checkpoint_every": 57,
            "eval_batch_size": 128,
        },
    )
    return apply_variant(
        config, variant,
        task=stand_in("shd", 32),
        model={"widths": (8, 8), "blocks": 2, "dt_min": 0.3, "dt_max": 1.0},
    )
