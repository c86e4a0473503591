"""P-SpikeSSM on sequential MNIST: 784 pixels one by one, row by row.

  python -m experiments.prepare --dataset=smnist --data_dir=data
  python -m experiments.main --config=experiments/configs/smnist.py --workdir=runs/smnist

Expected test accuracy: P-SpikeSSM reports none on this task; its settings for the permuted one are
taken over. SpikingSSM has 99.6 % (arXiv 2408.14909).
Hardware: one data-centre GPU, about 1 hour; an estimate from memory traffic, not a measurement.

The variant `smoke` runs every part in seconds, on a synthetic stand-in.
"""

from ml_collections import config_dict

from experiments.configs import psmnist
from experiments.configs.published import stand_in


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None or "smoke"."""
    config = psmnist.get_config(variant)
    if variant == "smoke":
        config.task = config_dict.create(**stand_in("smnist", 32))
    else:
        config.task.dataset = "smnist"
    return config
