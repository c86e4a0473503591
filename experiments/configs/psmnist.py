"""P-SpikeSSM on permuted sequential MNIST: 784 pixels one by one, in bit-reversal order.

  python -m experiments.prepare --dataset=psmnist --data_dir=data
  python -m experiments.main --config=experiments/configs/psmnist.py --workdir=runs/psmnist

Expected test accuracy: 98.4 %, P-SpikeSSM's (arXiv 2406.02923). Results in another order of the
pixels are not comparable; the seeded random one of older programs is task.dataset=psmnist_random.
Hardware: one data-centre GPU, about 1 hour; an estimate from memory traffic, not a measurement. The
paper's 1.5 minutes for a pass over the training images would make 5 hours.

The variant `smoke` runs every part in seconds, on a synthetic stand-in. `sweep` is accuracy against
neurons, as in Fig. 3; the sizes are chosen here.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, prepared, stand_in


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None or "smoke"."""
    config = complete(
        task=prepared("psmnist"),
        model={
            "name": "pspikessm",
            "preset": "official",
            "d_model": 400,
            "d_state": 64,
            "n_layers": 2,
            "norm": "batch",
            "prenorm": True,
            "bidirectional": False,
            "causal": False,
            "residual": False,
            "shared_dynamics": True,
            "dropout": 0.1,
            "dt_min": 1e-3,
            "dt_max": 0.1,
            "l_max": 784,
        },
        optimizer={
            "learning_rate": 5e-4,
            "dynamics_rate": 1e-3,
            "step_size_rate": 5e-4,
            "weight_decay": 0.01,
            "schedule": "plateau",
            "plateau_factor": 0.2,
            "plateau_patience": 21,  # the program's scheduler waits one epoch more than its 20
        },
        training={
            "steps": 168_600,  # 200 epochs
            "batch_size": 64,
            "seed": 64,
            "log_every": 281,
            "eval_every": 843,  # an epoch: the plateau is counted in epochs
            "checkpoint_every": 843,
            "eval_batch_size": 120,
        },
    )
    return apply_variant(
        config, variant,
        task=stand_in("psmnist", 32),
        model={"d_model": 4, "d_state": 4, "n_layers": 1, "l_max": 32},
    )


def sweep(add) -> None:
    """Call `add` with the fields of each run: Fig. 3, accuracy against neurons."""
    for d_model in (25, 50, 100, 200, 400):
        add(**{"model.d_model": d_model})
