"""Draw what two families are for: `python docs/pictures/dynamics.py` writes SVGs beside itself.

  fsnn.svg      what a pulse leaves in membranes of order 1 and below: exponential, and power law
  pendulum.svg  a resonant drive near the separatrix, solved, and by the author's scheme
"""

import pathlib

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from pspike_jax.functional.fractional import fractional_memory, solve
from pspike_jax.functional.pendulum import author_scheme, pendulum
from pspike_jax.functional.pendulum_drive import smooth_drive, spike_times

HERE = pathlib.Path(__file__).resolve().parent
DT, STEPS = 0.1, 800


def draw_memory() -> None:
    """Draw membranes after a pulse of one step, on two logarithmic axes."""
    length, tau = 400, 4.0
    pulse = jnp.zeros((length, 1, 1), jnp.float32).at[0].set(1.0)
    relaxation = lambda v, current: ((current - v) / tau, v)
    figure = Figure(figsize=(5, 3))
    axis = figure.subplots()
    for order in (1.0, 0.9, 0.6, 0.3):
        memory = fractional_memory("gl", order, length - 1)
        values, _ = solve(memory, relaxation, pulse, pulse[0] * 0)
        axis.loglog(np.arange(1, length), np.abs(values[1:, 0, 0]), label=f"order {order:g}")
    axis.set(xlabel="steps after the pulse", ylabel="what is left", ylim=(1e-6, 1))
    axis.legend(frameon=False)
    figure.savefig(HERE / "fsnn.svg", bbox_inches="tight", metadata={"Date": None})


def draw_pendulum() -> None:
    """Draw angles and spikes of both solutions."""
    times = DT * np.arange(STEPS + 1)
    drive = 0.8 * np.sin(0.85 * times)
    spikes, path, _ = pendulum(smooth_drive(drive), 0.1, 1.0, DT)
    (exact,) = spike_times(spikes, DT)
    # The author's script spaces its times a little wider than its step.
    spaced = np.linspace(0, DT * STEPS, STEPS)
    fires, theta, _ = author_scheme(0.8 * np.sin(0.85 * spaced), 0.1, 1.0, DT)
    figure = Figure(figsize=(7, 3.4))
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    rows = ("solved", path.theta, times[1:], exact), (
        "author's scheme", theta, spaced, spaced[np.asarray(fires) > 0]
    )
    for axis, (name, angle, when, spiked) in zip(axes, rows, strict=True):
        axis.plot(when, angle, linewidth=1)
        axis.plot(spiked, np.full(len(spiked), np.pi), "|", color="#cf222e", markersize=14)
        axis.axhline(np.pi, color="#8c959f", linewidth=0.6)
        axis.set_ylabel("angle")
        axis.set_title(f"{name}: spikes {len(spiked)}", loc="left", fontsize="medium")
    axes[1].set_xlabel("time")
    figure.savefig(HERE / "pendulum.svg", bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    matplotlib.rcParams["svg.hashsalt"] = "pspike_jax"
    draw_memory()
    draw_pendulum()
