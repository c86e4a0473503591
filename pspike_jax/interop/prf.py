"""Weights of PRF's networks, to and from the authors' program (github HuuYuLong/prf)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.entries import Entry, dense, export_entries, load_entries, norm
from pspike_jax.models.prf import PRF
from pspike_jax.models.zoo import create_model

_CELL = ("log_dt", "theta_log", "gamma")
_GATE = {"ternay1.log_w": ("spatial", "log_size"), "ternay2.log_w": ("gate_log_size",),
         "pro_linear2.weight": ("gate_kernel",), "pro_linear2.bias": ("gate_bias",)}


def load_prf(state_dict: Mapping[str, Any], **fields) -> tuple[PRF, dict[str, Any]]:
    """Build the network of a state dict: encoder, layers, norms, decoder.

    Args:
      state_dict: {name: array or CPU tensor}; "layers.0.layer.neuron1.log_dt" and so on.
      **fields: of the model, where weights do not tell them: "tau", "threshold", "prenorm" where
        layers have no norm at their end, "neuron" for "prf_reset" or "decoupled_reset".

    Returns:
      module: network with the sizes of the weights.
      variables: its "params", and "batch_stats" where it has batch norms.

    Raises:
      ValueError: one error that lists every entry that is unknown, missing, misshapen or not
        real; no layers.
    """
    found = _read_fields(state_dict) | fields
    module = create_model("prf", **found)
    encoder = np.shape(state_dict.get("encoder.weight", (0, 1)))
    tokens = module.config.vocab_size is not None
    width = encoder[-1] if module.config.encoder == "linear" else module.config.d_model
    x = jax.ShapeDtypeStruct(
        (1, 2) if tokens else (1, 2, width), jnp.int32 if tokens else jnp.float32
    )
    return module, load_entries(state_dict, module, _entries(module, state_dict), x)


def export_prf(
    module: PRF,
    params: Mapping[str, Any],
    batch_stats: Mapping[str, Any] | None = None,
    *,
    like: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the authors do: renames and transposes only.

    Args:
      module: the network.
      params: its parameters, or anything of their structure.
      batch_stats: its running statistics, or None to leave them out.
      like: a state dict whose names of norms are taken; those of the program's wrapper if None.

    Returns:
      {name: array}.
    """
    trees = {"params": params} | ({} if batch_stats is None else {"batch_stats": batch_stats})
    return export_entries(trees, _entries(module, like or {}))


def _read_fields(arrays) -> dict[str, Any]:
    numbers = [int(m[1]) for m in (re.match(r"layers\.(\d+)\.", name) for name in arrays) if m]
    if not numbers:
        raise ValueError("the state dict has no layers.0, layers.1, ...")
    layer = {n.removeprefix("layers.0.layer."): np.shape(a) for n, a in arrays.items()}
    spatial = "identity"
    if any(name.startswith("pro_gsu.") for name in layer):
        spatial = "gsu"
    elif "alpha" in layer:
        spatial = "binary" if layer["alpha"] == (1,) else "binary_vec"
    fields = {
        "n_layers": max(numbers) + 1,
        "d_model": layer["pro_linear1.bias"][0] if "pro_linear1.bias" in layer else 1,
        "spatial": spatial,
        "neuron": "prf_train" if "neuron1.gamma" in layer else "prf",
        "bidirectional": any(name.startswith("reverse_neuron1.") for name in layer),
        "norm": "batch" if any(n.endswith("running_mean") for n in arrays) else "layer",
        "prenorm": _final_norm(arrays) in {n.rsplit(".", 1)[0] for n in arrays},
        "vocab_size": None,
    }
    if "encoder.weight" not in arrays:
        fields["encoder"] = "none"
    elif "encoder.bias" not in arrays:
        fields["vocab_size"] = len(arrays["encoder.weight"])
    if "decoder.weight" in arrays:
        return fields | {"num_outputs": len(arrays["decoder.weight"])}
    return fields | {"head": "none", "pool": "none"}


def _final_norm(arrays) -> str:
    """Return what the norm behind the last layer is called."""
    known = ("layers.", "encoder.", "decoder.")
    names = [n for n in arrays if n.endswith(".weight") and not n.startswith(known)]
    return names[0].removesuffix(".weight") if names else "norm.norm"


def _entries(module: PRF, arrays: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield every array of a network; names of norms are those of `arrays`."""
    config = module.config
    if config.vocab_size is not None:
        yield Entry("encoder.weight", ("params", "encoder", "embed", "embedding"))
    elif config.encoder == "linear":
        yield from dense("encoder", ("encoder", "linear"))
    for layer in range(config.n_layers):
        yield from _block_entries(config, layer)
        inner = f"layers.{layer}.norm"
        inner = inner if f"{inner}.weight" in arrays else f"{inner}.norm"
        yield from norm(inner, ("backbone", "blocks", "norm"), config.norm, layer)
    if config.prenorm:
        yield from norm(_final_norm(arrays), ("backbone", "norm"), config.norm)
    if config.head == "linear":
        yield from dense("decoder", ("head", "linear"))


def _block_entries(config, layer):
    there, blocks = f"layers.{layer}.layer.", ("backbone", "blocks")
    time, space = (*blocks, "time"), (*blocks, "space")
    directions = {"neuron1": "temporal"}
    if config.bidirectional:
        directions["reverse_neuron1"] = "temporal_reverse"
    for name, here in directions.items():
        cell = _CELL[: 3 if config.neuron == "prf_train" else 2]
        for each in cell if config.neuron != "decoupled_reset" else ():
            yield Entry(f"{there}{name}.{each}", ("params", *time, here, "neuron", each), layer)
    yield from dense(f"{there}pro_linear1", (*time, "linear"), layer)
    if config.spatial == "gsu":
        yield from dense(f"{there}pro_gsu.pro_linear1", (*space, "linear"), layer)
        for name, path in _GATE.items():
            yield Entry(f"{there}pro_gsu.{name}", ("params", *space, *path), layer)
    elif config.spatial != "identity":
        yield from dense(f"{there}pro_linear2", (*space, "linear"), layer)
        yield Entry(f"{there}alpha", ("params", *space, "alpha"), layer)
