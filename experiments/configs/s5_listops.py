"""S5 on ListOps (Long Range Arena): the value of nested lists of up to 2,000 tokens.

  python -m experiments.prepare --dataset=listops --data_dir=data
  python -m experiments.main --config=experiments/configs/s5_listops.py --workdir=runs/s5_listops

Settings of the authors' run script, bin/run_experiments/run_lra_listops.sh of
github.com/lindermanlab/S5 at d133f4d. There B has the rate and the decay of dense maps; here it is
of the dynamics, with their rate and without decay. The data are generated here by the published
rules. What it reaches is not confirmed here: it was not run.

The variant `smoke` runs every part in seconds, on expressions of up to 31 tokens.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, lists, prepared

EPOCH = 1920  # batches of 50


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None or "smoke"."""
    config = complete(
        task=prepared("listops"),
        model={"name": "s5", "preset": "listops", "readout": "lecun_normal", "dropout": 0.0},
        optimizer={
            "learning_rate": 3e-3,
            "dynamics_rate": 1e-3,
            "step_size_rate": 1e-3,
            "weight_decay": 0.04,
            "schedule": "cosine",
            "warmup_steps": EPOCH,
        },
        training={
            "steps": 40 * EPOCH,
            "batch_size": 50,
            "seed": 6554595,
            "log_every": 100,
            "eval_every": EPOCH,
            "checkpoint_every": EPOCH // 2,
            "eval_batch_size": 50,
        },
    )
    return apply_variant(
        config, variant, task=lists(),
        model={"d_model": 8, "n_layers": 1, "d_state": 4, "blocks": 2},
    )
