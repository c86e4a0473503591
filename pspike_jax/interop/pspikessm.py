"""Weights of the released P-SpikeSSM program, in and out: names and shapes only, no arithmetic.

Parameters keep the program's parametrisation (inv_dt, A_real, the length-attuned C~), so the
export maps gradients as well as values.
"""

import logging
import re
from typing import Any, Mapping

import jax.numpy as jnp
import numpy as np

from pspike_jax.models.pspikessm import PRESETS
from pspike_jax.nn.backbone import PSpikeBackbone, config_fields
from pspike_jax.nn.block_config import BlockConfig

_LOG = logging.getLogger(__name__)

# Entries that take no part in the program's forward pass, by direction.
_NEVER_USED = r"(reverse_)?layer\.output_linear\.0\.(weight|bias)|norm\.norm\.num_batches_tracked"
_DEAD = {
    True: rf"{_NEVER_USED}|bidirectional_linear[12]\.(weight|bias)",
    False: rf"{_NEVER_USED}|inp2_[ab]|bidirectional_linear(2)?\.(weight|bias)",
}


def load_pspikessm(
    state_dict: Mapping[str, np.ndarray], *, prenorm: bool, norm: str, residual: bool, length: int
) -> tuple[PSpikeBackbone, dict]:
    """Build the backbone that a state dict of the released program describes.

    Sizes, directions and tying are read off the shapes. Parameters that the program never uses
    are dropped and reported in the log.

    Args:
      state_dict: names to arrays; complex numbers have a last axis of size 2.
      prenorm: whether blocks normalise their input.
      norm: "batch" or "layer".
      residual: whether blocks add their input.
      length: L, the kernel length that C~ is attuned to.

    Returns:
      module: `module.apply(variables, x, noise=...)` gives (y, aux).
      variables: {"params", and "batch_stats" with batch norm}.

    Raises:
      ValueError: one error that lists every unknown, missing or misshapen entry.
    """
    config = _read_config(state_dict, prenorm, norm, residual, length)
    entries = _entries(config)
    problems, dead = [], []
    for name in sorted(set(state_dict) - set(entries)):
        local = re.sub(r"^layers\.\d+\.", "", name)
        known_layer = local == name or int(name.split(".")[1]) < config.n_layers
        if local.endswith("kernel.l_kernel"):
            if not np.array_equal(np.ravel(state_dict[name]), [length]):
                problems.append(f"{name} is {state_dict[name]}; length is {length}")
        elif known_layer and re.fullmatch(_DEAD[config.bidirectional], local):
            dead.append(name)
        else:
            problems.append(f"{name} is unknown")
    for name, (_, _, shape, _) in entries.items():
        if name not in state_dict:
            problems.append(f"{name} is missing")
        elif np.shape(state_dict[name]) != shape:
            problems.append(f"{name} has shape {np.shape(state_dict[name])}; expected {shape}")
        elif np.asarray(state_dict[name]).dtype.kind not in "fiu":
            problems.append(f"{name} is {np.asarray(state_dict[name]).dtype}; expected numbers")
    if problems:
        raise ValueError("the state dict does not fit:\n  " + "\n  ".join(problems))
    if dead:
        _LOG.warning("dropped %d entries that the program never uses: %s", len(dead), dead)
    return PSpikeBackbone(config), _variables(state_dict, config, entries)


def export_pspikessm(module: PSpikeBackbone, params: Mapping) -> dict[str, np.ndarray]:
    """Name and shape parameters, or their gradients, as the released program does.

    Args:
      module: from `load_pspikessm`, or any backbone with preset `official`'s order of operations.
      params: the collection "params" of its variables, or a gradient of the same structure.

    Returns:
      Names to float arrays; running statistics and unused entries are not part of it.
    """
    exported = {}
    for name, (collection, path, shape, layer) in _entries(module.config).items():
        if collection != "params":
            continue
        value = params
        for part in path:
            value = value[part]
        value = np.asarray(value if layer is None else value[layer])
        value = value.T if path[-1] == "kernel" else value
        exported[name] = value.reshape(shape)
    return exported


def _read_config(state_dict, prenorm, norm, residual, length) -> BlockConfig:
    numbers = {m[1] for m in (re.match(r"layers\.(\d+)\.", name) for name in state_dict) if m}
    layers = [str(layer) for layer in range(len(numbers))]
    if numbers != set(layers):
        raise ValueError(f"the state dict does not fit: layers {sorted(numbers)}; expected {layers}")
    first = "layers.0.layer.layer.kernel."
    needed = [first + "C", first + "A_real"]
    absent = [name for name in needed if name not in state_dict]
    if absent:
        raise ValueError(f"the state dict does not fit: {', '.join(absent)} missing")
    C, A_real = (np.shape(state_dict[name]) for name in needed)
    if len(C) != 4 or len(A_real) != 2:
        raise ValueError(
            f"the state dict does not fit: {needed} have shapes {C} and {A_real}; expected four "
            f"axes and two"
        )
    (directions, features, pairs, _), copies = C, A_real[0]
    if copies not in (1, features):
        raise ValueError(f"{first}A_real has {copies} rows; expected 1 or {features}")
    fields = {name: PRESETS["official"][name] for name in config_fields()} | {
        "d_model": features,
        "d_state": 2 * pairs,
        "n_layers": len(layers),
        "shared_dynamics": copies == 1,
        "bidirectional": any(name.startswith("layers.0.reverse_layer.") for name in state_dict),
        "causal": directions == 1,
        "prenorm": prenorm,
        "norm": norm,
        "residual": residual,
        "l_max": length,
    }
    return BlockConfig(**fields)


def _entries(config: BlockConfig) -> dict[str, tuple[str, tuple[str, ...], tuple, int | None]]:
    """Return {name in the program: (collection, path here, shape there, layer or None)}."""
    entries = {}
    for layer in range(config.n_layers):
        for name, (collection, path, shape) in _block_entries(config).items():
            entries[f"layers.{layer}.{name}"] = (collection, ("blocks", *path), shape, layer)
    if config.prenorm:
        for name, (collection, path, shape) in _norm_entries(config, ("norm",)).items():
            entries[name] = (collection, path, shape, None)
    return entries


def _block_entries(config):
    H, pairs = config.d_model, config.d_state // 2
    copies = 1 if config.shared_dynamics else H
    affine = {"inp": "input", "out": "output"}
    branches = {"layer": "ssm"}
    if config.bidirectional:
        affine["inp2"] = "input_reverse"
        branches["reverse_layer"] = "ssm_reverse"
    entries = {}
    for theirs, ours in affine.items():
        entries[f"{theirs}_a"] = ("params", (ours, "scale"), (H,))
        entries[f"{theirs}_b"] = ("params", (ours, "shift"), (H,))
    kernel_shapes = {
        "A_real": (copies, pairs),
        "A_imag": (copies, pairs),
        "P": (1, copies, pairs, 2),
        "B": (1, copies, pairs, 2),
        "C": (1 if config.causal else 2, H, pairs, 2),
        "inv_dt": (H, 1),
    }
    for theirs, ours in branches.items():
        entries[f"{theirs}.layer.D"] = ("params", (ours, "D"), (1, H))
        for name, shape in kernel_shapes.items():
            entries[f"{theirs}.layer.kernel.{name}"] = ("params", (ours, name), shape)
    mixer = "bidirectional_linear" if config.bidirectional else "bidirectional_linear1"
    fan_in = H * len(branches)
    entries[f"{mixer}.weight"] = ("params", ("mixer", "linear", "kernel"), (H, fan_in))
    entries[f"{mixer}.bias"] = ("params", ("mixer", "linear", "bias"), (H,))
    place = ("norm",) if config.prenorm else ("fuse", "norm")
    return entries | _norm_entries(config, place)


def _norm_entries(config, place):
    path, shape = (*place, config.norm), (config.d_model,)
    entries = {
        "norm.norm.weight": ("params", (*path, "scale"), shape),
        "norm.norm.bias": ("params", (*path, "bias"), shape),
    }
    if config.norm == "batch":
        entries["norm.norm.running_mean"] = ("batch_stats", (*path, "mean"), shape)
        entries["norm.norm.running_var"] = ("batch_stats", (*path, "var"), shape)
    return entries


def _variables(state_dict, config, entries) -> dict[str, Any]:
    per_path: dict[tuple, list] = {}
    for name, (collection, path, _, layer) in entries.items():
        value = np.asarray(state_dict[name], np.float32)
        value = value.T if path[-1] == "kernel" else value
        value = value.reshape(_our_shape(path, value.shape))
        per_path.setdefault((collection, *path), []).append((value, layer))
    variables: dict[str, Any] = {}
    for path, values in per_path.items():
        stacked = [value for value, _ in values]
        leaf = stacked[0] if values[0][1] is None else np.stack(stacked)
        node = variables
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = jnp.asarray(leaf)
    return variables


def _our_shape(path, shape):
    """The program keeps axes of size 1 that broadcast; here they are dropped."""
    dropped = {"P": shape[1:], "B": shape[1:], "D": shape[1:], "inv_dt": shape[:1]}
    return dropped.get(path[-1], shape)
