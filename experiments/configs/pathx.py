"""P-SpikeSSM on Path-X (Long Range Arena): Pathfinder at 128 x 128, sequences of 16,384 pixels.

  python -m experiments.prepare --dataset=pathfinder128 --data_dir=data
  python -m experiments.main --config=experiments/configs/pathx.py --workdir=runs/pathx

Expected test accuracy: P-SpikeSSM reports none on this task. Another spiking model, SpikingSSM, has
94.82 % (arXiv 2408.14909); sizes and rates here are of its configuration for Path-X, the order of
operations is P-SpikeSSM's. The command above generates images, "pathfinder-style"; with
--source_dir=DIR it reads the published ones. Pathfinder at 64 x 64 is task.dataset=pathfinder64.
Hardware: one data-centre GPU of 80 GB, about 60 hours; an estimate from memory traffic, not a
measurement.

The variant `smoke` runs every part in seconds, on 12 generated images of 128 x 128.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, prepared


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None or "smoke"."""
    config = complete(
        task=prepared("pathfinder128"),
        model={
            "name": "pspikessm",
            "preset": "official",
            "d_model": 256,
            "d_state": 64,
            "n_layers": 6,
            "norm": "batch",
            "prenorm": True,
            "bidirectional": True,
            "causal": False,
            "residual": True,
            "shared_dynamics": False,
            "dropout": 0.0,
            "dt_min": 1e-4,
            "dt_max": 0.1,
            "l_max": 16_384,
        },
        optimizer={
            "learning_rate": 1e-3,
            "dynamics_rate": 1e-3,
            "step_size_rate": 1e-3,
            "weight_decay": 0.01,
            "schedule": "cosine",
            "warmup_steps": 50_000,  # a tenth of the run: chosen here
        },
        training={
            "steps": 500_000,  # 50 epochs
            "batch_size": 16,
            "seed": 0,
            "log_every": 100,
            "eval_every": 10_000,  # an epoch
            "checkpoint_every": 2000,
            "eval_batch_size": 16,
        },
    )
    images = {"size": 128, "num_train": 8, "num_validation": 2, "num_test": 2}
    config = apply_variant(
        config, variant,
        task={"name": "pathfinder", **images, "seed": 0, "processes": 1},
        model={"d_model": 4, "d_state": 4, "n_layers": 1},
    )
    if variant == "smoke":
        config.training.update(batch_size=2, eval_batch_size=2)
    return config
