"""Reset-based neurons on Google Speech Commands: 98 frames of 40 filter-bank features, 35 words.

  python -m experiments.prepare --dataset=gsc --data_dir=data
  python -m experiments.main --config=experiments/configs/gsc.py --workdir=runs/gsc

Expected test accuracy: SiLIF 95.25 +- 0.12 %, with 1,024 neurons a layer (model.widths) 95.49 +-
0.09 % (README of the authors' program, arXiv 2506.06374).
Hardware: the authors report about 5 hours on one RTX 4090; not measured here.

A variant names the model: silif (the default) with its published settings; csilif, adlif, cadlif,
lif, rlif, radlif and resonate_and_fire with the same. `NAME_delays`
trains delays of its neurons, too. `smoke` runs every part in seconds, on a synthetic stand-in.
"""

from ml_collections import config_dict

from experiments.configs.published import neuron_config

PUBLISHED = {"silif": {"learning_rate": 1e-3, "dropout": 0.5, "patience": 5, "factor": 0.7}}


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "smoke" or the name of a model."""
    return neuron_config(
        "gsc",
        variant,
        PUBLISHED,
        training={
            "steps": 265_100,  # 100 epochs
            "batch_size": 32,
            "seed": 13,
            "log_every": 241,
            "eval_every": 2651,  # an epoch: the plateau is counted in epochs
            "checkpoint_every": 2651,
            "eval_batch_size": 128,
        },
    )
