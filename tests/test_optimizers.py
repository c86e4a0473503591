"""Optimizer: the whole partition of parameters, the schedules, the updates of each group."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pspike_jax
from pspike_jax.training import (
    OptimizerSettings,
    TrainSettings,
    make_optimizer,
    parameter_groups,
)
from pspike_jax.training.optimizers import make_schedule, observe_validation
from pspike_jax.training.window import leaf_paths

# Every parameter of the two presets, all branches on. The paper's affine maps and C decay, as in
# the released program (its hooks spare biases and norms alone).
SHARED = {
    "backbone/blocks/input/scale": "decay",
    "backbone/blocks/input/shift": "decay",
    "backbone/blocks/input_reverse/scale": "decay",
    "backbone/blocks/input_reverse/shift": "decay",
    "backbone/blocks/output/scale": "decay",
    "backbone/blocks/output/shift": "decay",
    "backbone/blocks/mixer/linear/bias": "no_decay",
    "backbone/blocks/mixer/linear/kernel": "decay",
    "encoder/linear/bias": "no_decay",
    "encoder/linear/kernel": "decay",
    "head/linear/bias": "no_decay",
    "head/linear/kernel": "decay",
} | {
    f"backbone/blocks/{branch}/{name}": group
    for branch in ("ssm", "ssm_reverse")
    for name, group in {
        "A_real": "dynamics", "A_imag": "dynamics", "B": "dynamics", "C": "readout",
    }.items()
}
PAPER = SHARED | {
    "backbone/blocks/output_reverse/scale": "decay",
    "backbone/blocks/output_reverse/shift": "decay",
    "backbone/blocks/ssm/log_dt": "step_size",
    "backbone/blocks/ssm_reverse/log_dt": "step_size",
    "backbone/blocks/norm/layer/bias": "no_decay",
    "backbone/blocks/norm/layer/scale": "no_decay",
    "backbone/norm/layer/bias": "no_decay",
    "backbone/norm/layer/scale": "no_decay",
}
OFFICIAL = SHARED | {
    "backbone/blocks/fuse/norm/batch/bias": "no_decay",
    "backbone/blocks/fuse/norm/batch/scale": "no_decay",
    "backbone/blocks/ssm/inv_dt": "step_size",
    "backbone/blocks/ssm_reverse/inv_dt": "step_size",
    "backbone/blocks/ssm/P": "dynamics",
    "backbone/blocks/ssm_reverse/P": "dynamics",
    "backbone/blocks/ssm/D": "decay",
    "backbone/blocks/ssm_reverse/D": "decay",
}


def groups_of(preset, **fields):
    model = pspike_jax.create_model(
        "pspikessm", preset=preset, d_model=4, d_state=4, n_layers=2, vocab_size=None, **fields
    )
    rngs = {"params": jax.random.key(0), "spikes": jax.random.key(1)}
    params = jax.eval_shape(lambda: model.init(rngs, jnp.zeros((1, 8, 1))))["params"]
    return dict(zip(leaf_paths(params), jax.tree.leaves(parameter_groups(params))))


def test_parameter_groups_partition_the_paper_model():
    assert groups_of("paper", bidirectional=True, causal=False) == PAPER


def test_parameter_groups_partition_the_official_model():
    assert groups_of("official", l_max=8) == OFFICIAL


PARAMS = {
    "ssm": {"A_real": jnp.ones(3), "log_dt": jnp.ones(2), "C": jnp.ones(2)},
    "norm": {"scale": jnp.ones(2)},
}


def first_update(settings, gradient):
    """Return the update of a constant gradient at the first step, leaf by leaf."""
    optimizer = make_optimizer(settings, 10)
    gradients = jax.tree.map(lambda p: jnp.full_like(p, gradient), PARAMS)
    updates, _ = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
    return dict(zip(leaf_paths(updates), (float(u[0]) for u in jax.tree.leaves(updates))))


def test_make_optimizer_moves_each_group_at_its_own_rate():
    settings = OptimizerSettings(
        learning_rate=0.1, dynamics_rate=0.01, step_size_rate=0.001, weight_decay=0.5,
        readout_rate=0.2, schedule="constant",
    )
    # Adam's first step is the sign of the gradient; decay adds wd * p = 0.5.
    expected = {"norm/scale": -0.1, "ssm/A_real": -0.01, "ssm/C": -0.3, "ssm/log_dt": -0.001}
    # 1 - b2 = 0.001 is 3e-5 off in float32, half of that under the root.
    assert first_update(settings, 2.0) == pytest.approx(expected, rel=2e-5)


def test_make_optimizer_clips_the_global_norm():
    optimizer = make_optimizer(
        OptimizerSettings(clip_norm=1.0, b1=0.0, b2=0.0, schedule="constant"), 10
    )
    state = optimizer.init(PARAMS)
    gradients = jax.tree.map(lambda p: jnp.full_like(p, 4.0), PARAMS)
    _, state = optimizer.update(gradients, state, PARAMS)
    # With b1 = 0 the mean of gradients is the clipped gradient: 9 entries of 4 have norm 12.
    moment = optax.tree.get_all_with_path(state, "mu")
    values = np.concatenate([np.ravel(x) for x in jax.tree.leaves([m for _, m in moment])])
    np.testing.assert_allclose(values, 1 / 3, rtol=1e-6)


def test_make_optimizer_is_one_object_for_one_setting():
    # The train state holds it as a static field, so two equal settings must not compile twice.
    assert make_optimizer(OptimizerSettings(), 10) is make_optimizer(OptimizerSettings(), 10)


def rates(settings, steps, count):
    schedule = make_schedule(settings, 0.5, steps)
    return np.array([float(schedule(step)) for step in range(count)])


def test_cosine_warms_up_then_falls_and_never_rises_again():
    found = rates(OptimizerSettings(warmup_steps=4, schedule="cosine"), 20, 60)
    step = np.arange(60)
    progress = np.clip((step - 4) / 16, 0, 1)
    expected = np.where(step < 4, 0.5 * step / 4, 0.25 * (1 + np.cos(np.pi * progress)))
    np.testing.assert_allclose(found, expected, atol=1e-7)  # float32 cosine of numbers below pi
    assert np.all(np.diff(found[4:]) <= 0) and np.all(found[20:] < 1e-7)


def test_make_optimizer_moves_c_with_the_rest_unless_told_otherwise():
    settings = OptimizerSettings(learning_rate=0.1, weight_decay=0.5, schedule="constant")
    assert first_update(settings, 2.0)["ssm/C"] == pytest.approx(-0.15, rel=2e-5)  # as above


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


def test_make_schedule_starts_at_the_peak_without_warmup():
    assert rates(OptimizerSettings(schedule="cosine"), 20, 1)[0] == 0.5


def scales_after(accuracies, **fields):
    settings = OptimizerSettings(schedule="plateau", plateau_factor=0.5, **fields)
    state = make_optimizer(settings, 10).init(PARAMS)
    scales = []
    for accuracy in accuracies:
        state = observe_validation(state, jnp.float32(accuracy), settings)
        scales.append(float(state[-1].scale))
    return scales


def test_plateau_falls_after_patience_validations_without_a_better_one():
    accuracies = [0.5, 0.6, 0.6, 0.55, 0.61, 0.6, 0.61, 0.4, 0.4]
    scales = [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert scales_after(accuracies, plateau_patience=2) == scales


def test_plateau_counts_one_example_of_a_million_as_better():
    assert scales_after([0.5, 0.500001, 0.500002], plateau_patience=1) == [1, 1, 1]


def test_plateau_scales_the_update_and_not_the_decay_alone():
    settings = OptimizerSettings(schedule="plateau", plateau_factor=0.5, plateau_patience=1)
    optimizer = make_optimizer(settings, 10)
    state = optimizer.init(PARAMS)
    before, _ = optimizer.update(PARAMS, state, PARAMS)
    for accuracy in (0.5, 0.5):
        state = observe_validation(state, jnp.float32(accuracy), settings)
    after, kept = optimizer.update(PARAMS, state, PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, 0.5 * b), after, before)
    assert float(kept[-1].scale) == 0.5


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
