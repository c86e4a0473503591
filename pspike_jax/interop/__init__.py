"""Weights from the authors' programs, in and out; no arithmetic, so gradients map too."""

from pspike_jax.interop.pspikessm import export_pspikessm, load_pspikessm

__all__ = ["export_pspikessm", "load_pspikessm"]
