"""Mamba-FSCIL's projector on spoken digits that arrive session by session.

  python -m experiments.families mamba_fscil --source_dir=FOLDER_OF_DIGITS_NPZ

For `experiments.families`, not the main job: an S4D model learns the base digits and is frozen; its
features go through the projector. Sizes are chosen here; the published benchmark needs image sets
and a ResNet that are not here. `smoke` is small.
"""

from ml_collections import config_dict


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, or "smoke"."""
    config = config_dict.create(
        sessions={"base_classes": 6, "ways": 2, "shots": 5},
        backbone={
            "model": {"name": "s4d", "d_model": 32, "d_state": 16, "n_layers": 2},
            "steps": 300, "batch_size": 64, "seed": 0,
        },
        model={"name": "mamba_fscil", "preset": "digits"},
        training={
            "steps": 300, "batch_size": 32, "momentum": 0.9, "weight_decay": 5e-4,
            "base_rate": 0.1, "new_rate": 0.05, "old_rate": 0.01,
        },
        weights={
            "suppress": 100.0, "suppress_novel": 1.0, "separate": 1e-3, "separate_new": 1e-3,
        },
    )
    if variant == "smoke":
        config.backbone.update(steps=2, batch_size=8)
        config.backbone.model.update(d_model=8, d_state=2)
        config.model.update(d_hidden=8, d_model=10, d_state=4, rank=2)
        config.training.update(steps=2, batch_size=8)
    elif variant is not None:
        raise ValueError(f"variant is {variant!r}, expected 'smoke' or none")
    return config
