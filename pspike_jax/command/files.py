"""Files that commands read: configs, by path or by name, and what runs leave."""

import importlib.util
import json
import pathlib
from types import ModuleType
from typing import Any

CONFIGS = pathlib.Path(__file__).parent / "configs"  # those that come with the package


def read_json(path: pathlib.Path) -> Any:
    """Read a file of a run.

    Args:
      path: config.json, evaluation.json or report.json of a workdir.

    Returns:
      Its content.

    Raises:
      FileNotFoundError: there is no such run, or it is not finished.
    """
    if not path.exists():
        state = "is not finished" if path.with_name("config.json").exists() else "is no run"
        raise FileNotFoundError(f"{path.parent} {state}: {path.name} is missing")
    return json.loads(path.read_text())


def config_names(folder: pathlib.Path = CONFIGS) -> list[str]:
    """Return the names of the configs in a folder."""
    hidden = ("_", "shared")
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith(hidden))


def import_config(path: str) -> ModuleType:
    """Import a config file.

    Args:
      path: of the file, or the name of one that comes with the package.

    Returns:
      The module, with its `get_config`.

    Raises:
      FileNotFoundError: there is no such file.
    """
    place = pathlib.Path(path)
    if not place.exists() and path in config_names():
        place = CONFIGS / f"{path}.py"
    if not place.is_file():
        raise FileNotFoundError(
            f"no config {path!r}: expected a file, or one of {', '.join(config_names())}"
        )
    spec = importlib.util.spec_from_file_location(place.stem, place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_config(path: str, variant: str) -> Any:
    """Call the `get_config` of a config file.

    Args:
      path: of the file.
      variant: what stands behind the file's name and a colon; "" for nothing.

    Returns:
      The config; a file of one's own need not have variants.
    """
    get_config = import_config(path).get_config
    return get_config(variant) if variant else get_config()
