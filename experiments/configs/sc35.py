"""P-SpikeSSM on Speech Commands, 35 words, raw sound: 16,000 steps.

  python -m experiments.prepare --dataset=sc35 --data_dir=data
  python -m experiments.main --config=experiments/configs/sc35.py --workdir=runs/sc35

Expected test accuracy: P-SpikeSSM reports none on 35 words, and no settings for sound were
released. Sizes and rates here are of SpikingSSM's configuration for this task (the program of arXiv
2408.14909, which reports no figure either); the order of operations is P-SpikeSSM's.
Hardware: one data-centre GPU, about 9 hours; an estimate from memory traffic, not a measurement.

The variant `smoke` runs every part in seconds, on a synthetic stand-in.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, prepared, stand_in


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None or "smoke"."""
    config = complete(
        # The programs standardize each time step over the training clips. That set is one
        # prepared with --set=standardize=per_step --name=sc35_per_step; then dataset names it.
        task=prepared("sc35"),
        model={
            "name": "pspikessm",
            "preset": "official",
            "d_model": 128,
            "d_state": 16,
            "n_layers": 6,
            "norm": "batch",
            "prenorm": True,
            "bidirectional": True,
            "causal": False,
            "residual": True,
            "shared_dynamics": True,
            "dropout": 0.0,
            "dt_min": 1e-3,
            "dt_max": 0.1,
            "l_max": 16_000,
        },
        optimizer={
            "learning_rate": 1e-2,
            "dynamics_rate": 1e-3,
            "step_size_rate": 1e-3,
            "weight_decay": 0.01,
            "schedule": "cosine",
            "warmup_steps": 21_200,  # a tenth of the run: chosen here
        },
        training={
            "steps": 212_000,  # 40 epochs
            "batch_size": 16,
            "seed": 0,
            "log_every": 100,
            "eval_every": 5300,  # an epoch has 5,302 steps
            "checkpoint_every": 1000,
            "eval_batch_size": 16,
        },
    )
    return apply_variant(
        config, variant,
        task=stand_in("sc35", 32),
        model={"d_model": 4, "d_state": 4, "n_layers": 1, "l_max": 32},
    )
