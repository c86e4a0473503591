"""A regression: the logarithm of the frequency of damped oscillations in noise, along the way.

  python -m experiments.main --config=experiments/configs/oscillations.py --workdir=runs/frequency

Three channels at phases of their own, of 128 steps; after each 32 of them a number is due, which is
the same each time: the longer a series is known, the surer it is. The variants `pspikessm` and
`s4d` have probabilistic spikes and a diagonal state space in place of oscillators. `smoke` runs
every part in seconds. Sizes are chosen here; `experiments.series` keeps what comes of it.
"""

from ml_collections import config_dict

from experiments.configs.mackey_glass import small_series


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "smoke" or a key of MODELS."""
    return small_series(
        variant,
        task={
            "name": "oscillations", "length": 128, "channels": 3, "classes": 32,
            "examples": 1280, "seed": 0, "every": 32,
        },
        smoke={"length": 24, "classes": 3, "examples": 40, "every": 8},
    )
