"""STC: the contract of a model of frames, its own generator, and what recordings cannot see."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax.data.moving_digits import load_moving_digits, move
from pspike_jax.models.stc import frame_error, patched, unpatched
from pspike_jax.nn.roles import GROUPS, is_role

KEY = jax.random.key(3)


def build(**fields):
    model = pspike_jax.create_model("stc", "tiny", **fields)
    frames = jnp.asarray(np.random.default_rng(0).random((2, 5, 6, 6, 1)), jnp.float32)
    boxed = jax.jit(model.init)(KEY, frames)
    return model, boxed, nn.meta.unbox(boxed), frames


def test_it_is_a_latent_model_of_the_zoo_and_each_parameter_has_a_role():
    assert "stc" in pspike_jax.list_models(kind="latent", supports="streaming")
    assert "stc" not in pspike_jax.list_models(kind="classifier")
    assert "filter_size" in str(pspike_jax.describe_model("stc"))
    _, boxed, _, _ = build(cell="lmh")
    for leaf in jax.tree.leaves(boxed["params"], is_leaf=is_role):
        assert is_role(leaf) and len(leaf.axes) == leaf.value.ndim and leaf.group in GROUPS
        assert leaf.value.dtype == jnp.float32


@pytest.mark.parametrize("cell", ["lif", "lmh"])
def test_streams_see_frames_and_then_their_own_predictions(cell):
    model, _, variables, frames = build(cell=cell)
    whole, aux = jax.jit(functools.partial(model.apply, given=3, capture=True))(variables, frames)
    assert whole.shape == (2, 4, 6, 6, 1)
    spikes = np.asarray(aux["sites"]["cells"]["spike_array"])
    assert 0 < spikes.mean() < 1
    np.testing.assert_array_equal(aux["sites"]["cells"]["spikes"], spikes.sum((1, 2, 3, 4, 5)))
    state = model.initial_state(2, 6, 6)
    step = jax.jit(functools.partial(model.apply, capture=True, method="step"))
    for t in range(4):
        frame = frames[:, t] if t < 3 else None
        state, (predicted, one) = step(variables, state, frame)
        np.testing.assert_allclose(predicted, whole[:, t], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(
            one["sites"]["cells"]["spike_array"][:, :, 0], spikes[:, :, t]
        )
    # What is not given is not read.
    other = frames.at[:, 3:].set(7.0)
    again, _ = jax.jit(functools.partial(model.apply, given=3))(variables, other)
    np.testing.assert_allclose(again, whole, rtol=1e-5, atol=1e-5)


def loss(model, variables, frames):
    predictions, _ = model.apply(variables, frames, given=3)
    return frame_error(predictions, frames, 3)


@pytest.mark.parametrize("cell", ["plif", "lmh"])
def test_gradients_reach_each_parameter_and_do_not_change_with_remat(cell):
    model, _, variables, frames = build(cell=cell)
    bars = [
        jax.jit(jax.grad(functools.partial(loss, model.replace(remat=remat))))(variables, frames)
        for remat in ("none", "block")
    ]
    for (path, one), two in zip(jax.tree.leaves_with_path(bars[0]), jax.tree.leaves(bars[1])):
        assert np.isfinite(one).all() and np.any(one), jax.tree_util.keystr(path)
        np.testing.assert_allclose(two, one, rtol=0, atol=2e-4 * np.abs(one).max())


def test_x64_strict_promotion_and_bfloat16_change_no_type():
    model, _, variables, frames = build()
    shapes = lambda model: jax.eval_shape(
        jax.value_and_grad(functools.partial(loss, model)), variables, frames
    )
    types = lambda tree: jax.tree.map(lambda leaf: leaf.dtype, tree)
    expected = types(shapes(model))
    with jax.numpy_dtype_promotion("strict"):
        assert types(shapes(model)) == expected
        assert types(shapes(model.replace(precision="bfloat16"))) == expected
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        assert types(shapes(model)) == expected


def test_patches_are_squares_and_wrong_frames_are_named():
    frames = jnp.arange(2 * 1 * 4 * 6 * 1.0).reshape(2, 1, 4, 6, 1)
    cut = patched(frames, 2)
    np.testing.assert_array_equal(cut[0, 0, 0, 1], [2, 3, 8, 9])
    np.testing.assert_array_equal(unpatched(cut, 2), frames)
    model, _, variables, frames = build()
    with pytest.raises(ValueError, match="expected 2 frames or more"):
        model.apply(variables, frames[:, :1])
    with pytest.raises(ValueError, match="expected one of them"):
        model.apply(variables, frames, given=2, share=jnp.ones((1, 1, 1, 1, 1)))
    with pytest.raises(ValueError, match="multiple of groups"):
        pspike_jax.create_model("stc", widths=(10,))


def test_digits_move_straight_and_bounce(rng):
    films = load_moving_digits(seed=1, counts=(3, 1, 2), frames=6, size=16)
    assert [part.shape for part in films] == [(n, 6, 16, 16, 1) for n in (3, 1, 2)]
    again = load_moving_digits(seed=1, counts=(3, 1, 2), frames=6, size=16)
    for one, two in zip(films, again):
        np.testing.assert_array_equal(one, two)
    assert all(part.dtype == np.float32 and part.min() == 0 and part.max() <= 1 for part in films)
    # One white square of 8 pixels: its place is where it starts, its steps are one speed's.
    (film,) = move(np.ones((1, 1, 8, 8), np.float32), rng, 60, 20, 2.0)
    np.testing.assert_array_equal(film.sum((1, 2, 3)), 64)
    place = np.array([np.argwhere(frame[..., 0])[0] for frame in film])
    assert place.min() == 0 and place.max() == 12  # walls are reached, and not passed
    assert np.abs(np.diff(place, axis=0)).max() <= 2
