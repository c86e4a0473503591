"""Trained models for other tools: written exactly, or refused with the reason.

to_stablehlo      one file that runs on CPUs, NVIDIA GPUs and TPUs with nothing but jax
to_nir, from_nir  networks in the Neuromorphic Intermediate Representation
save, load        safetensors with a card
"""

from pspike_jax.export.cards import load, save
from pspike_jax.export.nir_reader import from_nir
from pspike_jax.export.nir_writer import to_nir
from pspike_jax.export.stablehlo import to_stablehlo

__all__ = ["from_nir", "load", "save", "to_nir", "to_stablehlo"]
