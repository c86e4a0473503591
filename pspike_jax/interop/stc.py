"""Weights of the published STC program: names, axes of convolutions, nothing else."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import flax
import jax.numpy as jnp
import numpy as np

from pspike_jax.models.stc import STC
from pspike_jax.models.zoo import create_model

# {name here: name there} of the convolutions of a cell, each in front of a group norm.
CONVOLUTIONS = {"input": "conv_x", "membrane_gate": "conv_h", "input_gate": "conv_v"}
NUMBERS = {
    "lif": {},
    "plif": {"decay": "t_m"},
    "lmh": {name: name for name in ("d_u", "s_u", "d_p", "s_p")},
}


def load_stc(
    state_dict: Mapping[str, Any], *, cell: str, groups: int = 16, **fields
) -> tuple[STC, dict[str, Any]]:
    """Build a model from a state dict.

    Args:
      state_dict: {name: array or CPU tensor}, cells as cell_list.0, cell_list.1, ...
      cell: "lif", "plif" or "lmh".
      groups: the program's, of convolutions and norms.
      **fields: further fields of the model, such as patch and detach.

    Returns:
      module: the model; its variables.

    Raises:
      ValueError: no cells, or entries that are missing.
    """
    arrays = {name: np.asarray(value, np.float32) for name, value in state_dict.items()}
    numbers = {re.match(r"cell_list\.(\d+)\.", name) for name in arrays} - {None}
    layers = len({int(number[1]) for number in numbers})
    if not layers or "conv_last.weight" not in arrays:
        raise ValueError(
            f"the state dict has {sorted(arrays)}; expected cell_list.0, ..., conv_last"
        )
    weights = [arrays[f"cell_list.{i}.conv_x.0.weight"] for i in range(layers)]
    patch = fields.get("patch", 1)
    module = create_model(
        "stc",
        channels=weights[0].shape[1] // patch**2,
        widths=tuple(len(weight) for weight in weights),
        cell=cell,
        filter_size=weights[0].shape[-1],
        groups=groups,
        **{"patch": patch} | fields,
    )
    flat = {path: jnp.asarray(_here(arrays[name])) for path, name in entries(module)}
    return module, {"params": flax.traverse_util.unflatten_dict(flat)}


def export_stc(module: STC, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the program does: {name: array}."""
    flat = flax.traverse_util.flatten_dict(params)
    return {name: _there(np.asarray(flat[path])) for path, name in entries(module)}


def cell_entries(cell: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (path here, name there) of the parameters of one cell."""
    for here, there in CONVOLUTIONS.items():
        yield (here, "kernel"), f"{there}.0.weight"
        yield (f"{here}_norm", "scale"), f"{there}.1.weight"
        yield (f"{here}_norm", "bias"), f"{there}.1.bias"
    for here, there in NUMBERS[cell].items():
        yield (here,), there


def entries(module: STC) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (path here, name there) of the parameters of a model."""
    for i in range(len(module.config.widths)):
        for path, name in cell_entries(module.config.cell):
            yield ("steps", f"cells_{i}", *path), f"cell_list.{i}.{name}"
    yield ("steps", "head", "kernel"), "conv_last.weight"


def _here(array):
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _there(array):
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
