"""SpikingSSM on ListOps (Long Range Arena), and the two families that share its blocks.

  python -m experiments.prepare --dataset=listops --data_dir=data
  python -m experiments.main --config=experiments/configs/spikingssm_listops.py --workdir=runs/ssm

Expected test accuracy: 60.23 % with trained thresholds, 59.93 % without (arXiv 2408.14909); of
LongSpike and of SPikE-SSM on this task no figure is known to us. The data are generated here by the
published rules.
Hardware: one data-centre GPU, some hours; an estimate, not measured.

The variants `longspike` and `spike_ssm` are those families at the same size; `program` is what the
authors' program computes, without any norm; `smoke` runs every part in seconds.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, lists, prepared

MODELS = {
    None: ("spikingssm", "listops"),
    "smoke": ("spikingssm", "listops"),
    "program": ("spikingssm", "listops_program"),
    "longspike": ("longspike", "listops"),
    "spike_ssm": ("spike_ssm", "listops"),
}


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "program", "longspike", "spike_ssm" or "smoke"."""
    if variant not in MODELS:
        names = ", ".join(repr(name) for name in MODELS if name)
        raise ValueError(f"variant is {variant!r}, expected {names} or none")
    name, preset = MODELS[variant]
    config = complete(
        task=prepared("listops"),
        model={"name": name, "preset": preset},
        optimizer={
            "learning_rate": 0.01,
            # Poles, step sizes, B and, where B is trained, C.
            "dynamics_rate": 1e-3,
            "step_size_rate": 1e-3,
            "readout_rate": 1e-3,
            "weight_decay": 0.01,
            "schedule": "cosine",
            "warmup_steps": 0,
            "decay_steps": 120_000,
        },
        training={
            "steps": 120_000,  # 40 epochs
            "batch_size": 32,
            "seed": 3407,
            "log_every": 100,
            "eval_every": 3000,
            "checkpoint_every": 1000,
            "eval_batch_size": 64,
        },
    )
    return apply_variant(
        config, "smoke" if variant == "smoke" else None,
        task=lists(),
        model={"d_model": 4, "n_layers": 1},
    )
