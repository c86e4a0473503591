"""Lines of metrics: sums of several steps, fetched a step late, and what is not finite by name."""

import numpy as np
import pytest
from tiny import tiny_settings

from pspike_jax.objectives import metrics
from pspike_jax.training import accumulator as accumulator_module
from pspike_jax.training.accumulator import MetricsAccumulator, scalars

PARAMS = {"encoder": {"bias": 0.0, "kernel": 0.0}, "head": {"kernel": 0.0}}  # three leaves


def measured(rate, *, loss=1.0, params=(1, 1, 1), gradients=(1, 1, 1)):
    """Return the metrics of a step of two examples and 100 chances to fire."""
    entry = lambda total, count: {"sum": total, "sum_sq": total**2 / count, "count": count}
    return {
        "loss": entry(2 * loss, 2),
        "accuracy": entry(1, 2),
        "firing_rate": {"sum": 100 * rate, "sum_sq": 100 * rate, "count": 100},
        "finite_params": {"sum": np.array(params)},
        "finite_gradients": {"sum": np.array(gradients)},
    }


def test_window_gives_activity_the_error_of_its_spread_between_steps():
    rates = [0.1, 0.2, 0.25, 0.4]
    window, lines = MetricsAccumulator(PARAMS, tiny_settings()), []
    for step, rate in enumerate(rates, 1):
        lines.append(window.push(step, measured(rate)))
    window.total()
    line = window.close(4)
    assert lines == [None] * 4 and window.total() is None
    assert line["train/firing_rate"] == pytest.approx(np.mean(rates), rel=1e-12)
    # Float64 sums of squares cancel to 1e-15 of 0.07 here.
    expected = np.std(rates, ddof=1) / 2
    assert line["train/firing_rate_se"] == pytest.approx(expected, rel=1e-12)
    # Independent chances would have 0.02: less than a third of it.
    assert metrics.standard_error(measured(0.2375)["firing_rate"]) < expected / 1.4


def test_scalars_leave_out_the_error_of_a_single_step():
    window = MetricsAccumulator(PARAMS, tiny_settings(log_every=1))
    window.push(1, measured(0.5))
    assert set(scalars(window.total())) == {
        "loss", "loss_se", "accuracy", "accuracy_se", "firing_rate"
    }


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"params": (1, 0, 0)}, "first non-finite parameter is encoder/kernel"),
        ({"gradients": (1, 1, 0)}, "first non-finite gradient is head/kernel"),
        ({"params": (1, 1, 0), "gradients": (0, 1, 1)}, "first non-finite parameter is head/ker"),
        ({"loss": np.inf}, "step 7: the loss is inf; every parameter and gradient is finite"),
    ],
)
def test_window_names_the_step_and_what_is_not_finite_first(step, message):
    window = MetricsAccumulator(PARAMS, tiny_settings())
    window.push(7, measured(0.5, **step))
    with pytest.raises(FloatingPointError, match=f"step 7: .*{message}|{message}"):
        window.total()


@pytest.fixture
def window():
    return MetricsAccumulator(PARAMS, tiny_settings(log_every=2))


def test_push_fetches_the_step_before_alone(window, monkeypatch):
    fetched, get = [], accumulator_module.jax.device_get
    watch = lambda x: fetched.append(x["loss"]["sum"] / 2) or get(x)
    monkeypatch.setattr(accumulator_module.jax, "device_get", watch)
    seen = []
    for step in range(1, 5):
        window.push(step, measured(0.5, loss=10 * step))
        seen.append(list(fetched))
    assert seen == [[], [10], [10, 20], [10, 20, 30]]


def test_push_returns_the_line_of_a_window_a_step_late(window):
    lines = [window.push(step, measured(0.5, loss=10 * step)) for step in range(1, 6)]
    assert [line and (line["step"], line["train/loss"]) for line in lines] == [
        None, None, (2, 15.0), None, (4, 35.0)
    ]


def test_push_names_the_step_that_was_not_finite(window):
    window.push(1, measured(0.5))
    window.push(2, measured(0.5, loss=np.nan))
    with pytest.raises(FloatingPointError, match="step 2: the loss is nan"):
        window.push(3, measured(0.5))
