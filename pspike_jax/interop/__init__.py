"""Weights from the authors' programs, in and out; no arithmetic, so gradients map too."""

from pspike_jax.interop.binary_s4d import export_binary_s4d, load_binary_s4d
from pspike_jax.interop.fsnn import export_fsnn, load_fsnn
from pspike_jax.interop.langevinflow import export_langevinflow, load_langevinflow
from pspike_jax.interop.mamba_fscil import export_mamba_fscil, load_mamba_fscil
from pspike_jax.interop.linoss import export_linoss, load_linoss
from pspike_jax.interop.mamba import export_mamba, export_mamba2, load_mamba, load_mamba2
from pspike_jax.interop.pmsn import export_pmsn, load_pmsn
from pspike_jax.interop.prf import export_prf, load_prf
from pspike_jax.interop.psm import export_psm, load_psm
from pspike_jax.interop.pspikessm import export_pspikessm, load_pspikessm
from pspike_jax.interop.s5 import export_event_ssm, export_s5, load_event_ssm, load_s5
from pspike_jax.interop.s5rf import export_s5rf, load_s5rf
from pspike_jax.interop.sdn import export_sdn, load_sdn
from pspike_jax.interop.seqboat import export_seqboat, load_seqboat
from pspike_jax.interop.silif import authors_activity, export_silif, load_silif
from pspike_jax.interop.spikingssm import export_spikingssm, load_spikingssm
from pspike_jax.interop.stc import export_stc, load_stc
from pspike_jax.interop.tensors import read_state_dict

__all__ = [
    "authors_activity",
    "export_binary_s4d",
    "export_event_ssm",
    "export_fsnn",
    "export_langevinflow",
    "export_mamba_fscil",
    "export_linoss",
    "export_mamba",
    "export_mamba2",
    "export_pmsn",
    "export_prf",
    "export_psm",
    "export_pspikessm",
    "export_s5",
    "export_s5rf",
    "export_sdn",
    "export_seqboat",
    "export_silif",
    "export_spikingssm",
    "export_stc",
    "load_binary_s4d",
    "load_event_ssm",
    "load_fsnn",
    "load_langevinflow",
    "load_mamba_fscil",
    "load_linoss",
    "load_mamba",
    "load_mamba2",
    "load_pmsn",
    "load_prf",
    "load_psm",
    "load_pspikessm",
    "load_s5",
    "load_s5rf",
    "load_sdn",
    "load_seqboat",
    "load_silif",
    "load_spikingssm",
    "load_stc",
    "read_state_dict",
]
