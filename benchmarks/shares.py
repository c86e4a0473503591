"""What a training step of P-SpikeSSM spends on noise, state spaces and mixers.

  python -m benchmarks.shares

The whole step, as `benchmarks.train_step` has it at both shapes, takes turns with the step whose
noise is one number, and with its state spaces and its mixers alone, forward and backward, layer
after layer. Parts that run alone cannot overlap with others: shares need not add up to one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing, train_step
from pspike_jax.nn.dense import SpikeMixer

SHAPES = {
    "official": (8, 2048, {"d_model": 128, "d_state": 16, "n_layers": 4}),
    "paper": (16, 784, {"d_model": 400, "d_state": 64, "n_layers": 2}),
}
TINY = (2, 16, {"d_model": 4, "d_state": 4, "n_layers": 2})
RATE = 0.2  # share of spikes among a part's inputs


def part(run: Callable[[Any, jax.Array], jax.Array]) -> Callable[..., Any]:
    """Return the program of one part in all layers, forward and backward.

    Args:
      run: maps a layer's parameters and spikes to outputs of the spikes' shape.
    """

    def program(params, spikes, cotangent):
        def layer(carry, params):
            y, pull_back = jax.vjp(run, params, spikes)
            bars = pull_back(cotangent)
            return carry + jnp.sum(y) + jnp.sum(bars[1]), bars[0]

        return jax.lax.scan(layer, jnp.float32(0), params)

    return program


def parts(model: Any, params: Any) -> dict[str, tuple[Callable[..., Any], Any]]:
    """Return {part: (its program, the parameters of all layers)} of a model."""
    config, blocks = model.config, params["backbone"]["blocks"]
    names = [name for name in ("ssm", "ssm_reverse") if name in blocks]
    mixer = config.make_mixer(True, parent=None)
    if config.block == "official":
        mixer = mixer.clone(skip=True)
    dense = SpikeMixer(config.d_model, config.mixer, config.activation, True, parent=None)

    def state_spaces(params, spikes):
        return sum(mixer.apply({"params": params[name]}, spikes)[0] for name in names)

    def mixers(params, spikes):
        return dense.apply({"params": params}, (spikes,) * len(names))

    return {
        "state spaces": (part(state_spaces), {name: blocks[name] for name in names}),
        "mixers": (part(mixers), blocks["mixer"]),
    }


def measure(quick: bool) -> list[timing.Record]:
    """Time the steps and their parts."""
    records = []
    for name, shape in SHAPES.items():
        batch, length, sizes = TINY if quick else shape
        model, variables, inputs, labels = train_step.make(name, batch, length, **sizes)
        params = variables["params"]
        fixed = lambda params, inputs, noise: model.apply(
            variables | {"params": params}, inputs, train=True, mutable=["batch_stats"], noise=0.5
        )[0][0]
        steps = {"step": train_step.model_logits(model, variables), "without noise": fixed}
        programs = train_step.compiled(steps, params, inputs, labels)
        rng = np.random.default_rng(0)
        size = (batch, length, sizes["d_model"])
        spikes = jnp.asarray(rng.random(size) < RATE, jnp.float32)
        cotangent = jnp.asarray(rng.normal(size=size), jnp.float32)
        for part_name, (program, of_layers) in parts(model, params).items():
            given = of_layers, spikes, cotangent
            programs.append(timing.compile_program(part_name, program, *given))
        records += timing.measure(
            programs, setting={"model": name, "batch": batch, **sizes, "L": length}, budget_s=30
        )
    return records


def tabulate(records: list[timing.Record]) -> str:
    """Return a line for each share, of the medians."""
    lines = []
    for name in SHAPES:
        times = {r["contender"]: r["median_s"] for r in timing.select(records, model=name)}
        times["noise"] = times["step"] - times.pop("without noise")
        whole = times.pop("step")
        shares = ", ".join(f"{part} {100 * s / whole:.0f} %" for part, s in times.items())
        lines.append(f"{name}: a step of {1e3 * whole:.1f} ms; {shares}")
    return "\n".join(lines)


if __name__ == "__main__":
    timing.main("shares", measure, tabulate=tabulate)
