"""f-SNN on handwritten digits, 8 x 8 pixels read one by one in a fixed permutation.

  python -m experiments.main --config=experiments/configs/fsnn_digits.py --workdir=runs/fsnn

No figure is published for this task; the quickstart's is P-SpikeSSM's. The variant `euler` is the
control: order 1, fixed, is the leaky neuron that remembers exponentially. `smoke` runs every part
in seconds.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "euler" or "smoke"."""
    config = complete(
        task={"name": "digits", "seed": 0},
        model={"name": "fsnn", "preset": "default", "widths": (128, 128), "tau": 4.0},
        optimizer={
            "learning_rate": 6e-3,
            "dynamics_rate": 6e-3,
            "step_size_rate": 6e-3,
            "weight_decay": 0.01,
            "schedule": "cosine",
            "warmup_steps": 156,
        },
        training={
            "steps": 1716,  # 44 epochs of 39 batches
            "batch_size": 32,
            "seed": 0,
            "log_every": 13,
            "eval_every": 429,
            "checkpoint_every": 429,
            "eval_batch_size": 120,
        },
    )
    if variant == "euler":
        config.model.update(orders=(1.0,), train_order=False)
        return config
    return apply_variant(
        config, variant, task={"name": "digits", "seed": 0}, model={"widths": (8, 8)}
    )
