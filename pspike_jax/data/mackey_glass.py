"""The Mackey-Glass equation: blood cells, made in answer to how many there were a while ago.

    x'(t) = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x(t)

(M. C. Mackey and L. Glass, Science 197, 1977.) From tau of about 17 on it is chaotic, and what
comes some steps later is a common test of forecasts.
"""

import numpy as np

from pspike_jax.data.batches import Task
from pspike_jax.data.split import Split
from pspike_jax.objectives import Forecast

PARTS = 10  # integration steps of one unit of time, which is one step of a series
WARM_UP = 300  # units before the first step of a series: from its history to the attractor


def generate_mackey_glass(
    *, tau: int, length: int, horizon: int, num_train: int, num_validation: int, num_test: int,
    seed: int,
) -> Task:
    """Generate series to forecast, each from a history of its own.

    Args:
      tau: delay, at least 1; 17 and 30 are common.
      length: L, steps of one unit of time.
      horizon: steps from what is known to what is asked for; 15 is common.
      num_train: series for training.
      num_validation: series for validation.
      num_test: series for test.
      seed: not negative.

    Returns:
      Task of a forecast, inputs (n, L, 1) float32, x - 1.
    """
    if tau < 1 or length <= horizon:
        raise ValueError(
            f"tau is {tau} and length {length}, expected at least 1 and more than the horizon "
            f"{horizon}"
        )
    counts = {"train": num_train, "validation": num_validation, "test": num_test}
    history = np.random.default_rng(seed).uniform(0.5, 1.5, sum(counts.values()))
    series = solve_mackey_glass(history, tau, WARM_UP + length)[:, WARM_UP:]
    inputs = np.split((series[..., None] - 1).astype(np.float32), np.cumsum([*counts.values()]))
    parts = {
        name: Split(part, np.full(len(part), length, np.int32), None)
        for name, part in zip(counts, inputs)
    }
    return Task(f"Mackey-Glass, delay {tau}", **parts, objective=Forecast(horizon, 1))


def solve_mackey_glass(history: np.ndarray, tau: int, length: int) -> np.ndarray:
    """Integrate by the classical Runge-Kutta method of order 4.

    Halfway through a step the delayed value is that of the cubic with the values and the slopes at
    both ends.

    Args:
      history: (n,) x at all times up to 0.
      tau: delay, a whole number of units.
      length: units of time.

    Returns:
      (n, length) float64, x at times 1, 2, ..., length.
    """
    history = np.asarray(history, np.float64)
    delay, step, steps = tau * PARTS, 1 / PARTS, length * PARTS
    rate = lambda x, late: 0.2 * late / (1 + late**10) - 0.1 * x
    x = np.empty((delay + steps + 1, len(history)))  # from time -tau
    between = np.empty((delay + steps, len(history)))  # half a step later
    x[: delay + 1] = between[:delay] = history
    slope = rate(history, history)  # of what begins at time 0, where what ends there has none
    for late in range(steps):
        now = late + delay
        second = rate(x[now] + step / 2 * slope, between[late])
        third = rate(x[now] + step / 2 * second, between[late])
        fourth = rate(x[now] + step * third, x[late + 1])
        x[now + 1] = x[now] + step / 6 * (slope + 2 * second + 2 * third + fourth)
        after = rate(x[now + 1], x[late + 1])
        between[now] = (x[now] + x[now + 1]) / 2 + step / 8 * (slope - after)
        slope = after
    return x[delay + PARTS :: PARTS].T
