"""Weights from the authors' programs, in and out; no arithmetic, so gradients map too."""

from pspike_jax.interop.fsnn import export_fsnn, load_fsnn
from pspike_jax.interop.pspikessm import export_pspikessm, load_pspikessm
from pspike_jax.interop.seqboat import export_seqboat, load_seqboat
from pspike_jax.interop.silif import authors_activity, export_silif, load_silif
from pspike_jax.interop.stc import export_stc, load_stc
from pspike_jax.interop.tensors import read_state_dict

__all__ = [
    "authors_activity",
    "export_fsnn",
    "export_pspikessm",
    "export_seqboat",
    "export_silif",
    "export_stc",
    "load_fsnn",
    "load_pspikessm",
    "load_seqboat",
    "load_silif",
    "load_stc",
    "read_state_dict",
]
