"""What the configs of the papers' experiments share: the keys that are the same in all of them.

P-SpikeSSM's settings are those of the released program, experiment/lra/pSpikeSSM-*.yaml of
github.com/NeuroCompLab-psu/PSpikeSSMs at 8f7a954; those of the reset-based neurons are of
github.com/Maxtimer97/SSM-inspired-LIF at bca1fbe.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from pspike_jax import describe_model
from pspike_jax.models.silif import NEURONS

Section = Mapping[str, Any]
DELAYS = 25  # steps: 100 ms of SHD and SSC


def prepared(dataset: str) -> dict[str, Any]:
    """Return the task of a set that `python -m experiments.prepare` has made in ./data."""
    return {
        "name": "prepared", "dataset": dataset, "data_dir": "data", "validation": "held_out",
        "verify": True,
    }


def complete(
    *, task: Section, model: Section, optimizer: Section, training: Section
) -> config_dict.ConfigDict:
    """Return a config with every key set; what is given goes before what is shared."""
    # How a model is computed, not which one it is; reset-based neurons have one way.
    computed = {"engine": "auto", "precision": "float32"}
    known = {field.name for field in describe_model(model["name"]).fields}
    known = set() if model["name"] in NEURONS else known
    computed = {name: value for name, value in computed.items() if name in known}
    return config_dict.create(
        task=dict(task),
        model={**computed, **model},
        optimizer={
            "readout_rate": config_dict.placeholder(float),
            "b1": 0.9,
            "b2": 0.999,
            "clip_norm": config_dict.placeholder(float),
            "warmup_steps": 0,
            "decay_steps": config_dict.placeholder(int),
            "plateau_factor": 0.2,
            "plateau_patience": 21,
            **optimizer,
        },
        training={
            "keep": 2,
            "keep_best": 1,
            "validation_draws": 1,
            "firing_rate_weight": 0.0,
            "firing_rate_target": 0.0,
            **training,
        },
        mesh={"data": config_dict.placeholder(int), "fsdp": 1, "model": 1, "sequence": 1},
        evaluation={"draws": 8, "seed": 0},
    )


def neuron_config(
    dataset: str, variant: str | None, published: Mapping[str, Section], *, training: Section
) -> config_dict.ConfigDict:
    """Return the config of a network of reset-based neurons: two layers of 512, Adam, plateau.

    Args:
      dataset: name of the prepared set, or of its stand-in for the variant "smoke".
      variant: name of the model, None or "smoke" for "silif"; one that `published` lacks takes
        the settings of "silif". "NAME_delays" trains delays of up to `DELAYS` steps, too, a choice
        of ours.
      published: {model: {"learning_rate", "dropout", "patience", "factor"}}.
      training: the training section.

    Raises:
      ValueError: an unknown variant.
    """
    smoke = variant == "smoke"
    name = "silif" if variant in (None, "smoke") else variant.removesuffix("_delays")
    if name not in NEURONS:
        raise ValueError(
            f"variant is {variant!r}, expected 'smoke', none or one of {[*NEURONS]}, and with "
            "'_delays'"
        )
    settings = published[name if name in published else "silif"]
    rate = settings["learning_rate"]
    model = {
        "name": name, "preset": "paper", "widths": (512, 512), "dropout": settings["dropout"],
    }
    if variant == f"{name}_delays":
        model["delays"] = DELAYS
    optimizer = {
        "learning_rate": rate,
        "dynamics_rate": rate,
        "step_size_rate": rate,
        "weight_decay": 0.0,
        "schedule": "plateau",
        "plateau_factor": settings["factor"],
        # Their scheduler waits for one epoch more than its patience.
        "plateau_patience": settings["patience"] + 1,
    }
    config = complete(
        task=prepared(dataset), model=model, optimizer=optimizer, training=training
    )
    return apply_variant(
        config, "smoke" if smoke else None,
        task=stand_in(dataset, 32),
        # At threshold 1 neurons that have hardly learnt do not fire, and no spike would be tried.
        model={"widths": (16, 16), "threshold": 0.2},
    )


def apply_variant(
    config: config_dict.ConfigDict, variant: str | None, *, task: Section, model: Section
) -> config_dict.ConfigDict:
    """Leave a config as it is, or for "smoke" make it so small that it runs in seconds.

    Args:
      config: as published.
      variant: None or "smoke".
      task: of the smoke variant, generated or a stand-in.
      model: fields of the smoke variant's model.
    """
    if variant is None:
        return config
    if variant != "smoke":
        raise ValueError(f"variant is {variant!r}, expected 'smoke' or none")
    config.task = config_dict.create(**task)
    config.model.update(model)
    config.optimizer.update(warmup_steps=1, decay_steps=4)
    config.training.update(
        steps=4, batch_size=8, eval_batch_size=8, log_every=2, eval_every=4, checkpoint_every=4
    )
    config.evaluation.draws = 2
    return config


def lists(**fields) -> dict[str, Any]:
    """Return the task of ListOps' rules, generated when the run starts; without fields, tiny."""
    tiny = {
        "min_length": 5, "max_length": 32, "num_train": 32, "num_validation": 8, "num_test": 8,
    }
    return {"name": "listops", "seed": 0, **tiny, **fields}


def short_lists() -> dict[str, Any]:
    """Return the task of lists of 50 to 200 tokens in place of 500 to 2,000."""
    return lists(
        min_length=50, max_length=200, num_train=48_000, num_validation=2000, num_test=2000
    )


def stand_in(dataset: str, length: int) -> dict[str, Any]:
    """Return the task of a small synthetic set with the shapes of a real one."""
    return {
        "name": "stand_in", "dataset": dataset, "length": length, "num_train": 32, "seed": 0
    }
