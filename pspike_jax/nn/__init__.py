"""Flax (Linen) modules: they own parameters and call `pspike_jax.functional`."""

from pspike_jax.nn.backbone import PSpikeBackbone
from pspike_jax.nn.block_config import BlockConfig
from pspike_jax.nn.pspike import ClampFuse, SpikeMixer, SpikeSampler
from pspike_jax.nn.dplr_ssm import DPLRSSM
from pspike_jax.nn.ssm import DiagonalSSM

__all__ = [
    "BlockConfig",
    "ClampFuse",
    "DPLRSSM",
    "DiagonalSSM",
    "PSpikeBackbone",
    "SpikeMixer",
    "SpikeSampler",
]
