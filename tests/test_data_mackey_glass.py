"""The Mackey-Glass series: solutions of its equation, from histories that no two splits share."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from pspike_jax.data import generate_mackey_glass
from pspike_jax.data.mackey_glass import WARM_UP, solve_mackey_glass

FEW = {"tau": 17, "length": 60, "horizon": 15, "num_train": 4, "num_validation": 2, "num_test": 3}


def by_steps(history, tau, intervals):
    """Solve one delay after the other, each with the last one's solution as its past."""
    past, now, found = lambda t: history, history, []
    for _ in range(intervals):
        rate = lambda t, x, past=past: 0.2 * past(t) / (1 + past(t) ** 10) - 0.1 * x
        solved = solve_ivp(
            rate, (0, tau), [now], rtol=1e-11, atol=1e-12, dense_output=True, max_step=0.5
        )
        found.append(solved.sol(np.arange(1, tau + 1))[0])
        past, now = (lambda t, sol=solved.sol: sol(t)[0]), solved.y[0, -1]
    return np.concatenate(found)


@pytest.mark.parametrize("tau", [17, 1])
def test_solve_mackey_glass_matches_the_method_of_steps(tau):
    """Order 4 at steps of 0.1 times rates of 0.1 to 1: 1e-9 over four delays."""
    history = np.array([0.6, 1.3])
    expected = [by_steps(one, tau, 4) for one in history]
    np.testing.assert_allclose(solve_mackey_glass(history, tau, 4 * tau), expected, atol=1e-8)


def test_generate_mackey_glass_holds_the_solutions_of_its_histories():
    task, other = (generate_mackey_glass(**FEW, seed=seed) for seed in (3, 4))
    series = np.concatenate([split.inputs[..., 0] for split in task.splits().values()])
    assert series.shape == (9, 60) and task.objective.horizon == 15
    assert len(np.unique(series[:, 0])) == 9
    history = np.random.default_rng(3).uniform(0.5, 1.5, 9)
    whole = solve_mackey_glass(history, 17, WARM_UP + 60)
    np.testing.assert_allclose(series, whole[:, WARM_UP:] - 1, rtol=0, atol=1e-7)
    assert (other.test.inputs != task.test.inputs).all()
    assert -0.8 < series.min() < -0.3 and 0.1 < series.max() < 0.5  # where the attractor lies


def test_generate_mackey_glass_refuses_a_series_that_ends_before_its_first_answer():
    with pytest.raises(ValueError, match="more than the horizon 60"):
        generate_mackey_glass(**FEW | {"horizon": 60}, seed=0)
