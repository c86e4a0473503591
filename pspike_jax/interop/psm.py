"""Weights of prefix-scannable models, to and from the first author's program (muherng/hidden).

"T0" has the tables of tokens and positions, "T1" is the aggregator, "T2" the reader, "T2_head" the
map to logits. Products are stored (in, out), as GPT-2's are, but the last one.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.entries import Entry, dense, export_entries, load_entries
from pspike_jax.models.psm import PSM
from pspike_jax.models.zoo import create_model

# {name there: name here} of a block's norms and products.
_NORMS = {"ln_1": "norm_1", "ln_2": "norm_2"}
_PRODUCTS = {
    "attn.c_attn": "qkv", "attn.c_proj": "project", "mlp.c_fc": "widen", "mlp.c_proj": "narrow"
}


def load_psm(
    state_dict: Mapping[str, Any], *, heads: int, chunk: int, **fields
) -> tuple[PSM, dict[str, Any]]:
    """Build the model of a state dict.

    Args:
      state_dict: {name: array or CPU tensor}.
      heads: attention heads, which the weights do not tell.
      chunk: steps of a chunk, which the weights do not tell; a divisor of the table of positions.
      **fields: of the model.

    Returns:
      module: with the sizes of the weights; its outputs are logits at every step.
      variables: its "params".

    Raises:
      ValueError: one error that lists every entry that does not fit.
    """
    tables = [np.shape(state_dict.get(f"T0.{name}.weight", ())) for name in ("wte", "wpe")]
    if any(len(shape) != 2 for shape in tables):
        raise ValueError("the state dict has no T0.wte.weight and T0.wpe.weight, tables (n, d)")
    (tokens, d_model), (l_max, _) = tables
    depth = lambda part: len(
        {m[1] for m in (re.match(rf"{part}\.blocks\.(\d+)\.", name) for name in state_dict) if m}
    )
    found = {
        "vocab_size": tokens,
        "num_outputs": tokens,
        "pool": "none",
        "head_bias": False,
        "d_model": d_model,
        "heads": heads,
        "chunk": chunk,
        "n_layers": depth("T2"),
        "aggregator_layers": depth("T1"),
        "l_max": l_max,
    }
    module = create_model("psm", **found | fields)
    x = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    return module, load_entries(state_dict, module, _entries(module), x)


def export_psm(module: PSM, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the program does: renames and transposes only.

    Args:
      module: the model.
      params: its parameters, or anything of their structure.

    Returns:
      {name: array}.
    """
    return export_entries({"params": params}, _entries(module))


def _entries(module: PSM) -> Iterator[Entry]:
    config = module.config
    yield Entry("T0.wte.weight", ("params", "encoder", "embed", "embedding"))
    yield Entry("T0.wpe.weight", ("params", "backbone", "positions"))
    yield from _transformer("T1", ("aggregator", "reader"), config.aggregator_layers)
    yield from _transformer("T2", ("reader",), config.n_layers)
    yield from dense("T2_head", ("head", "linear"), bias=False)


def _transformer(there, here, depth) -> Iterator[Entry]:
    path = ("params", "backbone", *here)
    for i in range(depth):
        block = (*path, f"blocks_{i}")
        for name, own in _NORMS.items():
            yield from _norm(f"{there}.blocks.{i}.{name}", (*block, own))
        for name, own in _PRODUCTS.items():
            name = f"{there}.blocks.{i}.{name}"
            yield Entry(f"{name}.weight", (*block, own, "kernel"), transpose=False)
            yield Entry(f"{name}.bias", (*block, own, "bias"))
    yield from _norm(f"{there}.ln_f", (*path, "norm"))


def _norm(name, path) -> Iterator[Entry]:
    yield Entry(f"{name}.weight", (*path, "scale"))
    yield Entry(f"{name}.bias", (*path, "bias"))
