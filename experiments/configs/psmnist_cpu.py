"""P-SpikeSSM on permuted sequential MNIST with what two CPU cores can afford: small and causal.

  python -m experiments.prepare --dataset=psmnist --data_dir=data
  python -m experiments.main --config=experiments/configs/psmnist_cpu.py --workdir=runs/psmnist_cpu

The paper's task and order of pixels with 64 neurons in place of 400; the paper's 98.4 % (arXiv
2406.02923) is of the larger model. What was found here stands in experiments/results/.

Variants: `short` learns for 2 epochs, `search` for 400 steps (see experiments/sweep.py); `smoke`
runs every part in seconds on a synthetic stand-in. `sweep` is accuracy against neurons, as in
Fig. 3, at the equal budget of `short`; `search` holds what short runs chose between.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete, prepared, stand_in

EPOCH = 843  # batches
RATES = ("optimizer.learning_rate", "optimizer.dynamics_rate", "optimizer.step_size_rate")
LENGTHS = {None: 14 * EPOCH, "short": 2 * EPOCH, "search": 400}


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "short", "search" or "smoke"."""
    steps = LENGTHS.get(variant, LENGTHS[None])
    config = complete(
        task=prepared("psmnist"),
        model={
            "name": "pspikessm",
            "preset": "paper",
            "d_model": 64,
            "d_state": 32,
            "n_layers": 2,
            "norm": "batch",
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
            "steps": steps,
            "batch_size": 64,
            "seed": 0,
            "log_every": 50 if variant == "search" else 281,
            "eval_every": 400 if variant == "search" else EPOCH,
            "checkpoint_every": 400 if variant == "search" else EPOCH,
            "eval_batch_size": 120,
        },
    )
    return apply_variant(
        config, None if variant in LENGTHS else variant,
        task=stand_in("psmnist", 32),
        model={"d_model": 4, "d_state": 4, "n_layers": 1},
    )


def sweep(add) -> None:
    """Call `add` with the fields of each run: Fig. 3, accuracy against neurons."""
    for d_model in (16, 32, 64):
        add(**{"model.d_model": d_model})


def search(add) -> None:
    """Call `add` with what each short run changes."""
    add()
    add(**{"model.initializer": "legs"})
    add(**{"model.norm": "layer"})
    add(**{"model.dt_min": 1e-3, "model.dt_max": 0.1})
    add(**{"model.dt_min": 5e-3, "model.dt_max": 0.5})
    add(**dict.fromkeys(RATES, 3e-3))
    add(**dict.fromkeys(RATES, 1.2e-2))
