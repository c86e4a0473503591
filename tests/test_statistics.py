"""Batch statistics measured afresh: those of the weights that are validated, of nothing else."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import one_device

import pspike_jax
from pspike_jax.data import Task, from_arrays, train_batch
from pspike_jax.nn.norm import Normalization
from pspike_jax.training import OptimizerSettings, TrainSettings, create_state, fit
from pspike_jax.training.statistics import measure_statistics


class Normed(nn.Module):
    """Outputs from inputs that are normalized over the batch, by a norm of the house or Flax's.

    Attributes:
      momentum: weight of the old statistics.
      flax: whether the norm is Flax's, whose variance is biased and which has no mask.
    """

    momentum: float
    flax: bool = False
    stochastic = False

    @nn.compact
    def __call__(self, inputs, lengths, train=False, **_):
        mask = jnp.arange(inputs.shape[1])[None] < lengths[:, None]
        if self.flax:
            x = nn.BatchNorm(not train, momentum=self.momentum, name="norm")(inputs)
        else:
            x = Normalization("batch", self.momentum, name="norm")(inputs, mask, train)
        return nn.Dense(3)(jnp.mean(x, 1)), {"sites": {}}


def ragged_task() -> Task:
    rng = np.random.default_rng(0)
    y = np.arange(80) % 3
    x = 3 + (1 + y)[:, None, None] * rng.normal(size=(80, 5, 2))
    lengths = rng.integers(2, 6, 80)
    return from_arrays(x.astype(np.float32), y, lengths=lengths, seed=0)


# What 1 - m loses to rounding, 6e-8 / (1 - m), is the error of a statistic.
@pytest.mark.parametrize(
    ("momentum", "flax", "rtol"),
    [(0.0, False, 1e-5), (0.9, False, 1e-5), (0.999, False, 2e-4), (0.99, True, 2e-5)],
)
def test_statistics_are_the_means_over_the_newest_batches(momentum, flax, rtol):
    task, settings = ragged_task(), TrainSettings(steps=9, batch_size=8, statistics_batches=3)
    state = create_state(Normed(momentum, flax), task, settings, one_device())
    running = jax.tree.map(lambda leaf: leaf + 5, state.batch_stats)  # must not be seen
    state = state.replace(step=jnp.int32(7), batch_stats=running)
    found = measure_statistics(state, task.train, settings, one_device())
    means, variances = [], []
    for step in (4, 5, 6):
        batch = train_batch(task.train, seed=0, step=step, batch_size=8)
        valid = np.arange(5) < batch["lengths"][:, None]
        values = np.float64(batch["inputs"])[np.ones_like(valid) if flax else valid]
        values = values.reshape(-1, 2)
        means.append(values.mean(0))
        variances.append(values.var(0, ddof=0 if flax else 1))
    norm = found.batch_stats["norm"]
    norm = norm if flax else norm["batch"]
    np.testing.assert_allclose(norm["mean"], np.mean(means, 0), rtol=rtol)
    np.testing.assert_allclose(norm["var"], np.mean(variances, 0), rtol=rtol)
    none = TrainSettings(steps=9, batch_size=8, statistics_batches=0)
    assert measure_statistics(state, task.train, none, one_device()) is state


def test_measuring_leaves_the_training_and_its_resumption_as_they_were(tmp_path):
    task, model = ragged_task(), Normed(0.9)

    def run(steps, workdir=None, measured=2):
        settings = TrainSettings(
            steps=steps, batch_size=8, log_every=3, eval_every=6, checkpoint_every=3,
            statistics_batches=measured, optimizer=OptimizerSettings(schedule="constant"),
        )
        return fit(
            model, task, settings, workdir=workdir, mesh=one_device(), progress=False
        ).state

    whole = run(15)
    run(6, tmp_path / "run")
    run(9, tmp_path / "run")
    grown, never = run(15, tmp_path / "run"), run(15, measured=0)
    for name in ("params", "batch_stats", "opt_state"):
        chex.assert_trees_all_equal(getattr(whole, name), getattr(grown, name))
    chex.assert_trees_all_equal(whole.params, never.params)
    jax.tree.map(lambda a, b: np.testing.assert_raises(
        AssertionError, np.testing.assert_array_equal, a, b
    ), whole.batch_stats, never.batch_stats)


def waves() -> Task:
    """Three frequencies at random phases, in noise."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 2000)
    phase = 2 * np.pi * ((y[:, None] + 1) * np.linspace(0, 1, 64) + rng.uniform(size=(2000, 1)))
    return from_arrays(np.float32(np.sin(phase) + 0.1 * rng.normal(size=(2000, 64))), y, seed=0)


@pytest.mark.parametrize("name", pspike_jax.list_models(kind="classifier"))
def test_default_settings_train_every_model_and_validation_does_not_swing(name):
    """With running averages silif's validation stayed at chance while training was at 100 %."""
    task, sizes = waves(), {"widths": (64, 64), "d_model": 32, "n_layers": 2}
    fields = {field.name for field in pspike_jax.describe_model(name).fields}
    sizes = {field: size for field, size in sizes.items() if field in fields}
    model = pspike_jax.create_model(name, **task.model_fields, **sizes)
    settings = TrainSettings(steps=300, eval_every=60)  # as many as in the README
    history = fit(model, task, settings, mesh=one_device(), progress=False).history
    merits = [line["validation/accuracy"] for line in history if "validation/accuracy" in line]
    assert merits[-1] >= 0.95 and min(merits[2:]) >= 0.9, merits
