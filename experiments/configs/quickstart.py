"""P-SpikeSSM on handwritten digits, 8 x 8 pixels read one by one in a fixed permutation.

  python -m experiments.main --config=experiments/configs/quickstart.py --workdir=runs/quickstart

The variant `causal` has one branch that looks back, and half as many neurons: it can be streamed,
and it is the pretrained model `pspikessm_digits`. `smoke` is small: every part runs, nothing is
learnt.
"""

from ml_collections import config_dict


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "causal" or "smoke"."""
    config = config_dict.create(
        task={"name": "digits", "seed": 0},
        model={
            "name": "pspikessm",
            "preset": "paper",
            "d_model": 128,
            "d_state": 16,
            "n_layers": 2,
            "bidirectional": True,
            "causal": False,
            # Layer norm over features that one pixel drives all alike takes its brightness away:
            # 81 % after 16 epochs, where batch norm had 91 %.
            "norm": "batch",
            "dropout": 0.1,
            # Time constants of 2 to 50 steps, for sequences of 64.
            "dt_min": 0.02,
            "dt_max": 0.5,
            # As fast here as what "auto" takes, and the engine of the committed record.
            "engine": "chunked",
            "precision": "float32",
        },
        optimizer={
            "learning_rate": 6e-3,
            "dynamics_rate": 6e-3,
            "step_size_rate": 6e-3,
            "readout_rate": config_dict.placeholder(float),
            "threshold_rate": config_dict.placeholder(float),
            "weight_decay": 0.05,
            "b1": 0.9,
            "b2": 0.999,
            "clip_norm": config_dict.placeholder(float),
            "schedule": "cosine",
            "warmup_steps": 156,
            "decay_steps": config_dict.placeholder(int),
            "plateau_factor": 0.2,
            "plateau_patience": 20,
        },
        training={
            "steps": 1716,  # 44 epochs of 39 batches
            "batch_size": 32,
            "seed": 0,
            "accumulate": 1,
            "early_stopping": config_dict.placeholder(int),
            "log_every": 13,
            "eval_every": 429,
            "checkpoint_every": 143,
            "keep": 2,
            "keep_best": 1,
            "eval_batch_size": 120,
            "validation_draws": 4,
            "statistics_batches": 10,
            "firing_rate_weight": 0.0,
            "firing_rate_target": 0.0,
        },
        mesh={"data": config_dict.placeholder(int), "fsdp": 1, "model": 1, "sequence": 1},
        evaluation={"draws": 8, "seed": 0},
    )
    if variant == "causal":
        config.model.update(d_model=64, bidirectional=False, causal=True)
    elif variant == "smoke":
        config.model.update(d_model=16, d_state=4)
        config.optimizer.warmup_steps = 2
        config.training.update(steps=8, log_every=2, eval_every=4, checkpoint_every=4)
        config.evaluation.draws = 2
    elif variant is not None:
        raise ValueError(f"variant is {variant!r}, expected 'causal', 'smoke' or none")
    return config
