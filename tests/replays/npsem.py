"""NPSEM: the game of an independent reference, in float64; there is no program."""

import jax
import jax.numpy as jnp
import numpy as np
from recordings import meta_of, under

from pspike_jax.functional import moments
from pspike_jax.recipes import minimax


def replay(arrays):
    with jax.enable_x64(True):
        return {key: np.asarray(value) for key, value in replay_wide(arrays).items()}


def replay_wide(arrays):
    meta = meta_of(arrays)
    start = under(arrays, "param/")
    players = minimax.Moments(**{name: jnp.asarray(value) for name, value in start.items()})
    settings = {key: meta[key] for key in ("alpha", "step_size", "radius")}
    data = [jnp.asarray(arrays[name]) for name in ("input", "target", "instrument")]
    play = lambda steps: minimax.fit_moments(
        players, *(a[:steps] for a in data), jnp.asarray(arrays["grid"]), **settings
    )
    x, y, z = (a[0] for a in data)

    def value(theta, omega):
        f = moments.two_layer(theta, players.theta_signs, x)
        u = moments.two_layer(omega, players.omega_signs, z)
        return jnp.mean(moments.moment_game(f, u, y, meta["alpha"])), (f, u)

    run = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
    (loss, (f, u)), (theta_bar, omega_bar) = run(players.theta, players.omega)
    one, whole = play(1), play(None)
    return {
        "output/f": f, "output/u": u, "loss": loss,
        "grad/theta": theta_bar, "grad/omega": omega_bar,
        "steps/theta/1": one.players.theta, "steps/omega/1": one.players.omega,
        "steps/theta/last": whole.players.theta, "steps/omega/last": whole.players.omega,
        "steps/losses": whole.losses, "steps/mean_on_grid": whole.mean,
        "steps/last_on_grid": whole.last,
    }


SYSTEMS = {"NPSEM": replay}
