"""Weights of the released P-SpikeSSM program, in and out: names and shapes only, no arithmetic.

Parameters keep the program's parametrisation (inv_dt, A_real, the length-attuned C~), so the
export maps gradients as well as values.
"""

import collections
import dataclasses
import logging
import re
from typing import Any, Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.tensors import check_entries
from pspike_jax.models.pspikessm import PRESETS, PSpikeConfig, PSpikeSSM
from pspike_jax.nn.fields import check_whole

_LOG = logging.getLogger(__name__)

# Entries of a block that take no part in the program's forward pass, by direction.
_OUTPUT_LINEAR = r"(reverse_)?layer\.output_linear\.0\.(weight|bias)"
_DEAD = {
    True: rf"{_OUTPUT_LINEAR}|bidirectional_linear[12]\.(weight|bias)",
    False: rf"{_OUTPUT_LINEAR}|inp2_[ab]|bidirectional_linear(2)?\.(weight|bias)",
}
_BATCH_COUNTER = "norm.norm.num_batches_tracked"  # of no effect with a fixed momentum

# Which axis of which entries tells a size.
_FEATURES = {"inp_a": 0, "inp_b": 0, "out_a": 0, "out_b": 0, "D": 1}
_COPIES = {"A_real": 0, "A_imag": 0, "P": 1, "B": 1}
_PAIRS = {"A_real": 1, "A_imag": 1, "P": 2, "B": 2}
_DIRECTIONS = {"C": 0}


def load_pspikessm(
    state_dict: Mapping[str, np.ndarray], *, prenorm: bool, norm: str, residual: bool, length: int
) -> tuple[PSpikeSSM, dict]:
    """Build the backbone that a state dict of the released program describes.

    Sizes, directions and tying are read off the shapes. Parameters that the program never uses
    are dropped and reported in the log; `l_kernel`, a copy of the length, may be left out.

    Args:
      state_dict: names to arrays; complex numbers have a last axis of size 2.
      prenorm: whether blocks normalise their input.
      norm: "batch" or "layer".
      residual: whether blocks add their input.
      length: L, the kernel length that C~ is attuned to.

    Returns:
      module: its blocks alone, without encoder and head: `module.apply(variables, x, noise=...)`
        gives (y (B, L, H), aux).
      variables: {"params", and "batch_stats" with batch norm}.

    Raises:
      TypeError, ValueError: length or norm that do not fit; else one ValueError that lists every
        entry that is unknown, missing, misshapen or not real.
    """
    check_whole("length", length)
    config = _read_config(state_dict, prenorm, norm, residual, length)
    entries = _entries(config)
    problems, dead = [], []
    for name in sorted(set(state_dict) - set(entries)):
        if name in _length_entries(config):
            stated = np.asarray(state_dict[name])
            if stated.shape != () or stated != length:
                problems.append(f"{name} is {stated.tolist()}; length is {length}")
        elif _is_dead(name, config):
            dead.append(name)
        else:
            problems.append(f"{name} is unknown")
    shapes = {name: shape for name, (_, _, shape, _) in entries.items()}
    check_entries(state_dict, shapes, problems)
    if dead:
        _LOG.warning("dropped %d entries that the program never uses: %s", len(dead), dead)
    return PSpikeSSM(config=config), _variables(state_dict, config, entries)


def export_pspikessm(module: PSpikeSSM, params: Mapping) -> dict[str, np.ndarray]:
    """Name and shape parameters, or their gradients, as the released program does.

    Args:
      module: from `load_pspikessm`, or any model with preset `official`'s order of operations.
      params: the collection "params" of its variables, or a gradient of the same structure.

    Returns:
      Names to float arrays; running statistics and unused entries are not part of it.
    """
    params, exported = nn.meta.unbox(params), {}
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


def _read_config(state_dict, prenorm, norm, residual, length) -> PSpikeConfig:
    numbers = [int(m[1]) for m in (re.match(r"layers\.(\d+)\.", name) for name in state_dict) if m]
    fields = {
        "d_model": _size(state_dict, _FEATURES),
        "d_state": 2 * _size(state_dict, _PAIRS),
        "n_layers": max(numbers, default=0) + 1,
        "shared_dynamics": _size(state_dict, _COPIES) == 1,
        "bidirectional": any(".reverse_layer." in name for name in state_dict),
        "causal": _size(state_dict, _DIRECTIONS) == 1,
        "prenorm": prenorm,
        "norm": norm,
        "residual": residual,
        "l_max": length,
        "vocab_size": None,
        "encoder": "none",
        "head": "none",
        "pool": "none",
    }
    return dataclasses.replace(PRESETS["official"], **fields)


def _size(state_dict, axes: dict[str, int]) -> int:
    """Return the size that most entries agree on, 1 without any: a misshapen one stands out."""
    kinds = ((name.split(".")[-1], np.shape(value)) for name, value in state_dict.items())
    votes = collections.Counter(
        shape[axes[kind]] for kind, shape in kinds if kind in axes and len(shape) > axes[kind]
    )
    return votes.most_common(1)[0][0] if votes else 1


def _length_entries(config) -> set[str]:
    """Return the names of the entries that hold the kernel length."""
    branches = ("layer", "reverse_layer") if config.bidirectional else ("layer",)
    layers = range(config.n_layers)
    return {f"layers.{i}.{branch}.layer.kernel.l_kernel" for i in layers for branch in branches}


def _is_dead(name: str, config) -> bool:
    block = re.fullmatch(r"layers\.\d+\.(.+)", name)
    if config.norm == "batch" and (block[1] if block else name) == _BATCH_COUNTER:
        return block is not None or config.prenorm
    return block is not None and bool(re.fullmatch(_DEAD[config.bidirectional], block[1]))


def _entries(config: PSpikeConfig) -> dict[str, tuple[str, tuple[str, ...], tuple, int | None]]:
    """Return {name in the program: (collection, path here, shape there, layer or None)}."""
    entries = {}
    for layer in range(config.n_layers):
        for name, (collection, path, shape) in _block_entries(config).items():
            path = ("backbone", "blocks", *path)
            entries[f"layers.{layer}.{name}"] = (collection, path, shape, layer)
    if config.prenorm:
        for name, (collection, path, shape) in _norm_entries(config, ("backbone", "norm")).items():
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
