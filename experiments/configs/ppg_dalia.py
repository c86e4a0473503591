"""Oscillators on PPG-DaLiA: heart rate at every 128th step of six sensors, 49,920 steps long.

  python -m experiments.main --config=experiments/configs/ppg_dalia.py --workdir=runs/ppg_dalia

The user's arrays lie in data/raw/ppg_dalia/ppg_dalia.npz, see `pspike_jax.data.load_ppg_dalia`. The
settings are those of LinOSS; its authors' stored results have a mean squared error of .0642, of five
seeds with a population deviation of .0023. Not repeated here: the files are not. `smoke` runs every
part in seconds, on generated oscillations.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete
from experiments.configs.uea import adam, until_it_stops


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None or "smoke"."""
    config = complete(
        task={
            "name": "ppg_dalia",
            "source_dir": "data/raw/ppg_dalia",
            "every": 128,
            "time_channel": True,
        },
        model={"name": "linoss", "preset": "ppg_dalia", "dropout": 0.05},
        optimizer=adam(1e-3),
        training=until_it_stops(4),
    )
    return apply_variant(
        config,
        variant,
        task={
            "name": "oscillations", "length": 24, "channels": 3, "classes": 3, "examples": 40,
            "seed": 0, "every": 8,
        },
        model={"d_model": 4, "d_state": 4, "n_layers": 1},
    )
