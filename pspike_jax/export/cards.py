"""Weights as safetensors, with a card in the form of model hubs; nothing is ever unpickled.

A folder holds model.safetensors, config.json, which says how to build the model, and README.md,
the card for people. Arrays are named by their paths; a complex one is two, NAME.real and NAME.imag.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax import models
from pspike_jax.data.untrusted import read_bytes, read_json
from pspike_jax.models.limits import check_sizes
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.models.zoo import MODELS

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_PLAIN = (bool, int, float, str, type(None))


class Result(NamedTuple):
    """A figure that a model reaches, as hubs list it.

    Attributes:
      dataset: name of the data.
      metric: name of the figure, such as "accuracy".
      value: of it.
    """

    dataset: str
    metric: str
    value: float


def save(
    folder: str | os.PathLike,
    model: SequenceModel,
    variables: Mapping[str, Any],
    *,
    input_shape: Sequence[int],
    words: str = "",
    licence: str | None = None,
    results: Sequence[Result] = (),
) -> None:
    """Write a model of the zoo with its weights and a card.

    Args:
      folder: made where it is not there.
      model: of the zoo.
      variables: its parameters and batch statistics.
      input_shape: of one example: (L, F) numbers or (L,) tokens.
      words: what the card says of data, results and limits.
      licence: of the weights, as hubs name it.
      results: what the model reaches, for the hub's list of results.

    Raises:
      ValueError: the model is none of the zoo's presets with plain fields in place of some.
    """
    from safetensors.numpy import save as pack

    name, preset, fields = zoo_name(model)
    arrays: dict[str, np.ndarray] = {}
    for key, leaf in _leaves(variables).items():
        leaf = np.asarray(leaf)
        parts = {"": leaf}
        if np.iscomplexobj(leaf):
            parts = {".real": leaf.real, ".imag": leaf.imag}
        arrays |= {key + end: np.ascontiguousarray(part) for end, part in parts.items()}
    place = pathlib.Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / WEIGHTS).write_bytes(pack(arrays, {"format": "jax"}))
    content = {
        "library_name": "pspike_jax",
        "model": {"name": name, "preset": preset, "fields": fields},
        "input": {"shape": list(input_shape)},
    }
    (place / CONFIG).write_text(json.dumps(content, indent=1) + "\n")
    (place / CARD).write_text(_card(name, preset, fields, words, _head(name, licence, results)))


def load(folder: str | os.PathLike) -> tuple[SequenceModel, dict[str, Any]]:
    """Read what `save` has written.

    Args:
      folder: of it.

    Returns:
      The model and its variables.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: the files are damaged or do not fit each other; every array that does not is
        named.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpack

    place = pathlib.Path(folder)
    content = read_json(place / CONFIG)
    try:
        entry, shape = content["model"], content["input"]["shape"]
        check_sizes(entry["fields"], shape)
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in entry["fields"].items()}
        model = models.create_model(entry["name"], entry["preset"], **fields)
        like = _leaves(abstract_variables(model, shape))
        arrays = unpack(read_bytes(place / WEIGHTS))
    except (AttributeError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{place} does not hold a model: {error}") from error
    found: dict[str, Any] = {}
    problems = []
    for name, leaf in like.items():
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            parts = [arrays.pop(name + end, None) for end in (".real", ".imag")]
            value = None if any(p is None for p in parts) else parts[0] + 1j * parts[1]
        else:
            value = arrays.pop(name, None)
        if value is None or value.shape != leaf.shape or value.dtype != leaf.dtype:
            seen = "missing" if value is None else f"{value.dtype} {value.shape}"
            problems.append(f"{name} is {seen}, expected {leaf.dtype} {leaf.shape}")
        else:
            found[name] = jnp.asarray(value)
    problems += [f"{name} is unknown" for name in arrays]
    if problems:
        raise ValueError(f"{place} does not fit its model:\n  " + "\n  ".join(problems))
    return model, _tree(found)


def zoo_name(model: SequenceModel) -> tuple[str, str, dict[str, Any]]:
    """Return (name, preset, fields) that `create_model` makes this model of.

    Raises:
      ValueError: a field that no preset has is no plain value.
    """
    best = None
    for name, family in MODELS.items():
        if family.model is not type(model):
            continue
        for preset, config in family.presets.items():
            if type(config) is not type(model.config):
                continue
            fields = {
                field.name: getattr(model.config, field.name)
                for field in dataclasses.fields(config)
                if getattr(model.config, field.name) != getattr(config, field.name)
            }
            plain = all(isinstance(v, _PLAIN) or _plain_tuple(v) for v in fields.values())
            if plain and (best is None or len(fields) < len(best[2])):
                best = name, preset, fields
    if best is None:
        raise ValueError(
            f"{type(model).__name__} with {model.config} is none of the zoo's presets with plain "
            "fields in place of some: a card could not name it"
        )
    name, preset, fields = best
    return name, preset, {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}


def abstract_variables(model: SequenceModel, shape: Sequence[int]) -> Any:
    """Return the variables of a model with shapes in place of arrays, without making them."""
    dtype = jnp.float32 if model.config.vocab_size is None else jnp.int32
    inputs = jax.ShapeDtypeStruct((1, *shape), dtype)
    keys = {name: jax.random.key(0) for name in ("params", "spikes", "dropout")}
    return nn.meta.unbox(jax.eval_shape(model.init, keys, inputs))


def _plain_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, _PLAIN) for one in value)


def _leaves(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(entry.key) for entry in path): leaf for path, leaf in leaves}


def _tree(leaves: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *path, last = name.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


def _head(name, licence, results) -> list[str]:
    """Return what hubs read of a card: YAML, whose quoted strings are those of JSON."""
    lines = ["library_name: pspike_jax", "tags:", "- spiking-neural-network", "- jax"]
    lines += [f"license: {licence}"] if licence else []
    if results:
        lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:"]
    for dataset, metric, value in results:
        named = json.dumps(dataset)
        lines += [
            "  - task:", "      type: sequence-classification",
            "    dataset:", f"      name: {named}", f"      type: {named}",
            "    metrics:", f"    - type: {json.dumps(metric)}", f"      value: {value:.4f}",
        ]
    return lines


def _card(name, preset, fields, words, head) -> str:
    changed = ", ".join(f"{key}={value!r}" for key, value in fields.items()) or "none"
    return "\n".join([
        "---", *head, "---", "", f"# {name}", "",
        f"A `{name}` of pspike_jax, preset `{preset}`, other fields: {changed}.", "",
        words or "Nothing was said of its data, its results and its limits.", "",
        "```python", "from pspike_jax import export", "model, variables = export.load(FOLDER)",
        "```", "",
    ])
