"""Weights of Binary S4D, to and from a third party's program (liyc5929/neuroseqbench)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.entries import Entry, export_entries, load_entries, norm
from pspike_jax.models.binary_s4d import BinaryS4D
from pspike_jax.models.zoo import create_model

_KERNEL = {"log_dt": "log_dt", "log_A_real": "A_real", "A_imag": "A_imag"}


def load_binary_s4d(
    state_dict: Mapping[str, Any], **fields
) -> tuple[BinaryS4D, dict[str, Any]]:
    """Build the layers of a state dict: a model from features to features, step by step.

    Args:
      state_dict: {name: array or CPU tensor}, "0.kernel.C", "0.D" and so on.
      **fields: of the model: "threshold", "surrogate", "surrogate_width".

    Returns:
      module: layers with the sizes of the weights, with the gated unit where they have its w.
      variables: its "params".

    Raises:
      ValueError: one error that lists every entry that does not fit; or there are no layers.
    """
    numbers = [int(m[1]) for m in (re.match(r"(\d+)\.", name) for name in state_dict) if m]
    poles = np.shape(state_dict.get("0.kernel.A_imag", ()))
    if not numbers or len(poles) != 2:
        raise ValueError("the state dict has no 0.kernel.A_imag (H, N/2)")
    name = "gsu_s4d" if "0.w" in state_dict else "binary_s4d"
    sizes = {"n_layers": max(numbers) + 1, "d_model": poles[0], "d_state": 2 * poles[1]}
    plain = {"encoder": "none", "head": "none", "pool": "none", "initializer": "lin"}
    # Presets differ in sizes and tokens alone.
    module = create_model(name, "smnist", **sizes | plain | fields)
    x = jax.ShapeDtypeStruct((1, 2, poles[0]), jnp.float32)
    return module, load_entries(state_dict, module, _entries(module), x)


def export_binary_s4d(module: BinaryS4D, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the program does: renames and transposes only.

    Args:
      module: the model.
      params: its parameters, or anything of their structure.

    Returns:
      {name: array}.
    """
    return export_entries({"params": params}, _entries(module))


def _entries(module: BinaryS4D) -> Iterator[Entry]:
    config = module.config
    H, pairs = config.d_model, config.d_state // 2
    blocks = ("backbone", "blocks")
    for i in range(config.n_layers):
        ssm = ("params", *blocks, "ssm")
        yield Entry(f"{i}.D", (*ssm, "D"), i)
        yield Entry(f"{i}.kernel.C", (*ssm, "C"), i, shape=(H, pairs, 2))
        for name, field in _KERNEL.items():
            yield Entry(f"{i}.kernel.{name}", (*ssm, field), i)
        yield from norm(f"{i}.LN", (*blocks, "norm"), config.norm, i)
        if config.gate == "gsu":
            for name in ("w", "b", "c"):
                yield Entry(f"{i}.{name}", ("params", *blocks, name), i)
            continue
        product = ("params", *blocks, "output_linear")
        there = f"{i}.output_linear.0"
        yield Entry(f"{there}.weight", (*product, "kernel"), i, shape=(2 * H, H, 1))
        yield Entry(f"{there}.bias", (*product, "bias"), i)
