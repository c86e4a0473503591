"""Times of the engines on this device, kept in the user's cache."""

import json
import os
import pathlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional import linear_ssm
from pspike_jax.functional.engine import PLATFORMS
from pspike_jax.functional.engine_choice import user_table

# (B, L, H, N): what a layer of a small and of a usual model is.
SHAPES = ((8, 64, 64, 8), (8, 1024, 64, 8), (8, 2048, 128, 8), (4, 8192, 64, 8))
MOST_SCANNED = 2**23  # B L H N beyond which scans keep gigabytes
BUDGET_S = 60.0
ROUNDS = 5


def measure() -> list[dict[str, Any]]:
    """Time every engine, forward and backward, at each of `SHAPES` while the budget lasts.

    Returns:
      Rows as engine_table.json has them.
    """
    rows, start = [], time.perf_counter()
    for shape in SHAPES:
        if time.perf_counter() - start > BUDGET_S:
            break
        rows.append(_row(*shape))
    return rows


def _row(batch: int, length: int, features: int, state: int) -> dict[str, Any]:
    engines = ["chunked", "fft"]
    if batch * length * features * state <= MOST_SCANNED:
        engines += ["associative", "sequential"]
    programs = {engine: _program(engine, batch, length, features, state) for engine in engines}
    seconds: dict[str, list[float]] = {engine: [] for engine in engines}
    for _ in range(ROUNDS):  # in turns, so that what else the machine does strikes all alike
        for engine, (program, arguments) in programs.items():
            begin = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            seconds[engine].append(time.perf_counter() - begin)
    return {
        "platform": PLATFORMS.get(jax.default_backend(), jax.default_backend()),
        "batch": batch,
        "length": length,
        "features": features,
        "state": state,
        "shared": False,
        "two_sided": False,
        "state_wanted": False,
        "seconds": {engine: statistics.median(times) for engine, times in seconds.items()},
        "measured": True,
    }


def _program(engine, batch, length, features, state):
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, (features, state))
    Lambda = jnp.asarray(0.98 * np.exp(1j * angle), jnp.complex64)
    C = jnp.asarray(rng.normal(size=(features, state)), jnp.complex64)
    u = jnp.asarray(rng.normal(size=(batch, length, features)), jnp.float32)

    def loss(u, Lambda, C):
        return jnp.sum(linear_ssm(u, Lambda, jnp.ones_like(Lambda), C, engine=engine)[0] ** 2)

    program = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    jax.block_until_ready(program(u, Lambda, C))
    return program, (u, Lambda, C)


def write(rows: list[dict[str, Any]]) -> pathlib.Path:
    """Write rows where `auto` looks for those of this device, whole or not at all."""
    path = user_table()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(json.dumps(rows, indent=1), "utf-8")
    part.replace(path)
    return path
