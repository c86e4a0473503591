"""Weights from the authors' programs, in and out; no arithmetic, so gradients map too."""

from pspike_jax.interop.linoss import export_linoss, load_linoss
from pspike_jax.interop.pspikessm import export_pspikessm, load_pspikessm
from pspike_jax.interop.s5 import export_event_ssm, export_s5, load_event_ssm, load_s5
from pspike_jax.interop.silif import authors_activity, export_silif, load_silif
from pspike_jax.interop.tensors import read_state_dict

__all__ = [
    "authors_activity",
    "export_event_ssm",
    "export_linoss",
    "export_pspikessm",
    "export_s5",
    "export_silif",
    "load_event_ssm",
    "load_linoss",
    "load_pspikessm",
    "load_s5",
    "load_silif",
    "read_state_dict",
]
