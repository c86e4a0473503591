"""Weights of PMSN's networks, to and from a third party's program (liyc5929/neuroseqbench)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.entries import Entry, dense, export_entries, load_entries, norm
from pspike_jax.models.pmsn import PMSN
from pspike_jax.models.zoo import create_model

# {name there: (name here, real or imaginary part)}
_KERNEL = {
    "log_dt": ("log_dt", None), "log_A_real": ("A_real", None), "A_imag": ("A_imag", None),
    "VinvB_real": ("B", 0), "VinvB_imag": ("B", 1), "CV_real": ("C", 0), "CV_imag": ("C", 1),
}


def load_pmsn(
    state_dict: Mapping[str, Any], *, threshold: float = 1.0, **fields
) -> tuple[PMSN, dict[str, Any]]:
    """Build the network of a state dict.

    Args:
      state_dict: {name: array or CPU tensor}: "fc.0.weight", "spk.0.kernel.log_dt" and so on,
        "classifier.weight". Neurons alone, without "fc" and "classifier", are a model that maps
        features to spikes.
      threshold: of the neurons.
      **fields: of the model, as "pool".

    Returns:
      module: network with the sizes of the weights.
      variables: its "params" and "batch_stats".

    Raises:
      ValueError: one error that lists every entry that does not fit; or there are no neurons.
    """
    numbers = [int(m[1]) for m in (re.match(r"spk\.(\d+)\.", name) for name in state_dict) if m]
    poles = np.shape(state_dict.get("spk.0.kernel.A_imag", ()))
    if not numbers or len(poles) != 2:
        raise ValueError("the state dict has no spk.0.kernel.A_imag (H, N)")
    found = {"n_layers": max(numbers) + 1, "d_model": poles[0], "compartments": poles[1]}
    found |= {"threshold": threshold}
    inputs = found["d_model"]
    if "fc.0.weight" in state_dict:
        inputs = np.shape(state_dict["fc.0.weight"])[-1]
    else:
        found["encoder"] = "none"
    if "classifier.weight" in state_dict:
        found["num_outputs"] = len(state_dict["classifier.weight"])
    else:
        found |= {"head": "none", "pool": "none"}
    module = create_model("pmsn", **found | fields)
    x = jax.ShapeDtypeStruct((1, 2, inputs), jnp.float32)
    return module, load_entries(state_dict, module, _entries(module), x)


def export_pmsn(
    module: PMSN, params: Mapping[str, Any], batch_stats: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the program does: renames and transposes only.

    Args:
      module: the network.
      params: its parameters, or anything of their structure.
      batch_stats: its running statistics, or None to leave them out.

    Returns:
      {name: array}.
    """
    trees = {"params": params} | ({} if batch_stats is None else {"batch_stats": batch_stats})
    return export_entries(trees, _entries(module))


def _entries(module: PMSN) -> Iterator[Entry]:
    config = module.config
    for i in range(config.n_layers):
        here = ("backbone", f"layers_{i}")
        if i or config.encoder == "linear":
            yield from dense(f"fc.{i}", (*here, "linear") if i else ("encoder", "linear"))
        yield Entry(f"spk.{i}.D", ("params", *here, "compartments", "D"))
        for name, (field, part) in _KERNEL.items():
            path = ("params", *here, "compartments", field)
            yield Entry(f"spk.{i}.kernel.{name}", path, part=part)
        yield from norm(f"spk.{i}.bn", (*here, "norm"), config.norm)
    if config.head == "linear":
        yield from dense("classifier", ("head", "linear"))
