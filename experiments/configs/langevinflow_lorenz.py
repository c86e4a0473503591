"""LangevinFlow on spikes of neurons that the Lorenz system drives.

  python -m experiments.main --config=experiments/configs/langevinflow_lorenz.py --workdir=runs/lf

65 conditions of 20 trials, 29 neurons, 50 bins. The variant `control` hides positions, velocities
from the decoder, `spiking` has SiLIF neurons for an encoder; `smoke` is small. No training script
for such data was published: the sizes are this project's. Gradients are not clipped by their norm,
which the potential, starting at 0, would take over.
"""

from ml_collections import config_dict

from experiments.configs.published import complete


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "control", "spiking" or "smoke"."""
    config = complete(
        task={"name": "lorenz_spikes", "seed": 0, "conditions": 65, "bins": 50, "neurons": 29},
        model={
            "name": "langevinflow",
            "preset": "lorenz",
            "latents": "langevin",
            "encoder": "gru",
            "threshold": 1.0,
            "kl_ramp": 1200,  # 80 epochs of 15 batches
        },
        optimizer={
            "learning_rate": 3e-3,
            "dynamics_rate": 3e-3,
            "step_size_rate": 3e-3,
            "weight_decay": 2e-5,
            "schedule": "cosine",
        },
        training={
            "steps": 1200,
            "batch_size": 64,
            "seed": 0,
            "log_every": 15,
            "eval_every": 120,
            "checkpoint_every": 120,
            "eval_batch_size": 130,
        },
    )
    if variant == "control":
        config.model.latents = "none"
    elif variant == "spiking":
        config.model.update(encoder="silif", threshold=0.3)
    if variant == "smoke":
        config.task.update(conditions=8, bins=10, neurons=6)
        config.model.update(d_model=8)
        config.training.update(steps=4, log_every=2, eval_every=4, checkpoint_every=4)
        config.evaluation.draws = 2
    elif variant not in ("control", "spiking", None):
        raise ValueError(f"variant is {variant!r}, expected 'control', 'spiking', 'smoke' or none")
    return config
