"""From the name of a pretrained model to a module, its variables and its card."""

import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from pspike_jax.data.untrusted import MOST_BYTES, inside, list_files, read_bytes, read_json
from pspike_jax.models import create_model
from pspike_jax.pretrained.weights import most_bytes, read_weights

FOLDER = pathlib.Path(__file__).parent
# What a card may ask for, before anything is made. A matrix of d_state rows is taken apart.
MOST = {"d_state": 1024, "n_layers": 1000}
MOST_OTHERS = 1 << 24
MOST_PARTS = 100  # of a tuple, such as the widths of layers


def list_pretrained(folder: str | os.PathLike | None = None) -> tuple[str, ...]:
    """Return the names that `load_pretrained` knows.

    Args:
      folder: of cards and weights; None for those that come with the package.
    """
    return tuple(name.removesuffix(".json") for name in list_files(folder or FOLDER, ".json"))


def load_pretrained(
    name: str, folder: str | os.PathLike | None = None
) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """Load a trained model.

    Args:
      name: one of `list_pretrained()`.
      folder: of cards and weights; None for those that come with the package.

    Returns:
      module: `module.apply(variables, inputs, rngs={"spikes": key})` gives (logits, aux).
      variables: its parameters and statistics.
      card: what it was trained on and how, under which licence the data are, what was measured,
        and what it cannot do; JSON types.

    Raises:
      ValueError: nobody knows the name; the card or the weights are damaged, or of more than 1 GiB;
        the card names files outside its folder; or they do not fit each other, naming every array
        that does not.
    """
    folder = pathlib.Path(folder or FOLDER)
    known = list_pretrained(folder)
    if name not in known:
        raise ValueError(f"unknown pretrained model {name!r}, expected one of {list(known)}")
    card_path = folder / f"{name}.json"
    card = read_card(card_path)
    try:
        path = inside(folder, card["weights"]["file"])
        module = make_module(card["model"])
        like = abstract_variables(module, card["input"]["shape"])
        if most_bytes(like) > MOST_BYTES:
            raise ValueError(f"its variables take more than {MOST_BYTES:,} bytes")
    except Exception as error:  # any field may be wrong, and any part of a model notices it
        raise ValueError(f"{card_path} does not describe a model: {error}") from error
    try:
        content = read_bytes(path, most_bytes(like))
        found = hashlib.sha256(content).hexdigest()
    except FileNotFoundError:
        found = "missing"
    if found != card["weights"]["sha256"]:
        raise ValueError(
            f"{path}: sha256 {found}, the card says {card['weights']['sha256']}: cut short, or "
            f"not the weights of {card_path}"
        )
    try:
        return module, read_weights(path, like, content), card
    except ValueError as error:
        raise ValueError(f"{card_path}: {error}") from error


def read_card(path: pathlib.Path) -> dict[str, Any]:
    """Read a card.

    Args:
      path: of its file.

    Returns:
      Its content.

    Raises:
      ValueError: it is damaged, or what loading needs is not in it.
    """
    try:
        card = read_json(path)
        weights, model = card["weights"], card["model"]
        words = [weights["file"], weights["sha256"], model["name"], model["preset"] or ""]
        if not all(isinstance(one, str) for one in words) or type(model["fields"]) is not dict:
            raise TypeError(f"{words} and {model['fields']!r:.80}, expected words and an object")
        shape = card["input"]["shape"]
        if not isinstance(shape, list) or not 1 <= len(shape) <= 3:
            raise TypeError(f"input.shape is {shape!r}, expected a list of one to three numbers")
        for field, value in [*model["fields"].items(), ("input.shape", shape)]:
            _check_size(field, value)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not the card of a model: {error!r}") from error
    return card


def _check_size(field: str, value: Any) -> None:
    """Refuse sizes that would take hours or all memory before weights are looked at."""
    values = value if isinstance(value, list) else [value]
    if len(values) > MOST_PARTS or any(isinstance(one, (list, dict)) for one in values):
        raise ValueError(f"{field} holds more than {MOST_PARTS} parts, or parts of parts")
    most = MOST.get(field, MOST_OTHERS)
    for one in values:
        if isinstance(one, (int, float)) and not -most <= one <= most:
            raise ValueError(f"{field} is {one}, expected at most {most:,}")


def make_module(entry: Mapping[str, Any]) -> nn.Module:
    """Build the module that a card describes.

    Args:
      entry: {"name", "preset", "fields"} as `create_model` takes them, lists for tuples.

    Returns:
      The module.
    """
    fields = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in entry["fields"].items()
    }
    return create_model(entry["name"], entry["preset"], **fields)


def abstract_variables(module: nn.Module, shape: Sequence[int]) -> dict[str, Any]:
    """Describe the variables of a module without making them.

    Args:
      module: of the zoo.
      shape: of one example's inputs: (L,) tokens, (L, F) numbers, with 2 before L for documents.

    Returns:
      The variables, with shapes and dtypes in place of arrays.
    """
    dtype = "float32" if module.config.vocab_size is None else "int32"
    inputs = jax.ShapeDtypeStruct((1, *shape), dtype)
    boxed = jax.eval_shape(lambda inputs: module.init(jax.random.key(0), inputs), inputs)
    return nn.meta.unbox(boxed)
