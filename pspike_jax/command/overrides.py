"""A config file, and what the command line changes of it: --config.SECTION.KEY=VALUE.

Every key of the file can be changed, and every key that the file does not list but its section
knows: fields of the model, for instance. Values are Python's literals, or else text; None empties
what may be empty.
"""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from pspike_jax.command.experiment import check_keys
from pspike_jax.command.files import make_config

PREFIX = "--config."
_WORDS = {"true": True, "false": False, "none": None}


def read(config_file: str, changes: Sequence[str]) -> dict[str, Any]:
    """Read a config file and change it.

    Args:
      config_file: its path, with :VARIANT after its name for a variant.
      changes: as on the command line.

    Returns:
      The config, for `experiment.build`, which refuses keys that no section knows.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: no such variant, or a change cannot be read.
    """
    path, _, variant = config_file.partition(":")
    config = make_config(path, variant)
    plain = config.to_dict() if hasattr(config, "to_dict") else {
        section: dict(fields) for section, fields in config.items()
    }
    for change in changes:
        key, equals, text = change.removeprefix(PREFIX).partition("=")
        section, dot, name = key.partition(".")
        if not (equals and dot and name):
            raise ValueError(f"{change} is no change: write {PREFIX}SECTION.KEY=VALUE")
        check_keys([section], plain, (), "config")
        plain[section][name] = _value(config[section], name, text, key)
    return plain


def _kind(section: Mapping[str, Any], name: str) -> tuple[type, bool]:
    """Return the type of a key, and whether it may be empty.

    A ConfigDict, which is not imported here, knows placeholders: empty keys of a type.
    """
    if not hasattr(section, "get_type"):
        return type(section[name]), section[name] is None
    field = dict(section.items(preserve_field_references=True))[name]
    return section.get_type(name), field is None or hasattr(field, "get_type")


def _value(section: Mapping[str, Any], name: str, text: str, key: str) -> Any:
    """Return what a text says, as the type that the config has there."""
    found = literal(text)
    if name not in section:
        return found
    kind, optional = _kind(section, name)
    if optional and (found is None or kind is type(None)):
        return found
    if kind is str:
        return text
    if kind is float and type(found) is int:
        return float(found)
    if kind is tuple and isinstance(found, list):
        return tuple(found)
    if type(found) is not kind:
        empty = " or None" if optional else ""
        raise ValueError(f"config.{key} is {text!r}, expected {kind.__name__}{empty}")
    return found


def literal(text: str) -> Any:
    """Return the value of a literal, or the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
