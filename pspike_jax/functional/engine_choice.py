"""Which engine `auto` runs: the fastest at the nearest shape of a measured table.

What `python -m pspike_jax.check` measured on this device comes first, in the user's cache. Else
engine_table.json holds a row for each shape: seconds of each engine, forward and backward, written
by `python -m benchmarks.ssm_engines --table` on the machine at hand; or, for platforms that nobody
measured yet, an estimate, marked as such: programs were compiled for them, and the seconds follow
from what these move, compute and start (`python -m benchmarks.compiled --table`).
"""

import functools
import importlib.resources
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax

from pspike_jax.functional.engine import PLATFORMS, Engine
from pspike_jax.functional.gated.choice import explain_gated_engine

MARGIN = 1.08
RECURRENCES = ("time_invariant", "selective", "gated")
_FLAGS = ("shared", "two_sided", "state_wanted")


def user_cache() -> pathlib.Path:
    """Return the folder of what this package keeps for a user, which may not exist.

    It is PSPIKE_JAX_CACHE, or XDG_CACHE_HOME/pspike_jax, or ~/.cache/pspike_jax.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("PSPIKE_JAX_CACHE") or pathlib.Path(cache) / "pspike_jax")


def user_table() -> pathlib.Path:
    """Return where `python -m pspike_jax.check` keeps the table of this machine's device."""
    kind = re.sub(r"[^A-Za-z0-9]+", "_", jax.devices()[0].device_kind)
    return user_cache() / f"engines_{jax.default_backend()}_{kind}.json"


@functools.cache
def _table() -> dict[str, list[dict[str, Any]]]:
    """Return rows by platform: those that come with the package, or this device's own."""
    text = importlib.resources.files(__package__).joinpath("engine_table.json").read_text("utf-8")
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(text):
        rows.setdefault(row["platform"], []).append(row)
    try:
        own = json.loads(user_table().read_text("utf-8"))
        return rows | {own[0]["platform"]: own} if all(map(_is_row, own)) else rows
    except (OSError, ValueError, LookupError, TypeError):  # none, or not one of ours
        return rows


def _is_row(row: dict[str, Any]) -> bool:
    sizes = all(row[name] >= 1 for name in ("length", "features", "state", "batch"))
    known = {engine.value for engine in Engine}
    return (
        sizes and row["measured"] is True and bool(row["seconds"]) and set(row["seconds"]) <= known
    )


def nearest_row(
    platform: str, length: int, features: int, state: int, batch: int, **flags: bool
) -> dict[str, Any]:
    """Return the row of the table that decides; arguments as in `explain_engine`."""
    sizes = {"length": length, "features": features, "state": state, "batch": batch}

    def distance(row):
        steps = sum(abs(math.log2(row[name] / size)) for name, size in sizes.items())
        return sum(row[flag] != flags[flag] for flag in _FLAGS), steps

    return min(_table()[platform], key=distance)


def choose_engine(
    platform: str, length: int, features: int, state: int, batch: int, **flags: bool
) -> Engine:
    """Return the engine that `auto` runs; arguments as in `explain_engine`."""
    return _fastest(nearest_row(platform, length, features, state, batch, **flags))


def _fastest(row):
    return fastest(row["seconds"]) if row["measured"] else Engine(row["engine"])


def fastest(seconds: Mapping[str, float]) -> Engine:
    """Return the engine of the least time, or the chunked one where that is about as fast.

    Args:
      seconds: of each engine by name, forward and backward; at least one.
    """
    least = min(seconds, key=seconds.get)
    # About where they draw level the chunked engine is preferred: it needs less memory, and its
    # forward pass alone, which the table does not have, is the faster one.
    chunked = seconds.get(Engine.CHUNKED.value, math.inf) <= MARGIN * seconds[least]
    return Engine.CHUNKED if chunked else Engine(least)


def explain_engine(
    length: int,
    features: int,
    state: int,
    *,
    batch: int = 1,
    shared: bool = False,
    two_sided: bool = False,
    state_wanted: bool = False,
    recurrence: str = "time_invariant",
    platform: str | None = None,
) -> str:
    """Say which engine `auto` runs, and why.

    Args:
      length: L, at least 1.
      features: H, at least 1.
      state: N, stored complex states of a feature, at least 1.
      batch: examples, at least 1.
      shared: features share Lambda_bar.
      two_sided: C is (2, H, N).
      state_wanted: an initial state is given.
      recurrence: "time_invariant" for `linear_ssm`, "selective" or "gated" for the recurrences
        of these names, where L alone decides.
      platform: "cpu", "gpu" or "tpu"; the default backend's if None.

    Returns:
      A sentence that names the engine and the row of the table, or the rule, that decides.

    Raises:
      ValueError: sizes below 1, a recurrence that is none of these, or a platform that the
        table does not have.
    """
    sizes = {"length": length, "features": features, "state": state, "batch": batch}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be 1 or more, got {size}")
    if platform is None:
        platform = PLATFORMS.get(jax.default_backend(), jax.default_backend())
    if recurrence not in RECURRENCES:
        raise ValueError(f"recurrence must be one of {RECURRENCES}, not {recurrence!r}")
    if recurrence != RECURRENCES[0]:
        return explain_gated_engine(platform, length)
    if platform not in _table():
        raise ValueError(f"platform {platform!r} has no rows; the table has {sorted(_table())}")
    flags = {"shared": shared, "two_sided": two_sided, "state_wanted": state_wanted}
    row = nearest_row(platform, **sizes, **flags)
    engine = _fastest(row).value
    seconds = row["seconds"] if row["measured"] else row.get("estimated_seconds", {})
    order = sorted(seconds.items(), key=lambda item: item[1])
    times = ", ".join(f"{name} {1e3 * each:.3g} ms" for name, each in order)
    marks = "".join(f", {flag}" for flag in _FLAGS if row[flag])
    shape = (
        f"L {row['length']}, H {row['features']}, N {row['state']}, batch {row['batch']}{marks} "
        f"({times or 'no times'}; forward and backward)"
    )
    if not row["measured"]:
        return (
            f"{engine}: an estimate for {platform}, not a measurement, at the nearest shape of the "
            f"table, {shape}: {row.get('note', 'a guess')}; on such a machine run "
            "python -m pspike_jax.check"
        )
    rank = f"the fastest (within 8 %) on {platform} at the nearest measured shape"
    return f"{engine}: {rank}, {shape}"
