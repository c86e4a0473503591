"""Weights from the authors' programs, in and out; no arithmetic, so gradients map too."""

from pspike_jax.interop.binary_s4d import export_binary_s4d, load_binary_s4d
from pspike_jax.interop.langevinflow import export_langevinflow, load_langevinflow
from pspike_jax.interop.mamba_fscil import export_mamba_fscil, load_mamba_fscil
from pspike_jax.interop.pmsn import export_pmsn, load_pmsn
from pspike_jax.interop.prf import export_prf, load_prf
from pspike_jax.interop.pspikessm import export_pspikessm, load_pspikessm
from pspike_jax.interop.silif import authors_activity, export_silif, load_silif
from pspike_jax.interop.tensors import read_state_dict

__all__ = [
    "authors_activity",
    "export_binary_s4d",
    "export_langevinflow",
    "export_mamba_fscil",
    "export_pmsn",
    "export_prf",
    "export_pspikessm",
    "export_silif",
    "load_binary_s4d",
    "load_langevinflow",
    "load_mamba_fscil",
    "load_pmsn",
    "load_prf",
    "load_pspikessm",
    "load_silif",
    "read_state_dict",
]
