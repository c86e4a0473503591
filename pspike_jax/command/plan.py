"""What a run would take, before it is paid for: no step is computed, no array of it is made.

The training step is compiled for a mesh of virtual CPU devices, in a process of its own that has as
many of them; what the compiler says of memory holds for the CPU, and is an estimate for other
devices. A compiler counts the body of a loop once, and steps and layers are loops here: the work of
a step is what the model counts in `aux["macs"]`.
"""

import collections
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pspike_jax.command.experiment import build
from pspike_jax.data.batches import Task, num_rows
from pspike_jax.functional.engine import Engine
from pspike_jax.training.checkpoints import LEAVES
from pspike_jax.training.creation import abstract_batch, state_shapes, threefry_key
from pspike_jax.training.settings import TrainSettings
from pspike_jax.training.sharding import check_batch_size, check_length
from pspike_jax.training.state import TrainState, call_options, compile_train_step, leaf_paths

PLATFORMS = ("cpu", "cuda", "tpu")  # where engines are looked up
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def plan_in_subprocess(config: Mapping[str, Any], devices: int | None) -> int:
    """Print the plan of a config.

    Args:
      config: as `pspike_jax.command.experiment.build` takes it.
      devices: how many there will be; None takes as many as the config's mesh names.

    Returns:
      The status to exit with; where it is not 0, the message is already printed.
    """
    if devices is None:
        devices = math.prod(size or 1 for size in config["mesh"].values())
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    program = [sys.executable, "-m", "pspike_jax.command.plan"]
    return subprocess.run(program, input=json.dumps(config), text=True, env=environment).returncode


def plan(model: nn.Module, task: Task, settings: TrainSettings, mesh: Mesh) -> str:
    """Describe a run.

    Args:
      model: the model.
      task: gives shapes and sizes.
      settings: of the run.
      mesh: the devices.

    Returns:
      A text: parameters and their shardings, memory of each device, work and traffic of a step,
      engines, steps of an epoch, size of a checkpoint.

    Raises:
      ValueError: model, task, settings and mesh do not fit each other.
    """
    check_batch_size(settings.batch_size, mesh, "batch_size")
    check_length(task.train, mesh)
    state = state_shapes(model, task, settings, mesh)
    traced = compile_train_step(state, mesh).trace(state, abstract_batch(task, settings, mesh))
    compiled = traced.lower().compile()
    examples = num_rows(task.train)
    steps = examples // settings.batch_size
    saved = sum(_bytes(leaf) for name in LEAVES for leaf in jax.tree.leaves(getattr(state, name)))
    axes = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    lines = [
        f"mesh: {axes}; {mesh.size} devices",
        "",
        *_parameters(state),
        "",
        *_program(compiled),
        *_work(forward_macs(state, task, settings, mesh), compiled),
        "",
        f"engine: {getattr(getattr(model, 'config', model), 'engine', 'none')}; {_engines(traced)}",
        f"steps: {settings.steps}, {steps} an epoch of {examples} examples in batches of "
        f"{settings.batch_size}: {settings.steps / max(1, steps):.1f} epochs",
        f"checkpoint: {_size(saved)}; on disk at most {settings.keep + settings.keep_best + 1}: "
        f"{_size(saved * (settings.keep + settings.keep_best + 1))}",
    ]
    return "\n".join(lines)


def forward_macs(
    state: TrainState, task: Task, settings: TrainSettings, mesh: Mesh
) -> dict[str, float]:
    """Count the operations of a forward pass over a batch of examples of full length.

    That is the model's `aux["macs"]`, and "synapses", the products that spikes are multiplied in: a
    device computes them whether a neuron fires or not. Empty where the model counts nothing.
    """
    batch = abstract_batch(task, settings, mesh)
    length = batch["inputs"].shape[batch["lengths"].ndim]

    # Counts need no parameters: what makes and uses these is not part of the program.
    @jax.jit
    def count():
        variables, arrays = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (state.variables, batch)
        )
        lengths = jnp.full(batch["lengths"].shape, length, jnp.int32)
        _, aux = state.model.apply(
            variables, arrays["inputs"], lengths, **call_options(arrays),
            rngs={"spikes": threefry_key(0)},
        )
        sites = aux.get("sites", {}).values()
        synapses = [jnp.sum(one["steps"] * one["neurons"] * one["fan_out"]) for one in sites]
        return aux.get("macs", {}) | ({"synapses": sum(synapses)} if synapses else {})

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return {name: float(value) for name, value in jax.device_get(count()).items()}


def _parameters(state: TrainState) -> list[str]:
    leaves = jax.tree.leaves(state.params)
    rows = [
        (path, str(leaf.shape), str(leaf.dtype), str(leaf.sharding.spec), _size(_local(leaf)))
        for path, leaf in zip(leaf_paths(state.params), leaves)
    ]
    rows.insert(0, ("parameter", "shape", "dtype", "split over", "on a device"))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    table = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
    count = sum(math.prod(leaf.shape) for leaf in leaves)
    whole = {
        name: sum(_local(leaf) for leaf in jax.tree.leaves(getattr(state, name)))
        for name in ("params", "opt_state", "batch_stats")
    }
    return [
        *table,
        f"{count:,} parameters; on a device: parameters {_size(whole['params'])}, optimizer "
        f"{_size(whole['opt_state'])}, batch statistics {_size(whole['batch_stats'])}",
    ]


def _program(compiled: Any) -> list[str]:
    memory = compiled.memory_analysis()
    calls = collections.Counter(
        re.findall(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(", compiled.as_text())
    )
    traffic = ", ".join(f"{count} {name}" for name, count in sorted(calls.items()))
    return [
        f"memory of a device in a step: {_size(device_memory(compiled))}: state and batch "
        f"{_size(memory.argument_size_in_bytes)}, values in between "
        f"{_size(memory.temp_size_in_bytes)}, results that take no other's place "
        f"{_size(memory.output_size_in_bytes - memory.alias_size_in_bytes)}",
        f"calls between devices in the program: {traffic or 'none'}",
    ]


def device_memory(compiled: Any) -> int:
    """Return the bytes that each device needs to run a compiled program."""
    memory = compiled.memory_analysis()
    total = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return total + memory.output_size_in_bytes - memory.alias_size_in_bytes


def _work(macs: dict[str, float], compiled: Any) -> list[str]:
    parts = ", ".join(f"{name} {value:.3g}" for name, value in macs.items())
    counted = compiled.cost_analysis() or {}
    found = {name: counted.get(name, math.nan) for name in ("flops", "bytes accessed")}
    return [
        f"work of a forward pass, all devices together, full length: {sum(macs.values()):.3g} "
        f"multiply-accumulates: {parts}; a training step takes about three times that, and four "
        "where it computes a pass again" if macs else "work: the model does not count it",
        f"the compiler counts, on each device and the body of each loop once: "
        f"{found['flops']:.3g} operations, {_size(found['bytes accessed'])} read and written",
    ]


def _engines(traced: Any) -> str:
    """Return the engines that a program has, by platform; lowering needs no such device."""
    found = []
    for platform in PLATFORMS:
        text = traced.lower(lowering_platforms=(platform,)).as_text(debug_info=True)
        names = [engine.value for engine in Engine if engine.scope in text]
        found.append(f"on {platform} {', '.join(names) or 'none'}")
    return "; ".join(found)


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _local(leaf: jax.ShapeDtypeStruct) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _size(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    power = min(3, int(math.log(count, 1024))) if count >= 1 else 0  # of NaN, too
    return f"{count / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def main() -> None:
    """Read a config as JSON from standard input; print its plan."""
    try:
        experiment = build(json.load(sys.stdin))
        said = plan(experiment.model, experiment.task, experiment.training, experiment.mesh)
    except (OSError, TypeError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{said}\n\nmade for {jax.device_count()} virtual CPU devices: others' numbers differ")


if __name__ == "__main__":
    main()
