"""dLDS on Euler's steps of the Lorenz system, which are exactly two operators: a known answer.

With the operators given, the coefficients must be 1 and the first state. Without them, operators
are fitted in turn with coefficients, from several starts, and judged on paths that they have not
seen: by the error of a step, and by how well their coefficients tell the first state.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.families import SEEDS, kept, table
from pspike_jax.analysis import plots
from pspike_jax.analysis.canvas import grid
from pspike_jax.data.lorenz import STEP, WARM_UP, lorenz_path
from pspike_jax.functional import dlds
from pspike_jax.recipes.dlds import DLDSSettings, fit_dlds

CAPTION = (
    "Left, a path of the Lorenz system, coloured by the coefficient of the second of two "
    "operators, which is the first state. Right, errors of a step, on fitted and on other paths"
)
S, R, BETA = 10.0, 28.0, 8 / 3
KNOWN = np.stack([
    np.eye(3) + STEP * np.array([[-S, S, 0], [R, -1, 0], [0, 0, -BETA]]),
    STEP * np.array([[0, 0, 0], [0, 0, -1.0], [0, 1, 0]]),
])
TRIALS, LENGTH, ITERATIONS = 4, 250, 300
NEAR = 0.1  # how far from "nothing changes" a fit starts: solutions in turn end in their valley


def paths(seed: int, trials: int, length: int) -> np.ndarray:
    """Return paths (trials, length, 3) float64 on the attractor, not centred, divided by 10."""
    start = np.random.default_rng(seed).normal(size=(trials, 3)) * 8 + np.array([0, 0, 25])
    return lorenz_path(start, WARM_UP + length, euler=True)[WARM_UP:].swapaxes(0, 1) / 10


def runs(asked: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the inference with known operators, and fits of 1 to 3 operators."""
    size = (2, 20, 3) if asked.smoke else (TRIALS, LENGTH, ITERATIONS)
    fits = {
        f"operators_{number}": functools.partial(fitted, number, *size) for number in (1, 2, 3)
    }
    return {"known": functools.partial(known, *size[:2])} | fits


def known(trials: int, length: int) -> dict[str, Any]:
    """Return how far coefficients for the known operators are from 1 and the first state."""
    worst = {}
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            states = jnp.asarray(paths(100, trials, length), dtype)
            infer = functools.partial(dlds.infer_coefficients, jnp.asarray(KNOWN, dtype))
            found = np.asarray(jax.jit(jax.vmap(infer))(states), np.float64)
        states = paths(100, trials, length)[:, :-1, 0] * 10
        answer = np.stack([np.ones_like(states), states], axis=-1)
        worst[dtype] = float(np.abs(found - answer).max() / np.abs(answer).max())
    return {
        "trials": trials, "length": length, "largest_error": worst,
        "path": {
            "x1": kept(states[0]), "x3": kept(10 * paths(100, trials, length)[0, :-1, 2]),
            "coefficient": kept(found[0, :, 1]),
        },
    }


def fitted(number: int, trials: int, length: int, iterations: int) -> dict[str, Any]:
    """Fit so many operators from each start, and judge them on other paths."""
    train, fresh = (paths(seed, trials, length).astype(np.float32) for seed in (0, 100))
    moved = [np.mean(np.sum(np.diff(one, axis=1) ** 2, axis=-1)) for one in (train, fresh)]
    starts = []
    for seed in SEEDS:
        noise = np.random.default_rng(seed).normal(size=(number, 3, 3))
        settings = DLDSSettings(number, update="exact", iterations=iterations, perturb=False)
        fit = fit_dlds(list(train), settings, np.eye(3) + NEAR * noise)
        infer = jax.jit(jax.vmap(functools.partial(dlds.infer_coefficients, fit.operators)))
        coefficients = infer(fresh)
        left = jax.vmap(functools.partial(dlds.residuals, fit.operators))(coefficients, fresh)
        starts.append({
            "train": fit.error / moved[0], "fresh": float(np.mean(np.sum(left**2, -1)) / moved[1]),
            "first_state": explained(np.asarray(coefficients, np.float64), fresh[:, :-1, 0]),
        })
    return {"trials": trials, "length": length, "iterations": iterations, "starts": starts}


def explained(coefficients: np.ndarray, state: np.ndarray) -> float:
    """Return how much of a state a linear map of the coefficients explains, R^2.

    Operators that mix the known ones have coefficients that are mixed the other way, so that 1 and
    the first state are linear in them.
    """
    flat = coefficients.reshape(-1, coefficients.shape[-1])
    weights = np.linalg.lstsq(flat, state.reshape(-1), rcond=None)[0]
    left = np.sum((coefficients @ weights - state) ** 2) / np.sum((state - state.mean()) ** 2)
    return float(1 - left)


def page(rows: dict[str, Any]) -> str:
    """Write the errors by number of operators."""
    sure, lines = rows["known"], []
    for key, row in rows.items():
        if key != "known":
            best = min(row["starts"], key=lambda start: start["train"])
            lines.append((
                key.partition("_")[2], f"{best['train']:.1e}", f"{best['fresh']:.1e}",
                f"{max(start['fresh'] for start in row['starts']):.1e}",
                f"{best['first_state']:.4f}",
            ))
    any_fit = rows["operators_2"]
    return (
        "With the two operators given, coefficients are 1 and the first state to "
        f"{sure['largest_error']['float64']:.0e} of the largest in float64, "
        f"{sure['largest_error']['float32']:.0e} in float32. Fitted by `update=\"exact\"` to "
        f"{any_fit['trials']} paths of {any_fit['length']} steps, {any_fit['iterations']:,} "
        f"iterations, the best by training error of {len(any_fit['starts'])} starts near "
        "\"nothing changes\"; errors of one step over the mean squared step, on as many paths that "
        "were not fitted:\n\n"
        + table(
            ("operators", "fitted paths", "other paths", "other paths, worst start",
             "R² of the first state from coefficients"), *lines,
        )
        + "\n\nThree operators would explain every step of three states whatever they are: such an "
        "error says nothing."
    )


def draw(rows: dict[str, Any]):
    """Draw a path coloured by a coefficient, and errors by number of operators."""
    figure, axes = grid(1, 2, height=3.2, sharey=False, sharex=False)
    left, right = axes[0]
    path = rows["known"]["path"]
    shown = left.scatter(path["x1"], path["x3"], c=path["coefficient"], s=9, cmap="viridis")
    figure.colorbar(shown, ax=left, label="coefficient of the second operator")
    left.set(xlabel="first state", ylabel="third state")
    left.set_title("operators given", loc="left", fontsize=10)
    numbers = [int(key.partition("_")[2]) for key in rows if key != "known"]
    for field, colour, mark in zip(("train", "fresh"), plots.PALETTE, "os"):
        errors = [[start[field] for start in rows[f"operators_{n}"]["starts"]] for n in numbers]
        places = np.repeat(numbers, [len(one) for one in errors])
        label = "fitted paths" if field == "train" else "other paths"
        right.semilogy(places, np.concatenate(errors), mark, color=colour, alpha=0.7, label=label)
    right.set(xlabel="operators, fitted", ylabel="error of a step, relative", xticks=numbers)
    right.legend(frameon=False, fontsize=9)
    return figure
