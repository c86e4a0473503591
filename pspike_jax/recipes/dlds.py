"""Fit decomposed linear dynamics to observed states: coefficients, then operators, in turn.

Functions of `functional.dlds` do the arithmetic. Operators take a gradient step that is halved
until the error no longer grows, as in the authors' program (dLDS-Discrete-Python-Model), or, with
`update="exact"`, the least-squares solution for the coefficients at hand.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional import dlds
from pspike_jax.nn.fields import check_choice

TRIES = 25  # of smaller steps
WORSE = 1.1  # times the error before: more than this and the step is a perturbation
NOISE = 0.5  # of a perturbation
STILL, PATIENCE = 1e-3, 40  # relative change over so many iterations that counts as stuck
CORRELATION, REDRAWS = 0.1, 100  # of the operators at the start


@dataclasses.dataclass(frozen=True)
class DLDSSettings:
    """How `fit_dlds` fits.

    Attributes:
      operators: M; with M >= p every fit is exact, and says nothing.
      solver, penalty, smooth, solver_iterations: of the coefficients, see `infer_coefficients`.
      update: "gradient" or "exact".
      step: of the operators' gradient.
      decay: factor of the step in each iteration.
      iterations: a fixed number.
      normalise: divide operators by their spectral radius after every gradient step; an exact
        update is followed by one too.
      perturb: add noise where the fit is stuck.
      seed: of the start and of the noise.
    """

    operators: int
    solver: str = "ridge"
    penalty: float = 0.0
    smooth: float = 0.0
    solver_iterations: int = 200
    update: str = "gradient"
    step: float = 0.01
    decay: float = 0.99
    iterations: int = 100
    normalise: bool = True
    perturb: bool = True
    seed: int = 0

    def __post_init__(self):
        check_choice("solver", self.solver, ("ridge", "fista"))
        check_choice("update", self.update, ("gradient", "exact"))


class DLDSFit(NamedTuple):
    """What `fit_dlds` returns.

    Attributes:
      operators: (M, p, p).
      coefficients: (L_i - 1, M) of each trial, for these operators.
      errors: (iterations,) mean squared norm of what is left unexplained, before each update.
      error: that of the result.
      steps: (iterations,) size of each gradient step that was taken.
    """

    operators: jax.Array
    coefficients: list[jax.Array]
    errors: np.ndarray
    error: float
    steps: np.ndarray


def draw_operators(rng: np.random.Generator, number: int, size: int) -> np.ndarray:
    """Draw operators of spectral radius 1 of which no two are alike, where that can be had.

    Args:
      rng: source of randomness.
      number: M.
      size: p.

    Returns:
      (M, p, p) float64: of 100 draws the first whose entries correlate by at most 0.1, else the
      best.
    """
    best, least = None, np.inf
    for _ in range(REDRAWS):
        drawn = rng.normal(size=(number, size, size))
        drawn /= np.abs(np.linalg.eigvals(drawn)).max(axis=-1)[:, None, None]
        rows = np.corrcoef(drawn.reshape(number, -1)) if number > 1 else np.eye(1)
        alike = np.abs(rows - np.eye(number)).max()
        if alike < least:
            best, least = drawn, alike
        if least <= CORRELATION:
            break
    return best


def fit_dlds(
    trials: Sequence[np.ndarray], settings: DLDSSettings, start: np.ndarray | None = None
) -> DLDSFit:
    """Fit operators to trials of observed states.

    Args:
      trials: (L_i, p) each; used as they are: centring would make a system that is linear in its
        states an affine one.
      settings: how.
      start: (M, p, p), or None for a draw.

    Returns:
      The fit.

    Raises:
      ValueError: trials that do not fit together, or end before their second step.
    """
    sizes = {np.shape(trial)[1:] for trial in trials}
    if len(sizes) != 1 or any(np.ndim(trial) != 2 or len(trial) < 2 for trial in trials):
        raise ValueError(f"trials have shapes {[np.shape(t) for t in trials]}; expected (L, p)")
    rng, length = np.random.default_rng(settings.seed), max(map(len, trials))
    p = int(np.shape(trials[0])[1])
    start = draw_operators(rng, settings.operators, p) if start is None else start
    padded = [np.pad(np.asarray(x), ((0, length - len(x)), (0, 0)), "edge") for x in trials]
    states = jnp.asarray(np.stack(padded))
    states = states.astype(jnp.promote_types(states.dtype, jnp.float32))
    mask = jnp.asarray(np.arange(length - 1) < np.array([[len(x) - 1] for x in trials]))
    F, step = jnp.asarray(start, states.dtype), jnp.asarray(settings.step, states.dtype)
    errors, steps = [], []
    for _ in range(settings.iterations):
        after, error, after_error, step = _iterate(F, states, mask, step, settings)
        errors.append(float(error))
        steps.append(float(step))
        worse = not float(after_error) <= WORSE * float(error)
        if settings.perturb and (worse or _stuck(errors)):
            noise = rng.normal(size=F.shape)
            F = (F if worse else after) + jnp.asarray(NOISE * noise, F.dtype)
        else:
            F = after
        step = step * settings.decay
    coefficients = _infer(F, states, settings)
    error = float(_error(F, coefficients, states, mask))
    found = [c[: len(x) - 1] for c, x in zip(coefficients, trials)]
    return DLDSFit(F, found, np.array(errors), error, np.array(steps))


def _stuck(errors: list[float]) -> bool:
    """Tell whether nothing has changed, or only grown, over the last iterations."""
    if len(errors) <= PATIENCE or len(errors) % PATIENCE:
        return False
    last = np.array(errors[-PATIENCE - 1 :])
    still = abs(last[-1] - last[0]) < STILL * abs(last[0])
    return bool(still or (np.diff(last) >= 0).all())


def _infer(F, states, settings):
    infer = functools.partial(
        dlds.infer_coefficients, F, solver=settings.solver, penalty=settings.penalty,
        smooth=settings.smooth, iterations=settings.solver_iterations,
    )
    return jax.vmap(infer)(states)


def _error(F, coefficients, states, mask):
    left = jax.vmap(functools.partial(dlds.residuals, F))(coefficients, states)
    squares = jnp.where(mask, jnp.sum(left**2, axis=-1), 0)
    return jnp.sum(squares) / jnp.sum(mask)


@functools.partial(jax.jit, static_argnames="settings")
def _iterate(F, states, mask, step, settings):
    """Return operators after an iteration, the errors before and after it, and its step."""
    coefficients = _infer(F, states, settings)
    before = _error(F, coefficients, states, mask)
    finish = dlds.normalise if settings.normalise else lambda F: F
    if settings.update == "exact":
        after = dlds.fit_operators(coefficients, states, mask)
        return finish(after), before, _error(after, coefficients, states, mask), step
    direction = dlds.operator_step(F, coefficients, states, mask)

    def attempt(step):
        moved = finish(F + step * direction)
        return moved, _error(moved, coefficients, states, mask)

    def halve(carry):
        step, tries, _, _ = carry
        return step / 2, tries + 1, *attempt(step / 2)

    grew = lambda carry: (carry[3] > before) & (carry[1] < TRIES)
    step, _, after, error = jax.lax.while_loop(grew, halve, (step, 1, *attempt(step)))
    return after, before, error, step
