"""The game for a conditional moment: its step by any optimizer, and what it is for."""

import jax
import jax.numpy as jnp
import numpy as np

import pspike_jax
from pspike_jax.data.instrument import draw_instrument, load_instrument, truth, unit_features
from pspike_jax.functional.moments import project
from pspike_jax.recipes import minimax


def test_descent_of_the_model_is_the_simultaneous_step_of_both_players():
    model = pspike_jax.create_model("npsem", "tiny")
    task = load_instrument(seed=0, num_train=20)
    batch = {"inputs": jnp.asarray(task.train.inputs), "targets": jnp.asarray(task.train.targets)}
    boxed = model.init(jax.random.key(0), batch["inputs"])
    params = jax.tree.map(
        lambda b: b.unbox(), boxed["params"], is_leaf=lambda b: hasattr(b, "unbox")
    )
    noise = np.random.default_rng(0).normal(size=params["f"]["weights"].shape)
    params["f"]["weights"] = params["f"]["weights"] + jnp.asarray(noise, jnp.float32)

    def loss(params):
        outputs = model.apply({"params": params}, batch["inputs"])[0]
        losses, weights, _ = task.objective(outputs, batch)
        return jnp.sum(losses * weights) / jnp.sum(weights)

    bar = jax.grad(loss)(params)
    signs = jnp.where(jnp.arange(16) < 8, 1.0, -1.0)
    players = minimax.Moments(params["f"]["weights"], params["u"]["weights"], signs, signs)
    x, z = batch["inputs"][None, :, 0, :2], batch["inputs"][None, :, 0, 2:]
    path = minimax.fit_moments(
        players, x, batch["targets"][None], z, x[0, :3], alpha=task.objective.alpha, step_size=0.1
    )
    for after, name in ((path.players.theta, "f"), (path.players.omega, "u")):
        expected = params[name]["weights"] - 0.1 * bar[name]["weights"]
        np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
    assert np.any(bar["u"]["weights"]) and np.any(bar["f"]["weights"])


def test_projection_stops_at_the_ball():
    center, away = np.ones((3, 2), np.float32), np.float32([[3, 0], [0, 4], [0, 0]])
    np.testing.assert_allclose(project(center + away, center, 2.5), center + away / 2, rtol=1e-6)
    np.testing.assert_array_equal(project(center + away, center, 6.0), center + away)


def test_the_instrument_tells_what_least_squares_does_not():
    rng = np.random.default_rng(1)
    steps, batch = 3000, 32
    drawn = draw_instrument(rng, steps * batch)
    parts = [unit_features(a).reshape(steps, batch, 2) for a in (drawn.x, drawn.z)]
    y = drawn.y.reshape(steps, batch).astype(np.float32)
    grid = np.linspace(-3, 3, 31)
    players = minimax.draw_moments(jax.random.key(0), 64, 2, 2)
    path = minimax.fit_moments(
        players, parts[0], y, parts[1], jnp.asarray(unit_features(grid)), alpha=0.01, step_size=0.3
    )
    error = np.mean((np.asarray(path.mean) - truth(grid)) ** 2)
    powers = np.polyfit(drawn.x, drawn.y, 7)  # what Y is for X, whatever caused both
    biased = np.mean((np.polyval(powers, grid) - truth(grid)) ** 2)
    assert np.isfinite(error) and error < biased, (error, biased)
