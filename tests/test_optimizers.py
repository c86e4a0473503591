"""Optimizer: the schedules, and the updates of each group."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pspike_jax.training import (
    OptimizerSettings,
    TrainSettings,
    make_optimizer,
    optimizers,
)
from pspike_jax.training.optimizers import (
    make_rates,
    plateau_scale,
    schedule_share,
    static_optimizer,
    validations_since_best,
)
from pspike_jax.training.state import leaf_paths

# By path; test_zoo sees to it that every parameter of every model names its group.
GROUPS = {
    "norm/scale": "no_decay", "ssm/A_real": "dynamics", "ssm/C": "readout",
    "ssm/log_dt": "step_size", "ssm/threshold": "threshold", "ssm/weight": "decay",
}
PARAMS = {
    "ssm": {
        "A_real": jnp.ones(3), "log_dt": jnp.ones(2), "C": jnp.ones(2),
        "threshold": jnp.ones(2), "weight": jnp.ones(2),
    },
    "norm": {"scale": jnp.ones(2)},
}


TREE = {"norm": {"scale": "no_decay"}, "ssm": {
    path[4:]: group for path, group in GROUPS.items() if path.startswith("ssm")
}}


def first_update(settings, gradient):
    """Return the update of a constant gradient at the first step, leaf by leaf."""
    optimizer = make_optimizer(settings, 10, TREE)
    gradients = jax.tree.map(lambda p: jnp.full_like(p, gradient), PARAMS)
    updates, _ = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
    return dict(zip(leaf_paths(updates), (float(u[0]) for u in jax.tree.leaves(updates))))


def test_make_optimizer_moves_each_group_at_its_own_rate():
    settings = OptimizerSettings(
        learning_rate=0.1, dynamics_rate=0.01, step_size_rate=0.001, weight_decay=0.5,
        readout_rate=0.2, threshold_rate=0.02, schedule="constant",
    )
    # Adam's first step is the sign of the gradient; decay adds wd * p = 0.5, to weights and C.
    expected = {
        "norm/scale": -0.1, "ssm/A_real": -0.01, "ssm/C": -0.3, "ssm/log_dt": -0.001,
        "ssm/threshold": -0.02, "ssm/weight": -0.15,
    }
    # 1 - b2 = 0.001 is 3e-5 off in float32, half of that under the root.
    assert first_update(settings, 2.0) == pytest.approx(expected, rel=2e-5)


def test_groups_without_a_rate_of_their_own_have_the_learning_rate_and_never_decay():
    settings = OptimizerSettings(learning_rate=0.1, weight_decay=0.5, schedule="constant")
    decaying = {"ssm/C", "ssm/weight"}
    expected = {path: -0.15 if path in decaying else -0.1 for path in GROUPS}
    assert first_update(settings, 2.0) == pytest.approx(expected, rel=2e-5)  # as above


def test_make_optimizer_clips_the_global_norm():
    optimizer = make_optimizer(
        OptimizerSettings(clip_norm=1.0, b1=0.0, b2=0.0, schedule="constant"), 10
    )
    state = optimizer.init(PARAMS)
    gradients = jax.tree.map(lambda p: jnp.full_like(p, 4.0), PARAMS)
    _, state = optimizer.update(gradients, state, PARAMS)
    # With b1 = 0 the mean of gradients is the clipped gradient: 13 entries of 4.
    values = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.moments.mu)])
    np.testing.assert_allclose(values, 1 / np.sqrt(13), rtol=1e-6)


def test_optimizers_that_differ_by_numbers_are_one_constant():
    # The train state holds it as a static field: another rate must not compile another program.
    one, other = OptimizerSettings(), OptimizerSettings(learning_rate=1.0, weight_decay=0.0)
    assert static_optimizer(one) == static_optimizer(other)
    assert hash(static_optimizer(one)) == hash(static_optimizer(other))
    assert static_optimizer(one) != static_optimizer(OptimizerSettings(schedule="constant"))


def rates(settings, steps, count):
    numbers = make_rates(settings, steps)
    share = jax.jit(lambda step: schedule_share(
        settings.schedule, settings.decay_steps is not None, step, numbers
    ))
    return np.array([0.5 * float(share(jnp.int32(step))) for step in range(count)])


def test_cosine_warms_up_then_falls_and_never_rises_again():
    found = rates(OptimizerSettings(warmup_steps=4, schedule="cosine"), 20, 60)
    step = np.arange(60)
    progress = np.clip((step - 4) / 16, 0, 1)
    expected = np.where(step < 4, 0.5 * step / 4, 0.25 * (1 + np.cos(np.pi * progress)))
    np.testing.assert_allclose(found, expected, atol=1e-7)  # float32 cosine of numbers below pi
    assert np.all(np.diff(found[4:]) <= 0) and np.all(found[20:] < 1e-7)


def test_cosine_rises_again_in_a_run_longer_than_its_decay():
    settings = OptimizerSettings(warmup_steps=4, schedule="cosine", decay_steps=20)
    found = rates(settings, 100, 100)
    step = np.arange(100)
    expected = np.where(step < 4, 0.5 * step / 4, 0.25 * (1 + np.cos(np.pi * (step - 4) / 16)))
    np.testing.assert_allclose(found, expected, atol=1e-7)  # as above
    assert found[20] < 1e-7 and found[36] == 0.5


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_other_schedules_stay_at_their_peak(schedule):
    found = rates(OptimizerSettings(warmup_steps=2, schedule=schedule), 20, 40)
    np.testing.assert_allclose(found, [0, 0.25] + [0.5] * 38, rtol=1e-6)


def test_schedule_starts_at_the_peak_without_warmup():
    assert rates(OptimizerSettings(schedule="cosine"), 20, 1)[0] == 0.5


def scales_after(merits, **fields):
    settings = OptimizerSettings(schedule="plateau", plateau_factor=0.5, **fields)
    return [plateau_scale(merits[: count + 1], settings) for count in range(len(merits))]


def test_plateau_falls_after_patience_validations_without_a_better_one():
    accuracies = [0.5, 0.6, 0.6, 0.55, 0.61, 0.6, 0.61, 0.4, 0.4]
    scales = [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert scales_after(accuracies, plateau_patience=2) == scales


def test_plateau_counts_one_example_of_a_million_as_better():
    assert scales_after([0.5, 0.500001, 0.500002], plateau_patience=1) == [1, 1, 1]


def test_plateau_scale_agrees_with_that_of_optax(rng):
    settings = OptimizerSettings(schedule="plateau", plateau_factor=0.5, plateau_patience=3)
    theirs = optax.contrib.reduce_on_plateau(
        factor=0.5, patience=3, rtol=0.0, atol=optimizers.PLATEAU_TOLERANCE
    )
    state, merits = theirs.init(PARAMS), np.round(rng.random(40), 1).tolist()
    observe = jax.jit(lambda state, value: theirs.update(PARAMS, state, value=value)[1])
    for count, merit in enumerate(merits, 1):
        state = observe(state, jnp.float32(1 - merit))
        assert plateau_scale(merits[:count], settings) == float(state.scale)


def test_validations_since_best_count_from_the_first_of_equals():
    assert [validations_since_best(m) for m in ([], [1.0], [1.0, 2.0], [2.0, 2.0, 1.0])] == [
        0, 0, 0, 2
    ]


def test_the_scale_of_a_plateau_acts_on_the_whole_update():
    settings = OptimizerSettings(schedule="plateau")
    static = static_optimizer(settings)
    state = static.init(PARAMS)
    whole, half = (
        static.update(PARAMS, state, PARAMS, rates=make_rates(settings, 10, scale))[0]
        for scale in (1.0, 0.5)
    )
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, 0.5 * b), half, whole)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "linear"}, "schedule is 'linear', expected one of"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0, expected float of at least 0"),
        ({"b2": 1.0}, "b2 is 1.0"),
        ({"plateau_patience": 0}, "plateau_patience is 0"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"readout_rate": -1.0}, "readout_rate is -1.0"),
        ({"warmup_steps": 5, "decay_steps": 5}, "decay_steps is 5, expected int of at least 6"),
    ],
)
def test_optimizer_settings_name_a_wrong_value(fields, message):
    with pytest.raises(ValueError, match=message):
        OptimizerSettings(**fields)


@pytest.mark.parametrize(
    "fields", [{"steps": 10.0}, {"steps": "10"}, {"steps": True}, {"steps": 1, "seed": 0.5}]
)
def test_train_settings_refuse_what_is_not_a_whole_number(fields):
    with pytest.raises(TypeError, match="expected int"):
        TrainSettings(**fields)


def test_train_settings_refuse_a_rate_above_one():
    with pytest.raises(ValueError, match=r"firing_rate_target is 1.5, expected a rate in \[0, 1\]"):
        TrainSettings(steps=1, firing_rate_target=1.5)


def test_train_settings_keep_checkpoints_on_logged_steps():
    with pytest.raises(ValueError, match="eval_every is 25, expected a multiple of log_every = 10"):
        TrainSettings(steps=100, log_every=10, eval_every=25)
