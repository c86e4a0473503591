"""From the name of a pretrained model to a module, its variables and its card."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from pspike_jax.models import create_model
from pspike_jax.pretrained.weights import read_weights

FOLDER = pathlib.Path(__file__).parent


def list_pretrained(folder: str | os.PathLike | None = None) -> tuple[str, ...]:
    """Return the names that `load_pretrained` knows.

    Args:
      folder: of cards and weights; None for those that come with the package.
    """
    return tuple(sorted(path.stem for path in pathlib.Path(folder or FOLDER).glob("*.json")))


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
      ValueError: nobody knows the name; the card or the weights are damaged; or they do not fit
        each other, naming every array that does not.
    """
    folder = pathlib.Path(folder or FOLDER)
    known = list_pretrained(folder)
    if name not in known:
        raise ValueError(f"unknown pretrained model {name!r}, expected one of {list(known)}")
    card = read_card(folder / f"{name}.json")
    path = folder / card["weights"]["file"]
    module = make_module(card["model"])
    like = abstract_variables(module, card["input"]["shape"])
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
    if found != card["weights"]["sha256"]:
        raise ValueError(
            f"{path}: sha256 {found}, the card says {card['weights']['sha256']}: cut short, or "
            "not the weights of this card"
        )
    return module, read_weights(path, like), card


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
        card = json.loads(path.read_text())
        card["weights"]["file"], card["weights"]["sha256"]
        card["model"]["name"], card["model"]["preset"], card["model"]["fields"]
        card["input"]["shape"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not the card of a model: {error!r}") from error
    return card


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
    dtype = "float32" if module.vocab_size is None else "int32"
    inputs = jax.ShapeDtypeStruct((1, *shape), dtype)
    return jax.eval_shape(lambda inputs: module.init(jax.random.key(0), inputs), inputs)
