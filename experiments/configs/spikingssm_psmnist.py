"""SpikingSSM on permuted sequential MNIST: 784 pixels one by one, causal layers that can stream.

  python -m experiments.prepare --dataset=psmnist --data_dir=data
  python -m experiments.main --config=experiments/configs/spikingssm_psmnist.py --workdir=runs/sps

Expected test accuracy: 98.4 % (arXiv 2408.14909). Pixels come in the bit-reversal order of this
package; results in another order are not comparable.
Hardware: one data-centre GPU, some hours; an estimate, not measured.

The variant `program` is what the authors' program computes, without any norm; `smoke` runs every
part in seconds, on a synthetic stand-in.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, prepared, stand_in


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "program" or "smoke"."""
    if variant not in (None, "program", "smoke"):
        raise ValueError(f"variant is {variant!r}, expected 'program', 'smoke' or none")
    preset = "psmnist_program" if variant == "program" else "psmnist"
    config = complete(
        task=prepared("psmnist"),
        model={"name": "spikingssm", "preset": preset},
        optimizer={
            "learning_rate": 0.01,
            "dynamics_rate": 1e-3,
            "step_size_rate": 1e-3,
            "weight_decay": 0.01,
            "schedule": "cosine",
            "warmup_steps": 0,
            "decay_steps": 108_000,
        },
        training={
            "steps": 108_000,  # 100 epochs
            "batch_size": 50,
            "seed": 3407,
            "log_every": 100,
            "eval_every": 1080,
            "checkpoint_every": 1080,
            "eval_batch_size": 100,
        },
    )
    return apply_variant(
        config, "smoke" if variant == "smoke" else None,
        task=stand_in("psmnist", 32),
        model={"d_model": 8, "d_state": 4, "n_layers": 1},
    )
