"""Binary S4D on ListOps (Long Range Arena), with a GLU or with the gated spiking unit.

  python -m experiments.prepare --dataset=listops --data_dir=data
  python -m experiments.main --config=experiments/configs/binary_s4d_listops.py --workdir=runs/b
  python -m experiments.main --config=experiments/configs/binary_s4d_listops.py:gsu --workdir=runs/g

Expected test accuracy: 54.80 %, with the gated unit 59.60 % (arXiv 2401.00955, as later papers
quote it). Sizes and optimizer are S4D's: the published ones are not known to us.
Hardware: one data-centre GPU, about 1 hour; an estimate from memory traffic, not a measurement.

The variants `smoke` and `gsu_smoke` run every part in seconds, on expressions of up to 31 tokens.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, lists, prepared


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "gsu", "smoke" or "gsu_smoke"."""
    gated = variant in ("gsu", "gsu_smoke")
    config = complete(
        task=prepared("listops"),
        model={"name": "gsu_s4d" if gated else "binary_s4d", "preset": "listops"},
        optimizer={
            "learning_rate": 1e-2,
            "dynamics_rate": 1e-3,
            "step_size_rate": 1e-3,
            "weight_decay": 0.05,
            "schedule": "cosine",
            "warmup_steps": 1000,
        },
        training={
            "steps": 76_800,  # 40 epochs
            "batch_size": 50,
            "seed": 0,
            "log_every": 100,
            "eval_every": 1920,  # an epoch
            "checkpoint_every": 960,
            "eval_batch_size": 50,
        },
    )
    small = {None: None, "gsu": None, "gsu_smoke": "smoke"}.get(variant, variant)
    return apply_variant(
        config, small,
        task=lists(),
        model={"d_model": 8, "d_state": 4, "n_layers": 1},
    )
