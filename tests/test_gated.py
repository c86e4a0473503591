"""Recurrences whose decay changes with every step, against loops in float64 with hand adjoints."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.functional import gated_recurrence, selective_recurrence

ENGINES = ("sequential", "associative", "chunked")


def loop(x, b, c, log_decay, start, resets, y_bar, final_bar):
    """Return y, the final state and cotangents by name; a head of its own for each b, c and decay.

    x (B, L, H, P), b, c, log_decay (B, L, H, N), start (B, H, N, P), resets (B, L).
    """
    x, b, c, log_decay, start, y_bar = (
        np.asarray(a, np.float64) for a in (x, b, c, log_decay, start, y_bar)
    )
    length = x.shape[1]
    decay = np.exp(log_decay) * ~resets[:, :, None, None]
    states, y = [start], []
    for t in range(length):
        state = decay[:, t, ..., None] * states[-1] + b[:, t, ..., None] * x[:, t, :, None]
        states.append(state)
        y.append(np.einsum("bhnp,bhn->bhp", state, c[:, t]))
    adjoint = np.asarray(final_bar, np.float64)
    bars = {name: np.zeros_like(a) for name, a in dict(x=x, b=b, c=c, log_decay=log_decay).items()}
    for t in reversed(range(length)):
        adjoint = adjoint + c[:, t, ..., None] * y_bar[:, t, :, None]
        bars["x"][:, t] = np.einsum("bhnp,bhn->bhp", adjoint, b[:, t])
        bars["b"][:, t] = np.einsum("bhnp,bhp->bhn", adjoint, x[:, t])
        bars["c"][:, t] = np.einsum("bhnp,bhp->bhn", states[t + 1], y_bar[:, t])
        adjoint = decay[:, t, ..., None] * adjoint
        bars["log_decay"][:, t] = np.sum(adjoint * states[t], axis=-1)
    return np.stack(y, 1), states[-1], bars | {"initial_state": adjoint}


def selective_loop(arguments, cotangents):
    """The same for `selective_recurrence`: channels are heads with one column."""
    x, dt, A, b, c, start = (
        np.asarray(arguments[name], np.float64)
        for name in ("x", "dt", "A", "b", "c", "initial_state")
    )
    channels, groups = x.shape[2], b.shape[2]
    each = channels // groups
    y, final, bars = loop(
        x[..., None], np.repeat(b, each, 2), np.repeat(c, each, 2), dt[..., None] * A,
        start[..., None], arguments["resets"], cotangents[0][..., None], cotangents[1][..., None],
    )
    by_group = lambda a: a.reshape(*a.shape[:2], groups, each, -1).sum(3)
    return y[..., 0], final[..., 0], {
        "x": bars["x"][..., 0],
        "dt": np.sum(bars["log_decay"] * A, -1),
        "A": np.einsum("bldn,bld->dn", bars["log_decay"], dt),
        "b": by_group(bars["b"]),
        "c": by_group(bars["c"]),
        "initial_state": bars["initial_state"][..., 0],
    }


def gated_loop(arguments, cotangents):
    """The same for `gated_recurrence`, with groups and shared decays."""
    b, c, log_decay = (arguments[name] for name in ("b", "c", "log_decay"))
    heads, groups = arguments["x"].shape[2], b.shape[2]
    each, alike = heads // groups, log_decay.ndim == 3
    wide = np.repeat(log_decay[..., None], b.shape[-1], -1) if alike else log_decay
    y, final, bars = loop(
        arguments["x"], np.repeat(b, each, 2), np.repeat(c, each, 2), wide,
        arguments["initial_state"], arguments["resets"], *cotangents,
    )
    for name in ("b", "c"):
        bars[name] = bars[name].reshape(*b.shape[:2], groups, each, -1).sum(3)
    if alike:
        bars["log_decay"] = bars["log_decay"].sum(-1)
    return y, final, bars


def selective_problem(rng, length, batch=2, channels=6, states=3, groups=1):
    """Return arguments and cotangents of `selective_recurrence`."""
    normal = lambda *shape: np.float32(rng.normal(size=shape))
    arguments = {
        "x": normal(batch, length, channels),
        "dt": np.float32(np.exp(rng.uniform(np.log(1e-3), 0, (batch, length, channels)))),
        "A": -np.float32(rng.uniform(0.2, 4, (channels, states))),
        "b": normal(batch, length, groups, states),
        "c": normal(batch, length, groups, states),
        "initial_state": 3 * normal(batch, channels, states),
        "resets": rng.uniform(size=(batch, length)) < 0.03,
    }
    return arguments, (normal(batch, length, channels), normal(batch, channels, states))


def gated_problem(rng, length, alike, batch=2, heads=4, groups=2, rows=3, columns=5):
    """Return arguments and cotangents of `gated_recurrence`."""
    normal = lambda *shape: np.float32(rng.normal(size=shape))
    decays = (batch, length, heads) + (() if alike else (rows,))
    arguments = {
        "x": normal(batch, length, heads, columns),
        "b": normal(batch, length, groups, rows),
        "c": normal(batch, length, groups, rows),
        "log_decay": -np.float32(np.exp(rng.uniform(np.log(1e-4), np.log(3), decays))),
        "initial_state": 3 * normal(batch, heads, rows, columns),
        "resets": rng.uniform(size=(batch, length)) < 0.03,
    }
    return arguments, (normal(batch, length, heads, columns), normal(batch, heads, rows, columns))


def results_of(function, arguments, cotangents, **settings):
    """Return the two results and cotangents by name."""
    resets = arguments["resets"]
    trained = {name: value for name, value in arguments.items() if name != "resets"}

    @jax.jit
    def run(trained, cotangents):
        call = lambda trained: function(**trained, resets=resets, **settings)
        results, pull_back = jax.vjp(call, trained)
        return *results, pull_back(cotangents)[0]

    return run(trained, cotangents)


def assert_close(actual, expected, tolerance=1e-5):
    """Compare two results and cotangents, relative to the largest entry of each array."""
    *results, bars = actual
    *expected_results, expected_bars = expected
    pairs = dict(zip(("y", "final"), zip(results, expected_results, strict=True), strict=True))
    pairs |= {name: (bars[name], expected_bars[name]) for name in bars}
    for name, (got, wanted) in pairs.items():
        peak = np.max(np.abs(wanted))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * peak, err_msg=name)


CASES = {
    "selective": (selective_recurrence, selective_problem, selective_loop),
    "selective, groups": (
        selective_recurrence, functools.partial(selective_problem, groups=2), selective_loop
    ),
    "one decay": (gated_recurrence, functools.partial(gated_problem, alike=True), gated_loop),
    "decay of rows": (gated_recurrence, functools.partial(gated_problem, alike=False), gated_loop),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("length", [1, 5, 300])
@pytest.mark.parametrize("case", CASES)
def test_engines_match_a_float64_loop(rng, case, length, engine):
    function, problem, oracle = CASES[case]
    arguments, cotangents = problem(rng, length)
    actual = results_of(function, arguments, cotangents, engine=engine)
    # Float32 sums of a few hundred terms: 2e-6 seen.
    assert_close(actual, oracle(arguments, cotangents))
