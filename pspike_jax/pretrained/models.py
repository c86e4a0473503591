"""From the name of a pretrained model to a module, its variables and its card."""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from pspike_jax.data.untrusted import MOST_BYTES, inside, list_files, read_bytes, read_json
from pspike_jax.export.cards import abstract_variables
from pspike_jax.models import create_model
from pspike_jax.models.limits import check_sizes
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.pretrained.weights import most_bytes, read_weights

FOLDER = pathlib.Path(__file__).parent
# A model of this prefix is fetched from a hub, by the package huggingface_hub.
HUB = "hf://"
SAVED = "model.safetensors"  # in the folders of `export.save`


def list_pretrained(folder: str | os.PathLike | None = None) -> tuple[str, ...]:
    """Return the names that `load_pretrained` knows.

    Args:
      folder: of cards and weights, or of folders that `export.save` has written; None for those
        that come with the package.
    """
    folder = folder or FOLDER
    cards = [name.removesuffix(".json") for name in list_files(folder, ".json")]
    weights = pathlib.Path(folder).glob(f"*/{SAVED}")
    saved = [path.parent.name for path in weights if not path.parent.is_symlink()]
    return tuple(sorted({*cards, *saved}))


def load_pretrained(
    name: str | os.PathLike, folder: str | os.PathLike | None = None
) -> tuple[SequenceModel, dict[str, Any], dict[str, Any]]:
    """Load a trained model, of either format: arrays in .npz with a card, or safetensors.

    Args:
      name: one of `list_pretrained(folder)`; or a folder that `export.save` has written; or
        "hf://OWNER/NAME" or "hf://OWNER/NAME@REVISION" for one that the package huggingface_hub
        fetches, which is imported for it alone.
      folder: of cards and weights; None for those that come with the package.

    Returns:
      module: `module.apply(variables, inputs, rngs={"spikes": key})` gives (logits, aux).
      variables: its parameters and statistics.
      card: what it was trained on and how, under which licence the data are, what was measured,
        and what it cannot do; JSON types.

    Raises:
      ImportError: safetensors or huggingface_hub is needed and not there.
      ValueError: nobody knows the name; the card or the weights are damaged, or of more than 1 GiB;
        the card names files outside its folder; or they do not fit each other, naming every array
        that does not.
    """
    name = os.fspath(name)
    if folder is None and name.startswith(HUB):
        return _load_saved(_fetch(name))
    saved = pathlib.Path(name) if folder is None else inside(folder, name)
    comes_with_it = folder is None and (FOLDER / f"{name}.json").is_file()
    if is_saved(saved) and not comes_with_it:
        return _load_saved(saved)
    folder = pathlib.Path(folder or FOLDER)
    known = list_pretrained(folder)
    if name not in known:
        raise ValueError(
            f"unknown pretrained model {name!r}, expected one of {list(known)}, a folder that "
            f"`export.save` has written, or {HUB}OWNER/NAME"
        )
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


def is_saved(folder: str | os.PathLike) -> bool:
    """Tell whether a folder holds what `export.save` writes."""
    return (pathlib.Path(folder) / SAVED).is_file()


def _load_saved(
    folder: str | os.PathLike,
) -> tuple[SequenceModel, dict[str, Any], dict[str, Any]]:
    """Load a folder of `export.save`; its config.json is the card."""
    from pspike_jax.export.cards import CONFIG, load  # safetensors is an extra

    return *load(folder), read_json(pathlib.Path(folder) / CONFIG)


def _fetch(name: str) -> str:
    """Fetch a model from a hub; return its folder."""
    place, _, revision = name.removeprefix(HUB).partition("@")
    if place.count("/") != 1 or not all(place.split("/")):
        raise ValueError(f"{name!r} is no {HUB}OWNER/NAME")
    from huggingface_hub import snapshot_download

    return snapshot_download(
        place, revision=revision or None, allow_patterns=["*.json", "*.safetensors", "*.md"]
    )


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
        check_sizes(model["fields"], card["input"]["shape"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not the card of a model: {error!r}") from error
    return card


def make_module(entry: Mapping[str, Any]) -> SequenceModel:
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
