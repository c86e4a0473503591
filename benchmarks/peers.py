"""Layers of this library beside those of others, forward and backward, in one run.

  python -m benchmarks.peers

Times what is installed of discretax (S4D, S5), spyx, snntorch and spikingjelly (a LIF layer), and
leaves out what is not. All get the parameters and inputs of one draw; outputs, and gradients with
respect to the inputs and the parameters that a peer trains, have to agree before anything is
timed. Programs of JAX are compiled; those of PyTorch run as their authors wrote them, in PyTorch's
own threads.
"""

import dataclasses
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from pspike_jax.functional import discretize_zoh, linear_ssm, neurons
from pspike_jax.functional.multi_input import Diagonal, multi_input_ssm

Pytree = Any
# Relative to the peak of each array: kernels of other programs take exp(l dt A) in float32, whose
# phase is hundreds of radian at the end of 16,384 steps.
TOLERANCE = 2e-4
SHAPES = ({"batch": 1, "length": 16384, "features": 64, "pairs": 32},
          {"batch": 8, "length": 2048, "features": 128, "pairs": 8})  # fmt: skip
LEAK, THRESHOLD, SLOPE = 0.9, 1.0, 25.0


def installed(*names: str) -> list[str]:
    """Return those of the packages that can be imported."""
    return [name for name in names if importlib.util.find_spec(name)]


def gradients(layer: Callable[[Pytree, jax.Array], jax.Array]) -> Callable[..., Pytree]:
    """Return the program (parameters, x, cotangent) -> (y, cotangents of parameters and x)."""

    def program(parameters, x, cotangent):
        y, pull_back = jax.vjp(layer, parameters, x)
        return y, *pull_back(cotangent)

    return program


def compare(layers: dict[str, Callable], given: tuple, setting: dict, **how) -> list[timing.Record]:
    """Check and time layers that take the same parameters and inputs."""
    programs = [
        timing.compile_program(name, gradients(layer), *given) for name, layer in layers.items()
    ]
    differences = timing.check_agreement(programs, TOLERANCE)
    return timing.measure(programs, setting=setting, differences=differences, **how)


def draw(rng: np.random.Generator, batch: int, length: int, features: int) -> jax.Array:
    """Return inputs from N(0, 1), (B, L, H)."""
    return jnp.asarray(rng.normal(size=(batch, length, features)), jnp.float32)


def s4d(batch: int, length: int, features: int, pairs: int) -> list[timing.Record]:
    """Time S4D layers whose features have states of their own."""

    def ours(parameters, x):
        Lambda = jax.lax.complex(-jnp.exp(parameters["log_a_real"]), parameters["A_imag"])
        Lambda_bar, gain = discretize_zoh(Lambda, jnp.exp(parameters["log_dt"]))
        return linear_ssm(x, Lambda_bar, gain, 2 * parameters["C"])[0]

    rng = np.random.default_rng(0)
    normal = lambda: rng.normal(size=(features, pairs))
    parameters = {
        "log_dt": rng.uniform(np.log(1e-3), np.log(1e-1), features),
        "log_a_real": np.full((features, pairs), np.log(0.5)),
        "A_imag": np.pi * np.tile(np.arange(pairs), (features, 1)),
    }
    parameters = {name: jnp.asarray(value, jnp.float32) for name, value in parameters.items()}
    parameters["C"] = jnp.asarray(normal() + 1j * normal(), jnp.complex64)
    layers = {"pspike_jax": ours}
    if installed("discretax"):
        from discretax.sequence_mixers.s4d import S4DSequenceMixer

        mixer = S4DSequenceMixer(features, jax.random.key(0), state_dim=2 * pairs)
        layers["discretax"] = of_discretax(mixer, lambda mixer: mixer.kernel)
    given = parameters, draw(rng, batch, length, features), draw(rng, batch, length, features)
    setting = {"layer": "S4D", "B": batch, "L": length, "H": features, "pairs": pairs}
    return compare(layers, given, setting)


def s5(batch: int, length: int, features: int, pairs: int) -> list[timing.Record]:
    """Time S5 layers: one state space that all features share."""

    def ours(parameters, x):
        Lambda = jax.lax.complex(
            jnp.minimum(parameters["Lambda_re"], -1e-4), parameters["Lambda_im"]
        )
        dynamics = discretize_zoh(Lambda[:, None], jnp.exp(parameters["log_step"][:, 0]))
        B, C = (jax.lax.complex(*jnp.moveaxis(parameters[name], -1, 0)) for name in "BC")
        dynamics = Diagonal(*(array[:, 0] for array in dynamics))
        return multi_input_ssm(x, dynamics, B, 2 * C, parameters["D"])[0]

    rng = np.random.default_rng(0)
    parameters = {
        "Lambda_re": np.full(pairs, -0.5),
        "Lambda_im": np.pi * np.arange(pairs),
        "B": rng.normal(size=(pairs, features, 2)) / features**0.5,
        "C": rng.normal(size=(features, pairs, 2)) / pairs**0.5,
        "D": rng.normal(size=features),
        "log_step": rng.uniform(np.log(1e-3), np.log(1e-1), (pairs, 1)),
    }
    parameters = {name: jnp.asarray(value, jnp.float32) for name, value in parameters.items()}
    layers = {"pspike_jax": ours}
    if installed("discretax"):
        from discretax.sequence_mixers.s5 import S5SequenceMixer

        mixer = S5SequenceMixer(features, jax.random.key(0), state_dim=2 * pairs)
        layers["discretax"] = of_discretax(mixer, lambda mixer: mixer)
    given = parameters, draw(rng, batch, length, features), draw(rng, batch, length, features)
    setting = {"layer": "S5", "B": batch, "L": length, "H": features, "pairs": pairs}
    return compare(layers, given, setting)


def of_discretax(mixer: Any, holder: Callable[[Any], Any]) -> Callable[[Pytree, jax.Array], Any]:
    """Return a mixer of discretax as a function of the parameters that `holder` has, and x."""
    import equinox

    def layer(parameters, x):
        places = lambda mixer: [getattr(holder(mixer), name) for name in parameters]
        filled = equinox.tree_at(places, mixer, list(parameters.values()))
        return jax.vmap(filled, in_axes=(0, None))(x, None)

    return layer


@dataclasses.dataclass(frozen=True)
class WholeReset(neurons.SoftResetLIF):
    """Soft reset that does not leak in the step after a spike, as in spyx and snntorch."""

    def update(self, coefficients, membrane, spikes, reset, current):
        """Leak, integrate, subtract the threshold where there was a spike."""
        (leak, threshold), (u,) = coefficients, membrane
        return (leak * u + current - threshold * reset,)


def slope(drive: jax.Array, threshold: jax.Array | float) -> jax.Array:
    """Return the surrogate of all peers: the fast sigmoid's derivative."""
    return 1 / (1 + SLOPE * jnp.abs(drive - threshold)) ** 2


def ours_lif(neuron: neurons.Neuron, detach: bool) -> Callable[[Pytree, jax.Array], jax.Array]:
    """Return our layer of a neuron."""

    def layer(parameters, x):
        del parameters
        state = neurons.initial_state(neuron, *x.shape[1:])
        firing = neurons.Firing(slope, detach)
        return neurons.unroll(neuron, neuron.coefficients({}), x, state, firing=firing)[0]

    return layer


def spyx_lif(parameters: Pytree, x: jax.Array) -> jax.Array:
    """Scan spyx's cell, whose spikes are those of the membrane before the step."""
    import spyx
    from flax import nnx

    del parameters
    spike = spyx.axn.custom(bwd=lambda drive: slope(drive, 0.0))
    cell = spyx.nn.LIF(x.shape[2:], LEAK, THRESHOLD, activation=spike, rngs=nnx.Rngs(0))
    one_more = jnp.concatenate([x, jnp.zeros_like(x[:1])])

    def step(state, current):
        spikes, state = cell(current, state)
        return state, spikes

    return jax.lax.scan(step, cell.initial_state(x.shape[1]), one_more)[1][1:]


def torch_program(name: str, run: Callable, x: jax.Array, cotangent: jax.Array) -> timing.Program:
    """Return a program of PyTorch, of x and cotangent, with results as the compiled ones have."""
    import torch

    given = [torch.tensor(np.asarray(array)) for array in (x, cotangent)]

    def program(x, cotangent):
        x = x.clone().requires_grad_()
        y = run(x)
        y.backward(cotangent)
        return y.detach().numpy(), {}, x.grad.numpy()

    start = time.perf_counter()
    program(*given)  # PyTorch builds what it needs at the first call
    return timing.Program(name, time.perf_counter() - start, 0, program, tuple(given))


def snntorch_lif(x: Any) -> Any:
    """Step snntorch's cell through time."""
    import snntorch
    import torch

    cell = snntorch.Leaky(
        LEAK, threshold=THRESHOLD, spike_grad=snntorch.surrogate.fast_sigmoid(SLOPE)
    )
    membrane, spikes = cell.init_leaky(), []
    for current in x:
        spike, membrane = cell(current, membrane)
        spikes.append(spike)
    return torch.stack(spikes)


def spikingjelly_lif(x: Any) -> Any:
    """Run spikingjelly's layer over all steps."""
    import torch
    from spikingjelly.activation_based import neuron

    class FastSigmoid(torch.autograd.Function):
        @staticmethod
        def forward(ctx, drive):
            ctx.save_for_backward(drive)
            return (drive >= 0).to(drive)

        @staticmethod
        def backward(ctx, cotangent):
            return cotangent / (1 + SLOPE * ctx.saved_tensors[0].abs()) ** 2

    layer = neuron.LIFNode(
        1 / (1 - LEAK), False, THRESHOLD, v_reset=None, surrogate_function=FastSigmoid.apply,
        detach_reset=True, step_mode="m",
    )
    return layer(x)


def lif(batch: int, length: int, features: int) -> list[timing.Record]:
    """Time layers of leaky neurons, time first, each peer beside our neuron of its equations."""
    rng = np.random.default_rng(0)
    x, cotangent = (draw(rng, length, batch, features) for _ in range(2))
    whole = WholeReset(leak=LEAK, threshold=THRESHOLD, fires_at_zero=False)
    decayed = neurons.SoftResetLIF(leak=LEAK, threshold=THRESHOLD)
    # (neuron, whether the reset is a constant of the backward pass, the peer's program)
    peers = {
        "spyx": (whole, False, spyx_lif),
        "snntorch": (whole, True, snntorch_lif),
        "spikingjelly": (decayed, True, spikingjelly_lif),
    }
    records = []
    for name in installed(*peers):
        neuron, detach, layer = peers[name]
        given = {}, x, cotangent
        ours = gradients(ours_lif(neuron, detach))
        programs = [timing.compile_program("pspike_jax", ours, *given)]
        if layer is spyx_lif:
            programs.append(timing.compile_program(name, gradients(layer), *given))
        else:
            programs.append(torch_program(name, layer, x, cotangent))
        differences = timing.check_agreement(programs, TOLERANCE)
        setting = {"layer": f"LIF as {name}'s", "B": batch, "L": length, "H": features}
        records += timing.measure(programs, setting=setting, differences=differences)
    return records


def measure(quick: bool) -> list[timing.Record]:
    """Time all layers."""
    tiny = {"batch": 2, "length": 32, "features": 8}
    shapes = ({**tiny, "pairs": 4},) if quick else SHAPES
    records = [record for shape in shapes for time_it in (s4d, s5) for record in time_it(**shape)]
    return records + lif(**(tiny if quick else {"batch": 32, "length": 250, "features": 512}))


if __name__ == "__main__":
    timing.main("peers", measure)
