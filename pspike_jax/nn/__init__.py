"""Flax (Linen) modules: they own parameters and call `pspike_jax.functional`."""

from pspike_jax.nn.block import Block, Chain, Pass, Stack, whole_sequences
from pspike_jax.nn.dense import SpikeMixer
from pspike_jax.nn.mixers import MIXERS, S5SSM, DPLRSSM, DiagonalSSM, OscillatorSSM
from pspike_jax.nn.norm import ClampFuse
from pspike_jax.nn.roles import GROUPS, Role, role
from pspike_jax.nn.sites import SITES, NeuronSite, SpikeSampler

__all__ = [
    "Block",
    "Chain",
    "ClampFuse",
    "DPLRSSM",
    "DiagonalSSM",
    "GROUPS",
    "MIXERS",
    "NeuronSite",
    "OscillatorSSM",
    "Pass",
    "Role",
    "S5SSM",
    "SITES",
    "SpikeMixer",
    "SpikeSampler",
    "Stack",
    "role",
    "whole_sequences",
]
