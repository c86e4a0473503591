"""Weights from the authors' programs, in and out; no arithmetic, so gradients map too."""

from pspike_jax.interop.pspikessm import export_pspikessm, load_pspikessm
from pspike_jax.interop.sdn import export_sdn, load_sdn
from pspike_jax.interop.silif import authors_activity, export_silif, load_silif
from pspike_jax.interop.spikingssm import export_spikingssm, load_spikingssm
from pspike_jax.interop.tensors import read_state_dict

__all__ = [
    "authors_activity",
    "export_pspikessm",
    "export_sdn",
    "export_silif",
    "export_spikingssm",
    "load_pspikessm",
    "load_sdn",
    "load_silif",
    "load_spikingssm",
    "read_state_dict",
]
