"""P-SpikeSSM on Image (Long Range Arena): CIFAR-10 in gray, 1,024 pixels one by one.

  python -m experiments.prepare --dataset=image --data_dir=data
  python -m experiments.main --config=experiments/configs/image.py --workdir=runs/image

Expected test accuracy: 80.10 %, P-SpikeSSM's in arXiv 2406.02923v1 as quoted by arXiv 2408.14909
and 2410.03530. Sequential CIFAR in color is task.dataset=image_color; no figure is known here.
Hardware: one data-centre GPU, about 6 hours; an estimate from memory traffic, not a measurement.

The variant `smoke` runs every part in seconds, on a synthetic stand-in.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, prepared, stand_in


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None or "smoke"."""
    config = complete(
        task=prepared("image"),
        model={
            "name": "pspikessm",
            "preset": "official",
            "d_model": 512,
            "d_state": 64,
            "n_layers": 6,
            "norm": "layer",
            "prenorm": False,
            "bidirectional": True,
            "causal": False,
            "residual": True,
            "shared_dynamics": True,
            "dropout": 0.1,
            "dt_min": 1e-3,
            "dt_max": 0.1,
            "l_max": 1024,
        },
        optimizer={
            "learning_rate": 5e-3,
            "dynamics_rate": 1e-3,
            "step_size_rate": 1e-3,
            "readout_rate": 1e-3,
            "weight_decay": 0.01,
            "schedule": "cosine",
            "warmup_steps": 18_000,
            "decay_steps": 180_000,
        },
        training={
            "steps": 180_000,  # 200 epochs, where the cosine ends, too
            "batch_size": 50,
            "seed": 2222,
            "log_every": 100,
            "eval_every": 900,  # an epoch
            "checkpoint_every": 900,
            "eval_batch_size": 50,
        },
    )
    return apply_variant(
        config, variant,
        task=stand_in("image", 32),
        model={"d_model": 4, "d_state": 4, "n_layers": 1, "l_max": 32},
    )
