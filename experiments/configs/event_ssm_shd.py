"""Event-SSM on the events of the Spiking Heidelberg Digits, without bins: 20 words.

  python -m experiments.main --config=experiments/configs/event_ssm_shd.py \\
      --workdir=runs/event_ssm_shd

Put shd_train.h5 and shd_test.h5 of https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/
into data/raw/shd, unpacked. A step is an event: its channel, one of 700, and the milliseconds since
the event before. A tenth of the training examples selects the model.

Expected test accuracy: 95.5 to 96.3 % by tables of others (arXiv 2404.18508 and later papers), with
augmentation, which is not here. Sizes are the authors'; rates, epochs and dropout are not known to
us, and those below are this zoo's. Hardware: one data-centre GPU; an estimate, not a measurement.

The variant `smoke` runs every part in seconds, on a synthetic stand-in.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, stand_in


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None or "smoke"."""
    config = complete(
        task={
            "name": "events",
            "path": "data/raw/shd/shd_train.h5",
            "test_path": "data/raw/shd/shd_test.h5",
            "unit": "s",
            "bin_width": None,
            "duration": None,
            "num_channels": 700,
            "dt_unit": "ms",
            "validation": 0.1,
            "seed": 0,
        },
        model={"name": "event_ssm", "preset": "shd"},
        optimizer={
            "learning_rate": 2e-3,
            "dynamics_rate": 5e-4,
            "step_size_rate": 5e-4,
            "weight_decay": 0.05,
            "schedule": "cosine",
            "warmup_steps": 114,
        },
        training={
            "steps": 6840,  # 30 epochs
            "batch_size": 32,
            "seed": 0,
            "log_every": 19,
            "eval_every": 228,  # an epoch
            "checkpoint_every": 228,
            "eval_batch_size": 32,
        },
    )
    return apply_variant(
        config, variant,
        task=stand_in("shd_events", 32),
        model={
            "d_model": 8, "d_state": 8, "block_size": 4, "n_stages": 1, "stage_layers": 1,
            "stride": 2,
        },
    )
