"""Weights of LinOSS and D-LinOSS, to and from the authors' Equinox programs.

Names are those of the leaves of their models, "blocks.0.ssm.A_diag" (LinOSS, tk-rusch/linoss) or
"blocks.0.layer.A_diag" (D-LinOSS, jaredbmit/damped-linoss), and for batch statistics
"blocks.0.norm.mean", "var" and, where there is one, "count". Products are (out, in) there.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.entries import Entry, export_entries, load_entries
from pspike_jax.models.dlinoss import DLinOSS
from pspike_jax.models.zoo import create_model
from pspike_jax.nn.mixers.oscillator import effective

# {what: its name in either program}
_LINOSS = {"encoder": "linear_encoder", "layer": "ssm", "step": "steps", "head": "linear_layer"}
_DLINOSS = {"encoder": "linear_encoder", "layer": "layer", "step": "dt", "head": "linear_decoder"}


def load_linoss(
    state_dict: Mapping[str, Any], *, scheme: str, norm: str = "running", **fields
) -> tuple[DLinOSS, dict[str, Any]]:
    """Build the network of a program's arrays; LinOSS or D-LinOSS, as their names say.

    Args:
      state_dict: {name: array}; batch statistics may be missing.
      scheme: how a step is taken, a value of `functional.oscillator.Scheme`.
      norm: statistics of the batch norm: "running" for the programs' mode "ema", "debiased" for
        their mode "batch"; "batch" for ours.
      **fields: further fields of the model, such as pool="none" and activation="tanh" for
        regression.

    Returns:
      module: network with the sizes of the weights. Its outputs are scores before the softmax.
      variables: "params" and "batch_stats".

    Raises:
      ValueError: one error that lists every entry that is unknown, missing, misshapen or not real;
        or parameters without a stable step, of which the program makes NaN.
    """
    arrays = {name: np.asarray(array) for name, array in state_dict.items()}
    blocks = {int(m[1]) for name in arrays if (m := re.match(r"blocks\.(\d+)\.", str(name)))}
    older = any(".ssm." in str(name) for name in arrays)
    names = _LINOSS if older else _DLINOSS
    shape = lambda name: (*np.shape(arrays.get(name, ())), 1, 1)[:2]
    d_model, inputs = shape("linear_encoder.weight")
    if not older:
        fields = {"start": "uniform"} | fields
    module = create_model(
        "linoss" if older else "dlinoss",
        num_outputs=shape(f"{names['head']}.weight")[0],
        d_model=d_model,
        d_state=shape(f"blocks.0.{names['layer']}.A_diag")[0],
        n_layers=len(blocks) or 1,
        scheme=scheme,
        norm=norm,
        **fields,
    )
    entries = list(_entries(module))
    x = jax.ShapeDtypeStruct((1, 2, inputs), jnp.float32)
    statistics = [entry.name for entry in entries if entry.path[0] == "batch_stats"]
    variables = load_entries(arrays, module, entries, x, statistics)
    effective(variables["params"]["backbone"]["blocks"]["ssm"]["oscillators"], scheme)
    return module, variables


def export_linoss(
    module: DLinOSS, params: Mapping[str, Any], batch_stats: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the authors do: names and shapes only.

    Args:
      module: the network.
      params: its parameters, or anything of their structure.
      batch_stats: its running statistics, or None to leave them out.

    Returns:
      {name: array}.
    """
    trees = {"params": params}
    if batch_stats is not None:
        trees["batch_stats"] = batch_stats
    return export_entries(trees, _entries(module))


def _entries(module: DLinOSS) -> Iterator[Entry]:
    """Yield all arrays of a network."""
    config = module.config
    damped = hasattr(config, "start")
    names = _DLINOSS if damped else _LINOSS
    for here, there in (("encoder", names["encoder"]), ("head", names["head"])):
        yield from _dense(there, ("params", here, "linear"), None)
    blocks = ("params", "backbone", "blocks")
    stored = {"A_diag": "A", "G_diag": "G", names["step"]: "step"}
    if config.scheme in ("im", "imex"):
        del stored["G_diag"]
    for i in range(config.n_layers):
        layer = f"blocks.{i}.{names['layer']}"
        for there, here in stored.items():
            yield Entry(f"{layer}.{there}", (*blocks, "ssm", "oscillators", here), i)
        yield Entry(f"{layer}.B", (*blocks, "ssm", "B"), i)
        yield Entry(f"{layer}.C", (*blocks, "ssm", "C"), i, row=0)
        yield Entry(f"{layer}.D", (*blocks, "ssm", "D"), i)
        yield from _dense(f"blocks.{i}.glu.w1", (*blocks, "value"), i)
        yield from _dense(f"blocks.{i}.glu.w2", (*blocks, "gate"), i)
        statistics = ("mean", "var") if config.norm == "batch" else ("mean", "var", "count")
        for one in statistics:
            path = ("batch_stats", "backbone", "blocks", "norm", "batch", one)
            yield Entry(f"blocks.{i}.norm.{one}", path, i)


def _dense(there, here, layer):
    yield Entry(f"{there}.weight", (*here, "kernel"), layer, transpose=True)
    yield Entry(f"{there}.bias", (*here, "bias"), layer)
