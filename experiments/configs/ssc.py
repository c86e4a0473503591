"""Reset-based neurons on the Spiking Speech Commands: 300 steps of 4 ms, 140 channels, 35 words.

  python -m experiments.prepare --dataset=ssc --data_dir=data
  python -m experiments.main --config=experiments/configs/ssc.py --workdir=runs/ssc

Expected test accuracy: SiLIF 82.03 +- 0.25 %, C-SiLIF 81.59 +- 0.31 %, with 100 steps of 10 ms
SiLIF 80.11 +- 0.31 % (README of the authors' program, arXiv 2506.06374); cAdLIF 77.50 % as that
paper's rivals report it. Steps of 10 ms are task.dataset=ssc_10ms (for csilif with
optimizer.learning_rate=5e-3).
Hardware: the authors report about 15 hours on one RTX 4090; not measured here.

A variant names the model: silif (the default), csilif, cadlif with their published settings; adlif,
lif, rlif, radlif and resonate_and_fire with those of silif. `NAME_delays` trains
delays of its neurons, too. `smoke` runs every part in seconds, on a synthetic stand-in.
"""

from ml_collections import config_dict

from experiments.configs.published import neuron_config

PUBLISHED = {
    "silif": {"learning_rate": 1e-2, "dropout": 0.5, "patience": 10, "factor": 0.7},
    "csilif": {"learning_rate": 1e-2, "dropout": 0.5, "patience": 10, "factor": 0.7},
    "cadlif": {"learning_rate": 1e-2, "dropout": 0.5, "patience": 10, "factor": 0.7},
}


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "smoke" or the name of a model."""
    config = neuron_config(
        "ssc",
        variant,
        PUBLISHED,
        training={
            "steps": 29_400,  # 100 epochs
            "batch_size": 256,
            "seed": 13,
            "log_every": 49,
            "eval_every": 294,  # an epoch: the plateau is counted in epochs
            "checkpoint_every": 294,
            "eval_batch_size": 256,
        },
    )
    if config.model.name == "csilif":
        config.model.preset = "paper_ssc"  # steps up to dt_max = 5 rather than 0.5
    return config
