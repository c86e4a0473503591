"""P-SpikeSSM on ListOps of reduced length, at most 500 tokens, with what a CPU core can afford.

  python -m experiments.main --config=experiments/configs/listops_cpu.py --workdir=runs/listops_cpu

The published rules with lengths of 100 to 500 in place of 500 to 2,000, so figures of the paper are
not comparable; the majority class has about 17 %. What was found here stands in
experiments/results/. The expressions are generated in seconds when the run starts.

Variants: `mixed` trains on lists of 5 to 500 tokens, four layers of 128 features, and is tested on
those of 100 to 500 alone; `long` does so up to 2,000 tokens, the published length, on a quarter of
the published lists. What models that read no order reach on the same lists is told by
`python -m experiments.listops_baselines`. `smoke` runs every part in seconds, on expressions of up
to 31 tokens.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, lists

EPOCH = 3000  # batches


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "mixed", "long" or "smoke"."""
    if variant in ("mixed", "long"):
        return _mixed(variant == "long")
    config = complete(
        task=lists(
            min_length=100, max_length=500, num_train=96_000, num_validation=2000, num_test=2000
        ),
        model={
            "name": "pspikessm",
            "preset": "paper",
            "d_model": 64,
            "d_state": 16,
            "n_layers": 2,
            "norm": "batch",
            "causal": False,
            "initializer": "lin",
            "dropout": 0.0,
            "dt_min": 2e-3,
            "dt_max": 0.2,
        },
        optimizer={
            "learning_rate": 6e-3,
            "dynamics_rate": 6e-3,
            "step_size_rate": 6e-3,
            "weight_decay": 0.05,
            "schedule": "cosine",
            "warmup_steps": 50,
        },
        training={
            "steps": 3 * EPOCH,
            "batch_size": 32,
            "seed": 0,
            "log_every": 100,
            "eval_every": 1000,
            "checkpoint_every": 1000,
            "eval_batch_size": 100,
        },
    )
    return apply_variant(
        config, variant, task=lists(),
        model={"d_model": 4, "d_state": 4, "n_layers": 1},
    )


def _mixed(long: bool) -> config_dict.ConfigDict:
    """Return the config of a deeper model that learns operators from short lists, too."""
    config = get_config()
    most, batch, lists_seen = (2000, 16, 24_000) if long else (500, 32, 96_000)
    config.task.update(
        min_length=500 if long else 100, max_length=most, num_train=lists_seen, train_min_length=4
    )
    config.model.update(d_model=128, n_layers=4, surrogate="triangular")
    epoch = lists_seen // batch
    config.training.update(
        steps=3 * epoch, batch_size=batch, eval_every=epoch // 3, checkpoint_every=epoch // 3
    )
    return config
