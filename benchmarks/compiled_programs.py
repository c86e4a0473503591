"""The programs that `benchmarks.compiled` compiles: engines, and training steps of presets."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import pspike_jax
from pspike_jax import objectives
from pspike_jax.data import Split, Task
from pspike_jax.functional import gated_recurrence, linear_ssm, selective_recurrence
from pspike_jax.nn.mixers import DPLRSSM, OscillatorSSM
from pspike_jax.training import TrainSettings
from pspike_jax.training.creation import abstract_batch, state_shapes
from pspike_jax.training.sharding import batch_sharding, replicated
from pspike_jax.training.state import compile_train_step

# B, L, H, N: a layer of a usual model, a longer and a wider one, the quickstart's, short ones.
SHAPES = (
    (8, 2048, 128, 8),
    (8, 2048, 128, 32),
    (16, 784, 400, 32),
    (1, 16_384, 64, 32),
    (32, 64, 128, 8),
    (8, 8, 128, 8),
    (8, 1, 128, 8),
)
USUAL = SHAPES[0]
MOST_SCANNED = 4e7  # B L H N beyond which scans would keep gigabytes
ENGINES = ("chunked", "fft", "associative", "sequential")
SCANS = ("associative", "sequential")


class Case(NamedTuple):
    """A program to compile.

    Attributes:
      name: of the program.
      setting: what a record says of it.
      trace: from a mesh to what `lower()` and `compile()` make of it.
      devices: numbers of devices that it is compiled for.
    """

    name: str
    setting: dict[str, Any]
    trace: Callable[[Mesh], Any]
    devices: tuple[int, ...] = (1,)


def engines() -> Iterator[Case]:
    """Yield every engine of every recurrence, forward and backward."""
    for batch, length, features, state in SHAPES:
        for engine in ENGINES:
            if engine in SCANS and batch * length * features * state > MOST_SCANNED:
                continue
            setting = _sizes("linear_ssm", engine, batch, length, features, state)
            devices = (1, 4) if (batch, length, features, state) == USUAL else (1,)
            yield _engine(setting, functools.partial(_diagonal, engine), devices)
    for engine in ("chunked", "fft"):
        yield _engine(_sizes("dplr", engine, *USUAL), functools.partial(_dplr, engine))
    for engine in ("chunked", *SCANS):
        yield _engine(_sizes("oscillator", engine, *USUAL), functools.partial(_oscillator, engine))
        yield _engine(_sizes("selective", engine, *USUAL), functools.partial(_selective, engine))
        yield _engine(_sizes("gated", engine, *USUAL), functools.partial(_gated, engine))


def _sizes(recurrence, engine, batch, length, features, state):
    sizes = {"batch": batch, "length": length, "features": features, "state": state}
    return {"recurrence": recurrence, "engine": engine} | sizes


def _engine(setting, make, devices=(1,)):
    name = f"{setting['recurrence']} {setting['engine']}"
    sizes = [setting[key] for key in ("batch", "length", "features", "state")]

    def trace(mesh):
        function, sequences, parameters = make(*sizes)

        def loss(sequences, parameters):
            return jnp.sum(jnp.square(function(*sequences, *parameters)))

        # Sequences are split over devices, parameters are on each.
        place = lambda sharding: lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        )
        given = jax.tree.map(place(batch_sharding(mesh)), sequences)
        shared = jax.tree.map(place(replicated(mesh)), parameters)
        return jax.jit(jax.grad(loss, argnums=(0, 1))).trace(given, shared)

    return Case(name, {"kind": "engine"} | setting, trace, devices)


def _array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def _diagonal(engine, B, L, H, N):
    system = (_array(H, N, dtype=jnp.complex64),) * 3
    run = lambda u, *system: linear_ssm(u, *system, engine=engine)[0]
    return run, (_array(B, L, H),), system


def _of_module(module, B, L, H):
    u = _array(B, L, H)
    shapes = jax.eval_shape(module.init, jax.random.key(0), u)
    params = nn.meta.unbox(shapes["params"])
    return lambda u, params: module.apply({"params": params}, u)[0], (u,), (params,)


def _dplr(engine, B, L, H, N):
    how = {"shared": False, "two_sided": True, "skip": True, "dt_min": 1e-3, "dt_max": 0.1}
    return _of_module(DPLRSSM(H, 2 * N, length=L, engine=engine, **how), B, L, H)


def _oscillator(engine, B, L, H, N):
    return _of_module(OscillatorSSM(H, N, engine=engine), B, L, H)


def _selective(engine, B, L, H, N):
    run = lambda x, dt, b, c, A: selective_recurrence(x, dt, A, b, c, engine=engine)[0]
    wide, narrow = _array(B, L, H), _array(B, L, N)
    return run, (wide, wide, narrow, narrow), (_array(H, N),)


def _gated(engine, B, L, H, N):
    run = lambda x, b, c, decay: gated_recurrence(x, b, c, decay, engine=engine)[0]
    heads = max(1, H // 64)
    rows = _array(B, L, heads, N)
    return run, (_array(B, L, heads, H // heads), rows, rows, _array(B, L, heads)), ()


# (model, preset, fields in place of the preset's, batch, length, inputs of a step where these are
# numbers); lengths are those of the task where it has one, or some hundreds.
STEPS = (
    ("pspikessm", "official", {}, 8, 2048, None),
    ("pspikessm", "paper", {}, 8, 2048, 1),
    ("pspikessm", "paper", {"d_model": 400, "d_state": 64, "n_layers": 2}, 16, 784, 1),
    ("lif_ssm", "paper", {}, 8, 784, 1),
    ("s4d", "s4d", {}, 8, 2048, 1),
    ("silif", "paper", {}, 32, 250, 140),
    ("csilif", "paper_ssc", {}, 32, 250, 140),
    ("s5", "listops", {}, 8, 2048, None),
    ("s5rf", "shd", {}, 16, 250, 140),
    ("linoss", "eigenworms", {}, 4, 2048, 6),
    ("dlinoss", "dlinoss", {}, 8, 784, 1),
    ("event_ssm", "shd_tiny", {}, 8, 512, None),
    ("prf", "listops", {}, 8, 2048, None),
    ("pmsn", "psmnist", {}, 16, 784, 1),
    ("binary_s4d", None, {}, 8, 784, None),
    ("gsu_s4d", None, {}, 8, 784, None),
    ("spikingssm", None, {}, 8, 784, 1),
    ("longspike", None, {}, 8, 784, 1),
    ("spike_ssm", "default", {}, 8, 784, 1),
    ("mamba", "classifier", {}, 8, 1024, 1),
    ("mamba2", "classifier", {}, 8, 1024, 1),
    ("gla", "classifier", {}, 8, 1024, 1),
    ("psm", "classifier", {}, 8, 1024, 1),
    ("seqboat", "listops", {}, 8, 2048, None),
    ("fsnn", "default", {}, 8, 128, 8),
    ("pendulum", "default", {}, 8, 256, 8),
)


def steps() -> Iterator[Case]:
    """Yield the training steps."""
    for name, preset, fields, batch, length, inputs in STEPS:
        preset = preset or next(iter(pspike_jax.describe_model(name).presets))
        model = pspike_jax.create_model(name, preset, **fields)
        setting = {"kind": "step", "model": name, "preset": preset}
        setting |= {"batch": batch, "length": length}
        if fields:
            setting["fields"] = fields
        trace = functools.partial(trace_step, model, batch, length, inputs or 1)
        yield Case(f"step {name} {preset}", setting, trace, (1, 4))


def trace_step(model: Any, batch: int, length: int, inputs: int, mesh: Mesh) -> Any:
    """Trace a training step of a model for a mesh, AdamW included."""
    task = make_task(model, batch, length, inputs)
    settings = TrainSettings(steps=100, batch_size=batch)
    state = state_shapes(model, task, settings, mesh)
    return compile_train_step(state, mesh).trace(state, abstract_batch(task, settings, mesh))


def make_task(model: Any, batch: int, length: int, inputs: int) -> Task:
    """Return a task of one batch of zeros that fits a model."""
    config = model.config
    rows = (batch, 2) if config.documents == 2 else (batch,)
    lengths = np.full(rows, length, np.int32)
    if config.vocab_size is None:
        values = np.zeros((*rows, length, inputs), np.float32)
    else:
        values = np.zeros((*rows, length), np.int32)
    if config.pool == "none":
        objective, targets = objectives.NextToken(config.vocab_size), None
    else:
        objective = objectives.Classification(config.num_outputs)
        targets = np.arange(batch) % config.num_outputs
    split = Split(values, lengths, targets)
    return Task("compiled", split, None, None, objective, config.vocab_size)
