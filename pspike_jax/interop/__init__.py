"""Weights from the authors' programs, in and out; no arithmetic, so gradients map too."""

from pspike_jax.interop.prf import export_prf, load_prf
from pspike_jax.interop.pspikessm import export_pspikessm, load_pspikessm
from pspike_jax.interop.silif import authors_activity, export_silif, load_silif
from pspike_jax.interop.tensors import read_state_dict

__all__ = [
    "authors_activity",
    "export_prf",
    "export_pspikessm",
    "export_silif",
    "load_prf",
    "load_pspikessm",
    "load_silif",
    "read_state_dict",
]
