"""Weights from the authors' programs, in and out; no arithmetic, so gradients map too."""

from pspike_jax.interop.binary_s4d import export_binary_s4d, load_binary_s4d
from pspike_jax.interop.mamba import export_mamba, export_mamba2, load_mamba, load_mamba2
from pspike_jax.interop.pmsn import export_pmsn, load_pmsn
from pspike_jax.interop.prf import export_prf, load_prf
from pspike_jax.interop.psm import export_psm, load_psm
from pspike_jax.interop.pspikessm import export_pspikessm, load_pspikessm
from pspike_jax.interop.silif import authors_activity, export_silif, load_silif
from pspike_jax.interop.tensors import read_state_dict

__all__ = [
    "authors_activity",
    "export_binary_s4d",
    "export_mamba",
    "export_mamba2",
    "export_pmsn",
    "export_prf",
    "export_psm",
    "export_pspikessm",
    "export_silif",
    "load_binary_s4d",
    "load_mamba",
    "load_mamba2",
    "load_pmsn",
    "load_prf",
    "load_psm",
    "load_pspikessm",
    "load_silif",
    "read_state_dict",
]
