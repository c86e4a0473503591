"""Time, memory and compile time of whole training steps.

  python -m benchmarks.train_step

A step is loss, gradient and Adam, drawing its own noise. `official` is the released program's
ListOps model (B 8, L 2048, H 128, N 16, 4 layers, two branches, batch norm) against the same model
in plain JAX, and with 12 layers for its compile time. `psmnist` is the paper's shape (B 16, L 784,
H 400, N 64, 2 layers): P-SpikeSSM against a plain one, and against LIF neurons in the place of its
samplers, behind a parallel SSM or with SSM and neurons both stepped in time. Before anything is
timed, losses and gradients for given noise have to agree.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

import pspike_jax
from benchmarks import plain, timing
from pspike_jax.analysis.canvas import GREY, PALETTE, WIDTH
from pspike_jax.functional import linear_ssm
from pspike_jax.objectives.classification import cross_entropy
from pspike_jax.training import make_mesh

OPTIMIZER = optax.adam(1e-3)
CLASSES, TOKENS = 10, 18
EVERY_CORE = "pspike_jax, a device a core"
REMATS = ("none", "block")  # settings that are timed beside the default

# Of losses and gradients for one noise, relative to the largest entry of each array. One spike on a
# tie (see benchmarks/ties.py) moves entries by 1e-3 to 1e-2, so few examples are run, up to DRAWS
# times with other noise or, for neurons without noise, other inputs; one of them, without a tie,
# has to agree to rounding.
TOLERANCE = 1e-3
EXAMPLES, DRAWS = 2, 8

Logits = Callable[..., jax.Array]  # (params, inputs, key or arrays of noise) -> (B, classes)


def plain_logits(name: str, kernel_length: int, ssm=plain.fft_ssm) -> Logits:
    """Return the plain program of a preset; `ssm` evaluates the state spaces of "paper"."""

    def logits(params, inputs, noise):
        if isinstance(noise, tuple):
            uniforms = lambda layer, sampler: noise[layer][sampler]
        else:
            features = params["head"]["linear"]["kernel"].shape[0]
            uniforms = plain.bulk_uniforms(noise, *inputs.shape[:2], features)
        if name == "official":
            return plain.official_logits(params, inputs, uniforms, kernel_length)
        return plain.paper_logits(params, inputs, uniforms, ssm)

    return logits


def model_logits(model: nn.Module, variables: Any) -> Logits:
    """Return the program of a model of the zoo, in training."""
    others = {name: value for name, value in variables.items() if name != "params"}

    def logits(params, inputs, noise):
        how = {"noise": noise} if isinstance(noise, tuple) else {"rngs": {"spikes": noise}}
        (scores, _), _ = model.apply(
            others | {"params": params}, inputs, train=True, mutable=["batch_stats"], **how
        )
        return scores

    return logits


def value_and_gradient(logits: Logits) -> Callable[..., Any]:
    """Return the program of the loss and its gradient."""

    def loss(params, inputs, labels, noise):
        return jnp.mean(cross_entropy(logits(params, inputs, noise), labels, labels >= 0))

    return jax.value_and_grad(loss)


def training_step(logits: Logits) -> Callable[..., Any]:
    """Return the program of a training step."""

    def step(params, opt_state, inputs, labels, noise):
        loss, gradient = value_and_gradient(logits)(params, inputs, labels, noise)
        updates, opt_state = OPTIMIZER.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return step


def make(name: str, batch: int, length: int, **fields):
    """Return a model, its variables and a batch of random inputs and labels."""
    rng = np.random.default_rng(0)
    preset = {"preset": "official", "l_max": length} if name == "official" else {}
    kind = "lif_ssm" if name == "lif_ssm" else "pspikessm"
    model = pspike_jax.create_model(kind, num_outputs=CLASSES, **preset, **fields)
    if name == "official":
        inputs = jnp.asarray(rng.integers(0, TOKENS, (batch, length)))
    else:
        inputs = jnp.asarray(rng.normal(size=(batch, length, 1)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, CLASSES, batch))
    variables = nn.meta.unbox(
        jax.jit(functools.partial(model.init, noise=0.5))(jax.random.key(0), inputs[:1])
    )

    def drive(path, leaf):
        # At the start, silence gives drives of exactly 0, where a clamp has no one gradient: an
        # FFT's rounding would decide. A shift moves them away.
        shifts = 0.1 + 0.2 * rng.random(leaf.shape)
        return leaf + jnp.float32(shifts) if path[-1].key == "shift" else leaf

    params = jax.tree_util.tree_map_with_path(drive, variables["params"])
    return model, {**variables, "params": params}, inputs, labels


def uniforms(model: nn.Module, inputs: jax.Array, seed=1) -> tuple[tuple[jax.Array, ...], ...]:
    """Return random uniforms for every sampler of every layer."""
    rng = np.random.default_rng(seed)
    samplers = 1 + max(model.config.samplers.values())
    draw = lambda: jnp.asarray(rng.random((*inputs.shape[:2], model.config.d_model)), jnp.float32)
    return tuple(tuple(draw() for _ in range(samplers)) for _ in range(model.config.n_layers))


def check(contenders: dict[str, Logits], params, inputs, labels, noise, tolerance=TOLERANCE):
    """Raise where losses or gradients differ; return the differences."""
    programs = [
        timing.compile_program(name, value_and_gradient(f), params, inputs, labels, noise)
        for name, f in contenders.items()
    ]
    return timing.check_agreement(programs, tolerance)


def check_spiking(contenders: dict[str, Logits], params, given: Callable[[int], tuple]):
    """Raise unless losses and gradients agree for a draw without ties; return the differences.

    Args:
      given: gives inputs, labels and noise of a seed.
    """
    programs = [
        timing.compile_program(name, value_and_gradient(f), params, *given(1))
        for name, f in contenders.items()
    ]
    for seed in range(1, DRAWS + 1):
        arguments = (params, *given(seed))
        programs = [dataclasses.replace(program, arguments=arguments) for program in programs]
        try:
            return timing.check_agreement(programs, TOLERANCE)
        except ValueError:
            if seed == DRAWS:
                raise


def compiled(contenders: dict[str, Logits], params, inputs, labels) -> list[timing.Program]:
    """Compile the training steps of contenders."""
    given = (params, OPTIMIZER.init(params), inputs, labels, jax.random.key(1))
    return [
        timing.compile_program(name, training_step(f), *given) for name, f in contenders.items()
    ]


def on_every_core(make: Callable, logits: Logits, params, inputs, labels, noise):
    """Compile a program for one device a core; `make` gives it from the model."""
    mesh = make_mesh()
    rows = NamedSharding(mesh, PartitionSpec("data"))
    state = jax.device_put((params, OPTIMIZER.init(params)), NamedSharding(mesh, PartitionSpec()))
    batch = jax.device_put((inputs, labels), rows)
    given = (*state, *batch, noise) if make is training_step else (state[0], *batch, noise)
    with jax.set_mesh(mesh):
        return timing.compile_program(EVERY_CORE, make(logits), *given)


def check_every_core(logits: Logits, params, inputs, labels) -> dict[str, float]:
    """Raise unless loss and gradients are those of one device; return the difference."""
    given = (logits, params, inputs, labels, jax.random.key(2))
    one = timing.compile_program("one device", value_and_gradient(logits), *given[1:])
    return timing.check_agreement([one, on_every_core(value_and_gradient, *given)], TOLERANCE)


def recurrence(u, Lambda_bar, B_bar, C):
    """Evaluate state spaces step by step."""
    return linear_ssm(u, Lambda_bar, B_bar, C, engine="sequential")[0]


def official(quick: bool) -> list[timing.Record]:
    """Time the released program's model against the plain one, and compile it with 12 layers."""
    batch, length = (2, 16) if quick else (8, 2048)
    sizes = {"d_model": 4, "d_state": 4} if quick else {"d_model": 128, "d_state": 16}
    layers = 1 if quick else 4
    model, variables, inputs, labels = make("official", batch, length, n_layers=layers, **sizes)
    contenders = {
        "plain": plain_logits("official", length),
        "pspike_jax": model_logits(model, variables),
    }
    given, few = (variables["params"], inputs, labels), (inputs[:EXAMPLES], labels[:EXAMPLES])
    noise = lambda seed: (few[0], few[1], uniforms(model, few[0], seed))
    differences = check_spiking(contenders, variables["params"], noise)
    setting = {"model": "official", "layers": layers, "batch": batch, "L": length}
    for remat in REMATS:
        if remat != model.config.remat:
            contenders[f"remat {remat}"] = model_logits(model.replace(remat=remat), variables)
    # What the preset does not take, to see that it takes the faster one.
    contenders["engine fft"] = model_logits(model.replace(engine="fft"), variables)
    differences |= check_every_core(contenders["pspike_jax"], *given)
    programs = compiled(contenders, *given)
    programs.append(
        on_every_core(training_step, contenders["pspike_jax"], *given, jax.random.key(1))
    )
    records = timing.measure(programs, setting=setting, differences=differences, budget_s=60)
    deep, variables, *batch = make("official", batch, length, n_layers=3 * layers, **sizes)
    programs = compiled({"pspike_jax": model_logits(deep, variables)}, variables["params"], *batch)
    return records + timing.measure(programs, setting=setting | {"layers": 3 * layers}, rounds=3)


def psmnist(quick: bool) -> list[timing.Record]:
    """Time P-SpikeSSM against LIF neurons at the paper's shape."""
    batch, length = (2, 12) if quick else (16, 784)
    sizes = {"d_model": 4, "d_state": 4} if quick else {"d_model": 400, "d_state": 64}
    sizes["n_layers"] = 1 if quick else 2
    model, variables, *data = make("paper", batch, length, **sizes)
    spiking = {
        "plain": plain_logits("paper", length),
        "pspike_jax": model_logits(model, variables),
    }
    # The plain kernel's exp(l log Lambda_bar) has a phase of hundreds of radian, whose rounding
    # moves some of 2e6 spikes: compared is the plain program around a recurrence in its place.
    exact = plain_logits("paper", length, recurrence)
    inputs, labels = (array[:EXAMPLES] for array in data)
    noise = lambda seed: (inputs, labels, uniforms(model, inputs, seed))
    differences = check_spiking(spiking | {"plain": exact}, variables["params"], noise)
    lif, lif_variables, *_ = make("lif_ssm", batch, length, **sizes)
    neurons = {
        "lif, both stepped": lambda params, inputs, noise: plain.lif_logits(params, inputs),
        "lif, parallel SSM": model_logits(lif, lif_variables),
    }
    normal = lambda seed: jax.random.normal(jax.random.key(seed), (1, *inputs.shape[1:]))
    redrawn = lambda seed: (normal(seed), labels[:1], jax.random.key(0))
    differences |= check_spiking(neurons, lif_variables["params"], redrawn)
    setting = {"model": "psmnist", "layers": sizes["n_layers"], "batch": batch, "L": length}
    given = (spiking["pspike_jax"], variables["params"], *data)
    differences |= check_every_core(*given)
    programs = compiled(spiking, variables["params"], *data)
    programs.append(on_every_core(training_step, *given, jax.random.key(1)))
    programs += compiled(neurons, lif_variables["params"], *data)
    return timing.measure(programs, setting=setting, differences=differences, budget_s=40)


def measure(quick: bool) -> list[timing.Record]:
    """Time all training steps."""
    return official(quick) + psmnist(quick)


def draw(records: Sequence[timing.Record]):
    """Plot times and temporary memory as bars."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = fig.subplots(2, 2)
    depth = min(r["layers"] for r in timing.select(records, model="official"))
    for row, (name, which) in zip(axes, (("official", {"layers": depth}), ("psmnist", {}))):
        shown = timing.select(records, model=name, **which)
        colours = [PALETTE[0] if r["contender"] == "pspike_jax" else GREY for r in shown]
        timing.bars(row[0], shown, colours)
        row[0].set_title(f"{name}: training step (ms)", loc="left")
        row[1].barh(
            [r["contender"] for r in shown], [r["temp_bytes"] / 1e6 for r in shown], color=colours
        )
        row[1].bar_label(row[1].containers[-1], fmt="{:,.0f}", padding=3)
        row[1].margins(x=0.22)
        row[1].invert_yaxis()
        row[1].set_yticklabels([])
        row[1].set_title("temporary memory (MB)", loc="left")
        row[1].spines[["top", "right"]].set_visible(False)
    return fig


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    timing.main("train_step", measure, draw)
