"""The pendulum neuron against SciPy's solution, and its small swings against the oscillator.

Spike times are compared with those of an adaptive Runge-Kutta of order 8 with tolerances of 1e-12,
started anew from rest at each spike; small swings with the damped oscillator of the zoo under the
same held currents, whose difference must fall as the square of the swing.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.families import kept, table
from pspike_jax.analysis import plots
from pspike_jax.functional.oscillator import Oscillators, discretize_oscillators
from pspike_jax.functional.pendulum import author_scheme, pendulum
from pspike_jax.functional.pendulum_drive import constant_drive, smooth_drive, spike_times

CAPTION = (
    "A resonant drive: one spike where it is solved, four by the author's scheme. Below, how far "
    "small swings are from the damped oscillator: the square of the swing"
)
DT = 0.1
DRIVES = {  # name: (drive, damping, frequency, time)
    "constant 1.2": (lambda t: 1.2 + 0 * t, 0.05, 1.0, 80.0),
    "the author's, 1.2 + 1.5 sin(0.01 t)": (
        lambda t: 1.2 + 1.5 * np.sin(0.01 * t), 0.05, 1.0, 160.0
    ),
    "resonant, 0.8 sin(0.85 t)": (lambda t: 0.8 * np.sin(0.85 * t), 0.1, 1.0, 80.0),
    "fast, 3 + 2 sin(2 t)": (lambda t: 3 + 2 * np.sin(2 * t), 0.3, 2.0, 80.0),
}
RESONANT = "resonant, 0.8 sin(0.85 t)"
SWINGS = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)  # largest currents
GAMMA, OMEGA, HELD, STEPS = 0.3, 1.2, 0.4, 60  # of small swings


def runs(asked: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the drives, small swings, and the picture's solutions."""
    spikes = {name: functools.partial(spikes_of, name) for name in DRIVES}
    return spikes | {"small swings": small_swings, "solutions": solutions}


def spikes_of(name: str) -> dict[str, Any]:
    """Return how many spikes a drive causes, and how far their times are from SciPy's."""
    drive, gamma, omega, end = DRIVES[name]
    samples = drive(DT * np.arange(round(end / DT) + 1))
    spikes, _, _ = jax.jit(pendulum, static_argnames="dt")(
        smooth_drive(samples), gamma, omega, dt=DT
    )
    (times,) = spike_times(spikes, DT)
    wanted = solved(drive, gamma, omega, end)
    same = len(times) == len(wanted)
    return {
        "gamma": gamma, "omega0": omega, "time": end, "spikes": len(times),
        "spikes_wanted": len(wanted),
        "largest_error": float(np.max(np.abs(times - wanted), initial=0)) if same else None,
    }


def solved(drive: Callable, gamma: float, omega: float, end: float) -> np.ndarray:
    """Return spike times by SciPy, each spike a new start from rest."""
    from scipy.integrate import solve_ivp

    slope = lambda t, y: (y[1], -gamma * y[1] - omega**2 * np.sin(y[0]) + drive(t))
    upside_down = lambda t, y: y[0] - np.pi
    upside_down.terminal, upside_down.direction = True, 1
    times, now = [], 0.0
    while now < end:
        found = solve_ivp(
            slope, (now, end), (0.0, 0.0), "DOP853", events=upside_down, rtol=1e-12, atol=1e-12,
            max_step=0.05,
        )
        if found.status != 1:
            break
        now = float(found.t_events[0][0])
        times.append(now)
    return np.array(times)


def small_swings() -> dict[str, Any]:
    """Return how far pendulums are from the oscillator, relative to the largest swing."""
    values = (jnp.float32([v]) for v in (OMEGA**2, GAMMA, HELD))
    transition, gain = discretize_oscillators(Oscillators(*values), "zoh")
    transition, gain = (np.asarray(a[0], np.float64) for a in (transition, gain))
    run = jax.jit(pendulum, static_argnames="dt")
    swings, differences = [], []
    for size in SWINGS:
        drive = np.random.default_rng(0).uniform(-size, size, STEPS).astype(np.float32)
        _, path, _ = run(constant_drive(drive), GAMMA, OMEGA, dt=HELD)
        state, angles = np.zeros(2), []
        for current in drive.astype(np.float64):
            state = transition @ state + current * gain
            angles.append(state[1])
        swings.append(float(np.max(np.abs(angles))))
        away = np.max(np.abs(np.asarray(path.theta, np.float64) - angles))
        differences.append(float(away) / swings[-1])
    return {"gamma": GAMMA, "omega0": OMEGA, "swings": swings, "differences": differences}


def solutions() -> dict[str, Any]:
    """Return angles and spikes of the resonant drive, solved and by the author's scheme."""
    drive, gamma, omega, end = DRIVES[RESONANT]
    times = DT * np.arange(round(end / DT) + 1)
    spikes, path, _ = pendulum(smooth_drive(drive(times)), gamma, omega, DT)
    (exact,) = spike_times(spikes, DT)
    # The author's script spaces its times a little wider than its step.
    spaced = np.linspace(0, end, len(times) - 1)
    fires, theta, _ = author_scheme(drive(spaced), gamma, omega, DT)
    every = slice(None, None, 2)
    solution = {
        "time": kept(times[1:][every]), "angle": kept(path.theta[every]), "spikes": kept(exact)
    }
    scheme = {
        "time": kept(spaced[every]), "angle": kept(theta[every]),
        "spikes": kept(spaced[np.asarray(fires) > 0]),
    }
    return {"solved": solution, "author's scheme": scheme}


def page(rows: dict[str, Any]) -> str:
    """Write errors of spike times, and of small swings."""
    lines = [
        (name, row["spikes"], row["spikes_wanted"],
         "other spikes" if row["largest_error"] is None else f"{row['largest_error']:.1e}")
        for name, row in rows.items() if name in DRIVES
    ]
    small = rows["small swings"]
    pairs = ((f"{a:.1e}", f"{b:.1e}") for a, b in zip(small["swings"], small["differences"]))
    return (
        "Spike times in float32 against SciPy's solution (Runge-Kutta of order 8, tolerances "
        f"1e-12), steps of {DT}:\n\n"
        + table(("drive", "spikes", "by SciPy", "largest error of a time"), *lines)
        + "\n\nSmall swings against the damped oscillator of the zoo under the same random held "
        f"currents (damping {small['gamma']}, frequency {small['omega0']}); sin θ is θ to θ³/6, so "
        "the two must part as the square of the swing, and do:\n\n"
        + table(("largest swing", "largest difference of angles, over it"), *pairs)
    )


def draw(rows: dict[str, Any]):
    """Draw both solutions above each other, and small swings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(plots.WIDTH, 5.2), layout="constrained")
    axes = figure.subplot_mosaic([["solved"], ["author's scheme"], ["small"]])
    for name in ("solved", "author's scheme"):
        axis, found = axes[name], rows["solutions"][name]
        axis.plot(found["time"], found["angle"], color=plots.PALETTE[0], linewidth=1)
        when = found["spikes"]
        axis.plot(when, np.full(len(when), np.pi), "|", color=plots.PALETTE[1], markersize=14)
        axis.axhline(np.pi, color=plots.GREY, linewidth=0.6)
        axis.set(ylabel="angle", xlabel="time")
        axis.set_title(f"{name}: spikes {len(when)}", loc="left", fontsize=10)
    small, axis = rows["small swings"], axes["small"]
    swings = np.array(small["swings"])
    axis.loglog(swings, small["differences"], "o-", color=plots.PALETTE[0], markersize=4)
    axis.loglog(swings, small["differences"][-1] * (swings / swings[-1]) ** 2, "--",
                color=plots.GREY, label="square of the swing")
    axis.set(xlabel="largest swing (radians)", ylabel="difference")
    axis.set_title("from the damped oscillator, relative", loc="left", fontsize=10)
    axis.legend(frameon=False, fontsize=9)
    for axis in axes.values():
        axis.spines[["top", "right"]].set_visible(False)
    return figure
