"""Weights of the authors' LangevinFlow program (KingJamesSong/LangevinFlow_CCN), in and out."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.entries import Entry, dense, export_entries, load_entries
from pspike_jax.models.langevinflow import LangevinFlow
from pspike_jax.models.zoo import create_model

# {name there: name here}
_GRU = {
    "weight_ih": "input_kernel", "weight_hh": "recurrent_kernel",
    "bias_ih": "input_bias", "bias_hh": "recurrent_bias",
}
_START = {"z_means": "z_mean", "z_logvar": "z_log_variance",
          "v_means": "v_mean", "v_logvar": "v_log_variance"}


def load_langevinflow(
    state_dict: Mapping[str, Any], **fields
) -> tuple[LangevinFlow, dict[str, Any]]:
    """Build the model of a state dict.

    Args:
      state_dict: {name: array or CPU tensor}: "encoder.weight_ih", "potential.conv_z" and so on.
      **fields: of the model that weights do not tell, as "friction" and "forward_steps".

    Returns:
      module: model with the sizes of the weights.
      variables: its "params".

    Raises:
      ValueError: one error that lists every entry that does not fit.
    """
    shape = lambda name: np.shape(state_dict.get(name, np.zeros((4, 4))))
    found = {
        "d_model": shape("encoder.weight_hh")[-1],
        "num_outputs": shape("readout.weight")[0],
        "feedforward": shape("decoder.linear1.weight")[0],
    }
    module = create_model("langevinflow", "mc_maze", **found | fields)
    x = jax.ShapeDtypeStruct((1, 2, shape("encoder.weight_ih")[-1]), jnp.float32)
    ramped = {"batch_stats": {"passes": jnp.float32(0)}} if module.config.kl_ramp else {}
    plain = module.replace(kl_ramp=None)
    return module, load_entries(state_dict, plain, _entries(), x) | ramped


def export_langevinflow(
    module: LangevinFlow, params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the program does: renames and transposes only.

    Args:
      module: the model.
      params: its parameters, or anything of their structure.

    Returns:
      {name: array}.
    """
    del module
    return export_entries({"params": params}, _entries())


def _entries() -> Iterator[Entry]:
    for there, here in _GRU.items():
        yield Entry(f"encoder.{there}", ("params", "cell", here))
    for there, here in _START.items():
        yield from dense(f"linear_{there}", ("latent", here))
    yield Entry("potential.conv_z", ("params", "latent", "potential"))
    yield Entry("decoder.self_attn.in_proj_weight", ("params", "decoder", "in_proj", "kernel"))
    yield Entry("decoder.self_attn.in_proj_bias", ("params", "decoder", "in_proj", "bias"))
    yield from dense("decoder.self_attn.out_proj", ("decoder", "out_proj"))
    for part in ("linear1", "linear2"):
        yield from dense(f"decoder.{part}", ("decoder", part))
    for part in ("norm1", "norm2"):
        yield Entry(f"decoder.{part}.weight", ("params", "decoder", part, "scale"))
        yield Entry(f"decoder.{part}.bias", ("params", "decoder", part, "bias"))
    yield from dense("readout", ("readout",))
