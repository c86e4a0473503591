"""P-SpikeSSM on Pathfinder (Long Range Arena): are two discs joined by a dashed curve? 32 x 32.

  python -m experiments.prepare --dataset=pathfinder32 --data_dir=data
  python -m experiments.main --config=experiments/configs/pathfinder.py --workdir=runs/pathfinder

Expected test accuracy: 83.41 %, P-SpikeSSM's in arXiv 2406.02923v1 as quoted by arXiv 2408.14909
and 2410.03530, on the published images. The command above generates others, "pathfinder-style";
with --source_dir=DIR it reads the published ones.
Hardware: one data-centre GPU, about 18 hours; an estimate from memory traffic, not a measurement.

The variant `smoke` runs every part in seconds, on 48 generated images.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, prepared


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None or "smoke"."""
    config = complete(
        task=prepared("pathfinder32"),
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
            "dropout": 0.1,
            "dt_min": 1e-3,
            "dt_max": 0.1,
            "l_max": 1024,
        },
        optimizer={
            "learning_rate": 2e-4,
            "dynamics_rate": 1e-3,
            "step_size_rate": 1e-3,
            "readout_rate": 1e-3,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "warmup_steps": 50_000,
            "decay_steps": 500_000,
        },
        training={
            # The program trains for 500 epochs, 800,000 steps, though its cosine ends at 500,000;
            # from there the rate rises again. Here the run ends where the cosine does;
            # steps=800_000 is the program's run.
            "steps": 500_000,
            "batch_size": 100,
            "seed": 100,
            "log_every": 100,
            "eval_every": 1600,  # an epoch
            "checkpoint_every": 1600,
            "eval_batch_size": 100,
        },
    )
    images = {"size": 32, "num_train": 32, "num_validation": 8, "num_test": 8}
    return apply_variant(
        config, variant,
        task={"name": "pathfinder", **images, "seed": 0, "processes": 1},
        model={"d_model": 4, "d_state": 4, "n_layers": 1},
    )
