"""Weights of the published SeqBoat module: names, shapes, nothing else."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax
import jax.numpy as jnp
import numpy as np

from pspike_jax.models.seqboat import SeqBoat
from pspike_jax.models.zoo import create_model

NORMS = {"layernorm": "layer", "batchnorm": "batch"}


class Entry(NamedTuple):
    """An array of a model: its collection and path here, its name there, and the way back.

    Attributes:
      collection: "params" or "batch_stats".
      path: of the array, stacked over layers where `layers` says so.
      name: there, "{}" for the number of the layer.
      layers: whether each layer has one.
      read: from an array there to one here.
      write: from an array here to one there.
    """

    collection: str
    path: tuple[str, ...]
    name: str
    layers: bool
    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


def load_seqboat(
    state_dict: Mapping[str, Any],
    *,
    bidirectional: bool,
    prenorm: bool,
    norm: str,
    attention: str,
    window: int,
    **fields,
) -> tuple[SeqBoat, dict[str, Any]]:
    """Build a model from a state dict; it computes what the program does, padding included.

    Args:
      state_dict: {name: array or CPU tensor}.
      bidirectional: whether the program's layers look both ways.
      prenorm: whether they normalise their inputs.
      norm: "layernorm" or "batchnorm".
      attention: "softmax" or "relu2".
      window: its window.
      **fields: further fields of the model.

    Returns:
      module: the model; its variables.

    Raises:
      ValueError: an unknown norm, or missing entries.
    """
    if norm not in NORMS:
        raise ValueError(f"norm is {norm!r}; expected one of {', '.join(NORMS)}")
    arrays = {name: np.asarray(value, np.float32) for name, value in state_dict.items()}
    numbers = [re.match(r"seq_layers\.(\d+)\.", name) for name in arrays]
    found = {int(number[1]) for number in numbers if number}
    if not found or "decoder.weight" not in arrays:
        raise ValueError(
            f"the state dict has {sorted(arrays)}; expected seq_layers.0, ..., decoder"
        )
    first = "seq_layers.0."
    module = create_model(
        "seqboat",
        "program",
        num_outputs=len(arrays["decoder.weight"]),
        d_model=arrays[first + "h_proj.weight"].shape[0],
        d_qk=arrays[first + "gamma"].shape[1],
        d_state=arrays[first + "ssm.gamma"].shape[1],
        n_layers=len(found),
        window=window,
        max_positions=(arrays[first + "rel_pos_bias.rel_pos_bias"].size + 1) // 2,
        score=attention,
        norm=NORMS[norm],
        prenorm=prenorm,
        causal=not bidirectional,
        **{"dropout": 0.0} | fields,
    )
    flat = {}
    for entry in _entries(module):
        layers = range(len(found)) if entry.layers else [0]
        read = [entry.read(arrays[entry.name.format(i)]) for i in layers]
        value = np.stack(read) if entry.layers else read[0]
        flat[(entry.collection, *entry.path)] = jnp.asarray(value)
    return module, flax.traverse_util.unflatten_dict(flat)


def export_seqboat(
    module: SeqBoat, params: Mapping[str, Any], batch_stats: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the program does.

    Args:
      module: the model.
      params: its parameters, or anything of their structure.
      batch_stats: its running statistics, or None to leave them out.

    Returns:
      {name: array}.
    """
    trees = {"params": params} | ({} if batch_stats is None else {"batch_stats": batch_stats})
    flat = flax.traverse_util.flatten_dict(trees)
    exported = {}
    for entry in _entries(module):
        if entry.collection not in trees:
            continue
        value = np.asarray(flat[(entry.collection, *entry.path)])
        for i, one in enumerate(value if entry.layers else [value]):
            exported[entry.name.format(i)] = entry.write(one)
    return exported


def _entries(module) -> Iterator[Entry]:
    config = module.config
    D, N = config.d_model, config.d_state
    same = lambda a: a
    flip = lambda a: a.T
    split = lambda a: a.reshape(-1, D, N)
    blocks = ("backbone", "blocks")

    def layer(path, name, read=same, write=same, collection="params"):
        return Entry(collection, (*blocks, *path), "seq_layers.{}." + name, True, read, write)

    for name in ("delta", "alpha", "beta"):
        yield layer(("ema", name), f"ssm.{name}", split, lambda a: a.reshape(-1, N, 1))
    yield layer(("ema", "gamma"), "ssm.gamma", split, lambda a: a.reshape(-1, N))
    yield layer(("ema", "omega"), "ssm.omega")
    yield layer(("scale",), "gamma")
    yield layer(("shift",), "beta")
    yield layer(("bias",), "rel_pos_bias.rel_pos_bias")
    yield layer(("log_temperature",), "q_router.temp")
    for name in ("mx", "hx", "h"):
        yield layer((name, "kernel"), f"{name}_proj.weight", flip, flip)
        yield layer((name, "bias"), f"{name}_proj.bias")
    for entry in _norm(config):
        yield layer(("norm", *entry[1]), f"norm.norm.{entry[2]}", collection=entry[0])
        if config.prenorm:
            path = ("backbone", "norm", *entry[1])
            yield Entry(entry[0], path, f"final_norm.norm.{entry[2]}", False, same, same)
    for here, there in ((("encoder",), "encoder"), (("head",), "decoder")):
        path = (*here, "linear")
        yield Entry("params", (*path, "kernel"), f"{there}.weight", False, flip, flip)
        yield Entry("params", (*path, "bias"), f"{there}.bias", False, same, same)


def _norm(config):
    kind = config.norm
    found = [("params", (kind, "scale"), "weight"), ("params", (kind, "bias"), "bias")]
    if kind == "batch":
        found += [
            ("batch_stats", (kind, "mean"), "running_mean"),
            ("batch_stats", (kind, "var"), "running_var"),
        ]
    return found
