"""Metrics are fetched a step late, so that the device works on while they are logged."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_settings

from pspike_jax.training import window as window_module
from pspike_jax.training.window import MetricsWindow


def measured(loss):
    one = lambda value: {"sum": jnp.float32(value), "sum_sq": jnp.float32(0), "count": jnp.float32(1)}
    finite = {"sum": jnp.ones(1)}
    return {
        "loss": one(loss), "accuracy": one(0), "finite_params": finite, "finite_gradients": finite
    }


@pytest.fixture
def window():
    return MetricsWindow({"kernel": jnp.ones(1)}, tiny_settings(log_every=2))


def test_push_fetches_the_step_before_alone(window, monkeypatch):
    fetched, get = [], window_module.jax.device_get
    monkeypatch.setattr(
        window_module.jax, "device_get", lambda x: fetched.append(float(x["loss"]["sum"])) or get(x)
    )
    seen = []
    for step in range(1, 5):
        window.push(step, measured(10 * step))
        seen.append(list(fetched))
    assert seen == [[], [10], [10, 20], [10, 20, 30]]


def test_push_returns_the_line_of_a_window_a_step_late(window):
    lines = [window.push(step, measured(10 * step)) for step in range(1, 6)]
    assert [line and (line["step"], line["train/loss"]) for line in lines] == [
        None, None, (2, 15.0), None, (4, 35.0)
    ]


def test_push_names_the_step_that_was_not_finite(window):
    window.push(1, measured(1.0))
    window.push(2, measured(np.nan))
    with pytest.raises(FloatingPointError, match="step 2: the loss is nan"):
        window.push(3, measured(1.0))
