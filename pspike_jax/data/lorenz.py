"""Spike trains of neurons that the Lorenz system drives, with the rates that made them.

The state (x1, x2, x3) moves by x1' = s (x2 - x1), x2' = x1 (r - x3) - x2, x3' = x1 x2 - b x3. Log
rates of neurons are linear in it; counts are Poisson numbers. Each of some initial conditions is
seen in several trials with the same rates, of which some are kept for validation and test.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from pspike_jax.data.batches import Task
from pspike_jax.data.split import Split
from pspike_jax.objectives import Forecast, SpikeRates

SPREAD = 0.7  # standard deviation of a neuron's log rate over time
WARM_UP = 400  # steps before the first bin: from anywhere to the attractor
STEP = 0.01  # of the integration


@dataclasses.dataclass(frozen=True)
class LorenzSettings:
    """What is drawn.

    Attributes:
      conditions: initial states.
      train_trials, validation_trials, test_trials: of each condition.
      bins: L, counts of a trial.
      neurons: K.
      held_in: neurons that are inputs, the first ones; None for all.
      forward_steps: bins after a trial's inputs that are targets; None for none.
      mean_count: spikes of a neuron in a bin, on average.
      steps_per_bin: integration steps of 0.01.
      seed: not negative.
    """

    conditions: int = 65
    train_trials: int = 14
    validation_trials: int = 2
    test_trials: int = 4
    bins: int = 50
    neurons: int = 29
    held_in: int | None = None
    forward_steps: int | None = None
    mean_count: float = 0.28
    steps_per_bin: int = 3
    seed: int = 0


class LorenzSpikes(NamedTuple):
    """Trials of one split.

    Attributes:
      counts: (n, L + F, K) int32.
      rates: (n, L + F, K) float32, expected counts.
      states: (n, L + F, 3) float32.
    """

    counts: np.ndarray
    rates: np.ndarray
    states: np.ndarray


def lorenz_path(
    start: np.ndarray,
    steps: int,
    *,
    dt: float = STEP,
    s: float = 10.0,
    r: float = 28.0,
    b: float = 8 / 3,
    euler: bool = False,
) -> np.ndarray:
    """Integrate the Lorenz system in float64.

    Args:
      start: (..., 3).
      steps: number of states, the start among them.
      dt: time of a step.
      s, r, b: of the system.
      euler: Euler's steps, of which each is exactly x' = (A0 + x1 A1) x; else Runge and Kutta's.

    Returns:
      (steps, ..., 3).
    """

    def slope(state):
        x1, x2, x3 = np.moveaxis(state, -1, 0)
        return np.stack([s * (x2 - x1), x1 * (r - x3) - x2, x1 * x2 - b * x3], axis=-1)

    path = [np.asarray(start, np.float64)]
    while len(path) < steps:
        x = path[-1]
        first = slope(x)
        if euler:
            path.append(x + dt * first)
            continue
        second = slope(x + dt / 2 * first)
        third = slope(x + dt / 2 * second)
        fourth = slope(x + dt * third)
        path.append(x + dt / 6 * (first + 2 * second + 2 * third + fourth))
    return np.stack(path)


def lorenz_spikes(settings: LorenzSettings) -> dict[str, LorenzSpikes]:
    """Draw the trials of all splits.

    Args:
      settings: what is drawn.

    Returns:
      {"train", "validation", "test": trials, those of a condition one after the other}.
    """
    rng = np.random.default_rng(settings.seed)
    bins = settings.bins + (settings.forward_steps or 0)
    start = rng.normal(size=(settings.conditions, 3)) * 8 + np.array([0, 0, 25])
    path = lorenz_path(start, WARM_UP + bins * settings.steps_per_bin)
    states = path[WARM_UP :: settings.steps_per_bin].swapaxes(0, 1)
    scaled = (states - states.mean((0, 1))) / states.std((0, 1))
    weights = rng.normal(size=(3, settings.neurons))
    drive = scaled @ (weights * SPREAD / np.linalg.norm(weights, axis=0))
    rates = np.exp(drive)
    rates *= settings.mean_count / rates.mean((0, 1))
    splits = {}
    for name in ("train", "validation", "test"):
        trials = getattr(settings, f"{name}_trials")
        expected = np.repeat(rates, trials, axis=0)
        counts = rng.poisson(expected).astype(np.int32)
        kept = np.repeat(states, trials, axis=0).astype(np.float32)
        splits[name] = LorenzSpikes(counts, expected.astype(np.float32), kept)
    return splits


def load_lorenz_spikes(
    *,
    seed: int,
    conditions: int = 65,
    bins: int = 50,
    neurons: int = 29,
    held_in: int | None = None,
    forward_steps: int | None = None,
) -> Task:
    """Generate the trials as a task: counts in, rates out.

    Args:
      seed, conditions, bins, neurons, held_in, forward_steps: of `LorenzSettings`; the same give
        the same trials as `lorenz_spikes`, which also tells their rates.

    Returns:
      Task of inputs (n, L, held_in) and targets (n, L + F, K), whose objective is `SpikeRates`.
    """
    settings = LorenzSettings(
        conditions=conditions, bins=bins, neurons=neurons, held_in=held_in,
        forward_steps=forward_steps, seed=seed,
    )
    shown = settings.held_in or settings.neurons

    def split(trials):
        inputs = trials.counts[:, : settings.bins, :shown].astype(np.float32)
        return Split(inputs, np.full(len(inputs), settings.bins, np.int32), trials.counts)

    splits = {name: split(trials) for name, trials in lorenz_spikes(settings).items()}
    objective = SpikeRates(
        settings.neurons, held_in=shown, forward_steps=settings.forward_steps or 0
    )
    return Task(name="lorenz", **splits, objective=objective)


def load_lorenz_states(*, seed: int, trials: int = 128, steps: int = 100) -> Task:
    """Generate paths to forecast: Euler's steps, from anywhere near the attractor.

    States are divided by 10, not centred: Euler's steps then stay two operators, mixed by 1 and by
    10 times the first state.

    Args:
      seed: not negative.
      trials: of training; validation and test have half as many each.
      steps: L.

    Returns:
      Task of inputs (n, L, 3), whose objective is a `Forecast` of the next state.
    """
    rng, few = np.random.default_rng(seed), max(1, trials // 2)

    def split(number):
        start = rng.normal(size=(number, 3)) * 8 + np.array([0, 0, 25])
        path = lorenz_path(start, WARM_UP + steps, euler=True)[WARM_UP:].swapaxes(0, 1)
        inputs = (path / 10).astype(np.float32)
        return Split(inputs, np.full(number, steps, np.int32), None)

    return Task("lorenz_states", split(trials), split(few), split(few), Forecast(1, 3))


def rates_explained(rates: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compare rates with those that made the spikes.

    Args:
      rates: (n, L, K) of a model.
      truth: (n, L, K).

    Returns:
      "r2", the share of the true rates' variance that is explained, averaged over neurons; and
      "r2_swapped", where the two have changed places, as LangevinFlow's program computes it.
    """
    rates, truth = (np.asarray(a, np.float64).reshape(-1, a.shape[-1]) for a in (rates, truth))
    left = ((rates - truth) ** 2).sum(axis=0)
    explained = lambda a: float(np.mean(1 - left / ((a - a.mean(axis=0)) ** 2).sum(axis=0)))
    return {"r2": explained(truth), "r2_swapped": explained(rates)}
