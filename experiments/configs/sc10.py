"""P-SpikeSSM on Speech Commands, ten words, raw sound: 16,000 steps.

  python -m experiments.prepare --dataset=sc10 --data_dir=data
  python -m experiments.main --config=experiments/configs/sc10.py --workdir=runs/sc10

Expected test accuracy: 95.6 %, P-SpikeSSM's (arXiv 2406.02923), on a random split that shares
speakers. No settings were released for it; those here are the ones of sc35.
Hardware: one data-centre GPU, about 3 hours; an estimate from memory traffic, not a measurement.

The variant `smoke` runs every part in seconds, on a synthetic stand-in.
"""

from ml_collections import config_dict

from experiments.configs import sc35
from experiments.configs.published import stand_in


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None or "smoke"."""
    config = sc35.get_config(variant)
    if variant == "smoke":
        config.task = config_dict.create(**stand_in("sc10", 32))
        return config
    config.task.dataset = "sc10"
    config.optimizer.warmup_steps = 6100
    # 40 epochs; an epoch of 70 % of 34,975 clips has 1,530 steps.
    config.training.update(steps=61_200, eval_every=1500, checkpoint_every=500)
    return config
