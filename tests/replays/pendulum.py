"""Pendulum neurons: accurate solutions, and the author's scheme."""

import jax
import numpy as np
from recordings import meta_of, under
from scipy.interpolate import make_interp_spline

from pspike_jax.functional.pendulum import author_scheme, pendulum
from pspike_jax.functional.pendulum_drive import constant_drive, smooth_drive, spike_times


def cases(arrays):
    found, arrays = {}, under(arrays, "f64/") | {"meta": arrays["meta"]}
    run = jax.jit(pendulum, static_argnames=("dt", "reset"))
    for name, case in meta_of(arrays)["cases"].items():
        if "gamma" not in case:  # the limit of small swings has matrices, and no spikes
            continue
        given = under(arrays, f"{name}/")
        held = "drive_steps" in given
        drive = given["drive_steps" if held else "drive"]
        dt = case["dt"] if held else float(given["time"][1] - given["time"][0])
        dt = round(dt, 9)
        polynomials = constant_drive(drive) if held else smooth_drive(drive)
        spikes, _, _ = run(
            polynomials, case["gamma"], case["omega0"], dt=dt, reset=case.get("reset", True)
        )
        (found[f"f64/{name}/spike_times"],) = spike_times(spikes, dt)
        if "euler/time" in given:
            # The drive at other times: it is smooth, and so is a spline of high degree.
            drive = make_interp_spline(given["time"], drive, k=7)(given["euler/time"])
            found |= euler(drive, f"f64/{name}/euler/", case["gamma"], case["omega0"])
    return found


def script(arrays):
    meta = meta_of(arrays)
    drive = 1.5 * np.sin(0.01 * arrays["f64/time"]) + 1.2
    return euler(drive, "f64/", meta["gamma"], meta["omega0"], meta["dt"])


def euler(drive, prefix, gamma, omega0, dt=0.1):
    spikes, _, _ = author_scheme(drive, gamma, omega0, dt)
    return {f"{prefix}spikes": spikes}


SYSTEMS = {"pendulum neuron": cases, "pendulum neuron, the author's script": script}
