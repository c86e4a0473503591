"""Weights of S5-RF, to and from the authors' JAX program (github ThomasEHuber/s5-rf)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.entries import Entry, export_entries, load_entries
from pspike_jax.models.s5rf import S5RF
from pspike_jax.models.zoo import create_model


def load_s5rf(
    state_dict: Mapping[str, Any],
    *,
    rule: str,
    activation: str = "cartesian",
    keep_imag: bool = True,
    skip: bool = True,
    **fields,
) -> tuple[S5RF, dict[str, Any]]:
    """Build the network of named arrays, complex ones as pairs.

    Args:
      state_dict: {name: array}: "dense_layers.0.B" (P, inputs, 2), "neuron_layers.0.Lambda",
        "neuron_layers.0.log_step", "neuron_layers.0.V", "output_dense.B", "li.tau".
      rule: "dirac", "zoh" or "bilinear", of the first layer.
      activation: "cartesian" or "polar".
      keep_imag: whether currents are complex.
      skip: whether inner layers add their inputs.
      **fields: of the model.

    Returns:
      module: network with the sizes of the weights.
      variables: its "params", and V among its "batch_stats" where it is not the identity.

    Raises:
      ValueError: one error that lists every entry that does not fit; there are no layers; a V
        behind the first layer that is not the identity.
    """
    pattern = r"neuron_layers\.(\d+)\."
    numbers = [int(m[1]) for m in (re.match(pattern, name) for name in state_dict) if m]
    layers = range(max(numbers, default=-1) + 1)
    names = [f"neuron_layers.{i}.Lambda" for i in layers]
    if not names or any(name not in state_dict for name in names) or "li.tau" not in state_dict:
        raise ValueError("the state dict has no neuron_layers.0.Lambda, ... and li.tau")
    mixed = [not _is_identity(state_dict.get(f"neuron_layers.{i}.V")) for i in layers]
    if any(mixed[1:]):
        raise ValueError("V is not the identity behind the first layer; expected it there alone")
    module = create_model(
        "s5rf",
        num_outputs=len(state_dict["li.tau"]),
        widths=tuple(len(state_dict[name]) for name in names),
        readout="eigenvectors" if mixed[0] else "modes",
        **{"blocks": 1, "rule": rule, "activation": activation, "keep_imag": keep_imag},
        **{"skip": skip, **fields},
    )
    shape = np.shape(state_dict.get("dense_layers.0.B", (1, 1, 2)))
    x = jax.ShapeDtypeStruct((1, 2, shape[1]), jnp.float32)
    unused = {f"neuron_layers.{i}.V" for i in layers if not mixed[i]}
    used = {name: array for name, array in state_dict.items() if name not in unused}
    return module, load_entries(used, module, _entries(module), x)


def export_s5rf(
    module: S5RF, params: Mapping[str, Any], batch_stats: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the program does: renames and reshapes only.

    Args:
      module: the network.
      params: its parameters, or anything of their structure.
      batch_stats: for the V of the first layer, or None to leave it out.

    Returns:
      {name: array}.
    """
    trees = {"params": params} | ({} if batch_stats is None else {"batch_stats": batch_stats})
    return export_entries(trees, _entries(module))


def _is_identity(V) -> bool:
    if V is None:
        return True
    V = np.asarray(V)
    return V.ndim == 3 and not V[..., 1].any() and np.array_equal(V[..., 0], np.eye(len(V)))


def _entries(module: S5RF) -> Iterator[Entry]:
    for i, width in enumerate(module.config.widths):
        here, neurons = ("backbone", f"layers_{i}"), f"neuron_layers.{i}"
        yield Entry(f"dense_layers.{i}.B", ("params", *here, "B"))
        yield Entry(f"{neurons}.Lambda", ("params", *here, "Lambda"))
        yield Entry(f"{neurons}.log_step", ("params", *here, "log_step"), shape=(width, 1))
        if i == 0 and module.config.readout == "eigenvectors":
            yield Entry(f"{neurons}.V", ("batch_stats", *here, "V"))
    yield Entry("output_dense.B", ("params", "head", "B"))
    yield Entry("li.tau", ("params", "head", "tau"))
