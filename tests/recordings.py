"""Replay a recorded file: compute, with the package, what the authors' program gave.

`replay(arrays)` takes the arrays of a file without its results (meta, parameters, inputs, noise,
initial states, targets, loss weights) and returns the results under the keys of the file.
"""

import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import replays

Arrays = Mapping[str, np.ndarray]
# Parts of a key that make it a result, in every file and in some kinds of files.
RESULTS = {"output", "spikes", "grad", "grad_input"}
MORE_RESULTS = {
    "exact spikes": {"soft", "hard", "refractory"},
    "pendulum": {"spike_times"},
    "dLDS": {"inv", "inv_smooth", "gradient", "updated"},
    "Mamba-FSCIL": {"losses"},
    "NPSEM": {"steps"},
}


def replay(arrays: Arrays) -> dict[str, np.ndarray]:
    """Compute the results of a recorded file.

    Args:
      arrays: those of the file, results or not: results are not read.

    Returns:
      Results under the keys of the file.

    Raises:
      ValueError: nothing here computes files of this kind.
    """
    system = system_of(arrays)
    known = systems()
    fitting = [name for name in known if system.startswith(name)]
    if not fitting:
        raise ValueError(f"no replay for {system!r}; expected one of {sorted(known)}")
    given = {key: value for key, value in arrays.items() if not is_result(key, system)}
    return known[max(fitting, key=len)](given)


def system_of(arrays: Arrays) -> str:
    """Return the kind of a file: `meta.system`, or what its keys say where it has none."""
    meta = meta_of(arrays)
    if "system" in meta:
        return meta["system"]
    names = [key.removeprefix("param/") for key in arrays if key.startswith("param/")]
    if meta.get("neuron") == "sdn":
        return "spikingssm"
    if any(name.startswith("snn.") for name in names):
        return "silif"
    if any(name.startswith("layers.") for name in names):
        return "pspikessm"
    return "s4d" if "kernel.log_dt" in names else "sdn"


def meta_of(arrays: Arrays) -> dict[str, Any]:
    """Return the settings of a file."""
    return json.loads(str(arrays["meta"])) if "meta" in arrays else {}


def is_result(key: str, system: str) -> bool:
    """Return whether a key of a file is a result, not something given."""
    more = [parts for name, parts in MORE_RESULTS.items() if system.startswith(name)]
    return bool(set(key.split("/")) & RESULTS.union(*more))


def under(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """Return the entries whose keys start with a prefix, without it."""
    return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}


def systems() -> dict[str, Callable[[Arrays], dict[str, np.ndarray]]]:
    """Return {how a system's name begins: function}, of all modules in `replays`."""
    found = {}
    for module in pkgutil.iter_modules(replays.__path__):
        found |= importlib.import_module(f"replays.{module.name}").SYSTEMS
    return found
