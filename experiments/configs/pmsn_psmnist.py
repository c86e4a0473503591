"""PMSN on permuted sequential MNIST: 784 pixels one by one, in bit-reversal order.

  python -m experiments.prepare --dataset=psmnist --data_dir=data
  python -m experiments.main --config=experiments/configs/pmsn_psmnist.py --workdir=runs/pmsn

Expected test accuracy: 97.78 % in the authors' order of the pixels, as arXiv 2410.03530 quotes it.
Sizes and optimizer are chosen here: the published ones are not known to us.
Hardware: one data-centre GPU, about 2 hours; an estimate from memory traffic, not a measurement.

The variant `smoke` runs every part in seconds, on a synthetic stand-in.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, prepared, stand_in


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None or "smoke"."""
    config = complete(
        task=prepared("psmnist"),
        model={"name": "pmsn", "preset": "psmnist", "d_model": 256, "n_layers": 3},
        optimizer={
            "learning_rate": 1e-3,
            "dynamics_rate": 1e-3,
            "step_size_rate": 1e-3,
            "weight_decay": 0.01,
            "schedule": "cosine",
        },
        training={
            "steps": 84_300,  # 200 epochs
            "batch_size": 128,
            "seed": 0,
            "log_every": 100,
            "eval_every": 421,  # an epoch
            "checkpoint_every": 421,
            "eval_batch_size": 120,
        },
    )
    return apply_variant(
        config, variant,
        task=stand_in("psmnist", 32),
        model={"d_model": 8, "n_layers": 2, "dt_min": 0.05, "dt_max": 0.5},
    )
