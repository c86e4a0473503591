"""Oscillators on long series of the UEA archive: six sets, with the settings of LinOSS.

  python -m experiments.main --config=experiments/configs/uea.py:heartbeat --workdir=runs/heartbeat

The user's files, for example Heartbeat_TRAIN.ts and Heartbeat_TEST.ts, lie in data/raw/uea. A variant
names a set: eigenworms (the default), ethanol_concentration, heartbeat, motor_imagery,
self_regulation_scp1, self_regulation_scp2. `smoke` runs every part in seconds, on generated
oscillations. With --config.model.name=dlinoss --config.model.preset=dlinoss and its fields the same
runs with damping; the D-LinOSS paper's own choice for each set is not published.

Stored results of the authors, test accuracy over five seeds (mean, population deviation): EigenWorms
.950 (.044), EthanolConcentration .299 (.006), Heartbeat .758 (.037), MotorImagery .600 (.075),
SelfRegulationSCP1 .878 (.026), SelfRegulationSCP2 .590 (.081). None is repeated here: the files are
not. Their rows are drawn by another generator, so that single seeds do not compare.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete

# {variant: (name in the archive, learning rate, time channel, batch size)}, from the authors'
# configuration files at 83e6318; sizes are in the model's preset of the same name.
SETS = {
    "eigenworms": ("EigenWorms", 1e-3, True, 4),
    "ethanol_concentration": ("EthanolConcentration", 1e-5, False, 32),
    "heartbeat": ("Heartbeat", 1e-3, True, 32),
    "motor_imagery": ("MotorImagery", 1e-5, False, 32),
    "self_regulation_scp1": ("SelfRegulationSCP1", 1e-4, True, 32),
    "self_regulation_scp2": ("SelfRegulationSCP2", 1e-5, True, 32),
}


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "smoke" or the name of a set."""
    smoke, name = variant == "smoke", "eigenworms" if variant in (None, "smoke") else variant
    if name not in SETS:
        raise ValueError(f"variant is {variant!r}, expected 'smoke', none or one of {[*SETS]}")
    dataset, rate, time_channel, batch_size = SETS[name]
    task = {
        "name": "uea",
        "dataset": dataset,
        "source_dir": "data/raw/uea",
        "split": "random",
        "time_channel": time_channel,
        "seed": 2345,
    }
    config = complete(
        task=task,
        model={"name": "linoss", "preset": name, "dropout": 0.05},
        optimizer=adam(rate),
        training=until_it_stops(batch_size),
    )
    return apply_variant(
        config,
        "smoke" if smoke else None,
        task={
            "name": "oscillations", "length": 24, "channels": 3, "classes": 3, "examples": 40,
            "seed": 0,
        },
        model={"d_model": 4, "d_state": 4, "n_layers": 1},
    )


def adam(rate: float) -> dict:
    """Return the optimizer of LinOSS: Adam at a constant rate."""
    return {
        "learning_rate": rate,
        "dynamics_rate": rate,
        "step_size_rate": rate,
        "weight_decay": 0.0,
        "schedule": "constant",
    }


def until_it_stops(batch_size: int) -> dict:
    """Return the training of LinOSS: it stops behind ten evaluations without improvement."""
    return {
        "steps": 100_000,
        "batch_size": batch_size,
        "seed": 2345,
        "log_every": 100,
        "eval_every": 1000,
        "checkpoint_every": 1000,
        "early_stopping": 11,
        "eval_batch_size": batch_size,
    }
