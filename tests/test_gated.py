"""Recurrences whose decay changes with every step, against loops in float64 with hand adjoints."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from pspike_jax.functional import explain_engine, gated_recurrence, selective_recurrence
from pspike_jax.functional.gated import (
    lanes as lanes_of_time,
    selective,
    sequence_parallel_gated,
    sequence_parallel_selective,
)

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


def test_losses_of_decays_are_exact_near_none_and_near_all(rng):
    dt = np.float32(np.exp(rng.uniform(-30, 4.5, (40, 1, 500))))
    dt[0, 0, :4] = 0, 88.5, 1e6, np.inf
    steps = lanes_of_time.Steps(None, jnp.asarray(dt), None, None)
    for sign in (-1, 1):
        dt = np.where(sign * dt < 88, dt, 0) if sign > 0 else dt
        rates = jnp.full((1, 1, 1), sign, jnp.float32)
        found = jax.jit(lanes_of_time.losses_of)(steps._replace(dt=jnp.asarray(dt)), rates)
        expected = np.expm1(np.float64(sign * dt))[:, :, None]
        # Two roundings of results of either sign, and what the polynomial leaves out.
        np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-44)


@pytest.mark.parametrize("lanes", [2, 4])
def test_lanes_of_accelerators_match_a_float64_loop(rng, monkeypatch, lanes):
    # Where programs run side by side in lanes is decided by platform; here it is done on a CPU.
    monkeypatch.setattr(
        selective, "_per_platform", lambda function, *arguments: function(lanes, *arguments)
    )
    for groups in (1, 2):
        arguments, cotangents = selective_problem(rng, 150, groups=groups)
        actual = results_of(selective_recurrence, arguments, cotangents, engine="chunked")
        assert_close(actual, selective_loop(arguments, cotangents))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", ["one decay", "decay of rows"])
def test_decays_near_zero_and_one_keep_all_digits(rng, case, engine):
    function, problem, oracle = CASES[case]
    arguments, cotangents = problem(rng, 200)
    shape = arguments["log_decay"].shape
    # In one chunk: decays of exp(-80) and below beside decays whose float32 value is 1.
    small, large = -np.exp(rng.uniform(-20, -2, shape)), -rng.uniform(80, 300, shape)
    log_decay = np.float32(np.where(rng.uniform(size=shape) < 0.15, large, small))
    arguments |= {"log_decay": log_decay, "resets": np.zeros_like(arguments["resets"])}
    actual = results_of(function, arguments, cotangents, engine=engine)
    assert_close(actual, oracle(arguments, cotangents))
    # A decay of 0 forgets, whatever the state was.
    with_zero = arguments | {"log_decay": np.where(log_decay < -80, -np.inf, log_decay)}
    actual = results_of(function, with_zero, cotangents, engine=engine)
    assert_close(actual, oracle(arguments, cotangents))


@pytest.mark.parametrize("engine", ENGINES)
def test_selective_decays_near_zero_and_one_keep_all_digits(rng, engine):
    arguments, cotangents = selective_problem(rng, 200)
    shape = arguments["dt"].shape
    dt = np.where(rng.uniform(size=shape) < 0.15, 300, np.exp(rng.uniform(-20, -2, shape)))
    arguments |= {"dt": np.float32(dt), "resets": np.zeros_like(arguments["resets"])}
    actual = results_of(selective_recurrence, arguments, cotangents, engine=engine)
    assert_close(actual, selective_loop(arguments, cotangents))


@pytest.mark.parametrize("case", CASES)
def test_constant_decays_near_one_stay_exact_over_65536_steps(rng, case):
    function, problem, oracle = CASES[case]
    sizes = {"channels": 2, "states": 2} if "selective" in case else {"heads": 2, "columns": 1}
    arguments, cotangents = problem(rng, 2**16, batch=1, **sizes)
    arguments["resets"] = np.zeros_like(arguments["resets"])
    # exp(-1e-6) rounded to float32, 65,536 times, is wrong by 2e-3.
    for name in {"dt", "log_decay"} & set(arguments):
        arguments[name] = np.full_like(arguments[name], 1e-6 if name == "dt" else -1e-6)
    if "A" in arguments:
        arguments["A"] = -np.ones_like(arguments["A"])
    actual = results_of(function, arguments, cotangents, engine="chunked")
    assert_close(actual, oracle(arguments, cotangents))


@pytest.mark.parametrize("case", CASES)
def test_a_reset_hides_even_what_is_not_finite(rng, case):
    function, problem, _ = CASES[case]
    arguments, _ = problem(rng, 40)
    arguments["resets"][:] = False
    arguments["resets"][:, 20] = True
    spoiled = arguments | {"initial_state": np.full_like(arguments["initial_state"], np.inf)}
    for engine in ("sequential", "chunked"):
        y, final = function(**spoiled, engine=engine)
        wanted, wanted_final = function(**arguments, engine=engine)
        np.testing.assert_array_equal(y[:, 20:], wanted[:, 20:])
        np.testing.assert_array_equal(final, wanted_final)


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_activations_have_float32_states(rng, case):
    function, problem, oracle = CASES[case]
    arguments, cotangents = problem(rng, 100)
    halved = set(arguments) - {"resets", "initial_state", "A"}
    arguments = {
        name: jnp.asarray(value, jnp.bfloat16) if name in halved else value
        for name, value in arguments.items()
    }
    y, final, bars = results_of(function, arguments, cotangents, engine="chunked")
    assert y.dtype == final.dtype == jnp.float32
    assert all(bars[name].dtype == jnp.asarray(arguments[name]).dtype for name in bars)
    bars = {name: np.asarray(bar, np.float32) for name, bar in bars.items()}
    wide = {name: np.asarray(a, bool if name == "resets" else np.float32)
            for name, a in arguments.items()}
    expected = oracle(wide, cotangents)
    assert_close((y, final, {}), (*expected[:2], {}))
    # Cotangents are rounded once, to 8 bits.
    assert_close((y, final, bars), expected, tolerance=2**-8)


def test_float64_inputs_have_float64_states(rng):
    arguments, cotangents = gated_problem(rng, 70, alike=False)
    with jax.enable_x64(True):
        wide = {
            name: jnp.asarray(value, bool if name == "resets" else np.float64)
            for name, value in arguments.items()
        }
        cotangents = tuple(np.float64(bar) for bar in cotangents)
        actual = results_of(gated_recurrence, wide, cotangents, engine="chunked")
        assert_close(actual, gated_loop(arguments, cotangents), tolerance=1e-13)


@pytest.mark.parametrize("case", CASES)
def test_sequential_differentiates_forwards(rng, case):
    function, problem, _ = CASES[case]
    arguments, cotangents = problem(rng, 20)
    resets = arguments.pop("resets")
    call = functools.partial(function, resets=resets, engine="sequential")
    tangents = {name: np.float32(rng.normal(size=a.shape)) for name, a in arguments.items()}
    _, forward = jax.jvp(lambda arguments: call(**arguments), (arguments,), (tangents,))
    *_, bars = results_of(function, arguments | {"resets": resets}, cotangents, engine="chunked")
    pair = lambda a, b: np.sum(np.float64(a) * np.float64(b))
    got = sum(map(pair, forward, cotangents))
    wanted = sum(pair(bars[name], tangents[name]) for name in bars)
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def split(mesh, function, arguments):
    """Run a part of each argument's steps on each device, with the checks of `shard_map`."""
    steps = PartitionSpec("data", "sequence")
    specs = {name: steps for name in arguments} | {"initial_state": PartitionSpec("data")}
    specs |= {"A": PartitionSpec()} if "A" in arguments else {}
    return jax.shard_map(
        lambda arguments: function(**arguments, axis_name="sequence"),
        mesh=mesh, in_specs=(specs,), out_specs=(steps, PartitionSpec("data")),
    )(arguments)


@pytest.mark.parametrize("devices", [(2, 1), (1, 3), (2, 4)])
@pytest.mark.parametrize("case", CASES)
def test_time_across_devices_matches_a_float64_loop(rng, case, devices):
    function, problem, oracle = CASES[case]
    parallel = {
        selective_recurrence: sequence_parallel_selective,
        gated_recurrence: sequence_parallel_gated,
    }[function]
    mesh = jax.make_mesh(
        devices, ("data", "sequence"), devices=jax.devices()[: devices[0] * devices[1]],
        axis_types=(jax.sharding.AxisType.Auto,) * 2,
    )
    arguments, cotangents = problem(rng, 36)
    actual = results_of(lambda **a: split(mesh, parallel, a), arguments, cotangents)
    assert_close(actual, oracle(arguments, cotangents))


@pytest.mark.parametrize("case", CASES)
def test_a_program_exports_with_any_batch(rng, case):
    function, problem, _ = CASES[case]
    arguments, _ = problem(rng, 70)
    (size,) = jax.export.symbolic_shape("b")
    shapes = {
        name: jax.ShapeDtypeStruct(a.shape if name == "A" else (size, *a.shape[1:]), a.dtype)
        for name, a in arguments.items()
    }
    program = jax.jit(lambda arguments: function(**arguments))
    exported = jax.export.export(program)(shapes)
    for got, wanted in zip(exported.call(arguments), program(arguments), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_chunked_memory_does_not_follow_states_times_steps(rng, case):
    function, problem, _ = CASES[case]
    width = {"states": 16} if "selective" in case else {"rows": 64}
    arguments, cotangents = problem(rng, 2**12, batch=1, **width)

    def gradient(arguments, cotangents):
        call = lambda arguments: function(**arguments, engine="chunked")
        return jax.vjp(call, arguments)[1](cotangents)[0]

    compiled = jax.jit(gradient).lower(arguments, cotangents).compile()
    states = 4 * arguments["initial_state"].size * 2**12
    assert compiled.memory_analysis().temp_size_in_bytes < states / 2


def test_explain_engine_covers_changing_decays():
    for recurrence in ("selective", "gated"):
        said = explain_engine(4096, 256, 16, recurrence=recurrence, platform="cpu")
        assert said.startswith("chunked") and "not measured" in said
    with pytest.raises(ValueError, match="recurrence"):
        explain_engine(4096, 256, 16, recurrence="constant")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"resets": np.zeros((2, 9), np.int32)}, TypeError, "bool"),
        ({"resets": np.zeros((2, 8), bool)}, ValueError, "resets"),
        ({"engine": "fft"}, ValueError, "fft"),
        ({"c": np.zeros((2, 9, 1, 2), np.float32)}, ValueError, "c has shape"),
        ({"initial_state": np.zeros((2, 6, 2), np.float32)}, ValueError, "initial_state"),
        ({"b": np.zeros((2, 9, 4, 3), np.float32)}, ValueError, "groups"),
    ],
)
def test_bad_arguments_raise(rng, change, error, match):
    arguments, _ = selective_problem(rng, 9)
    with pytest.raises(error, match=match):
        selective_recurrence(**(arguments | change))


def close_to_recorded(actual, recorded, tolerance):
    np.testing.assert_allclose(actual, recorded, rtol=0, atol=tolerance * np.abs(recorded).max())


def test_selective_recurrence_matches_the_recorded_scan_of_mamba(golden):
    data = golden("oscillators/mamba_selective_scan_a.npz")
    inputs = {name: data[f"plain/input/{name}"] for name in ("u", "delta", "A", "B", "C")}

    def run(u, delta, A, B, C):
        u, delta, B, C = (array.swapaxes(1, 2) for array in (u, delta, B, C))
        y, final = selective_recurrence(delta * u, delta, A, B, C, engine="chunked")
        return y.swapaxes(1, 2), final

    (y, final), pull_back = jax.vjp(jax.jit(run), *inputs.values())
    close_to_recorded(y, data["plain/output"], 1e-5)
    close_to_recorded(final, data["plain/last_state"], 1e-5)
    bars = pull_back((jnp.asarray(data["loss_weight"]), jnp.zeros_like(final)))
    for name, bar in zip(inputs, bars, strict=True):
        close_to_recorded(bar, data[f"plain/grad/{name}"], 1e-4)


def test_gated_recurrence_matches_the_recorded_program_of_ssd(golden):
    data = golden("oscillators/mamba2_ssd_a.npz")
    names = ("X", "A", "B", "C", "initial_states")
    inputs = {name: data[f"minimal/input/{name}"] for name in names}

    def run(X, A, B, C, initial_states):
        start = initial_states[:, 0].swapaxes(2, 3)
        return gated_recurrence(X, B, C, A, initial_state=start, engine="chunked")

    (y, final), pull_back = jax.vjp(jax.jit(run), *inputs.values())
    close_to_recorded(y, data["minimal/output"], 1e-5)
    close_to_recorded(final.swapaxes(2, 3), data["minimal/final_state"], 1e-5)
    bars = pull_back((jnp.asarray(data["loss_weight"]), jnp.zeros_like(final)))
    for name, bar in zip(inputs, bars, strict=True):
        close_to_recorded(bar, data[f"minimal/grad/{name}"], 1e-4)


def test_gated_recurrence_matches_the_recorded_gated_linear_attention(golden):
    data = golden("oscillators/gla_a.npz")
    inputs = {name: data[f"input/{name}"] for name in ("q", "k", "v", "gk", "initial_state")}

    def run(q, k, v, gk, initial_state):
        scaled = q * q.shape[-1] ** -0.5
        return gated_recurrence(v, k, scaled, gk, initial_state=initial_state, engine="chunked")

    (y, final), pull_back = jax.vjp(jax.jit(run), *inputs.values())
    close_to_recorded(y, data["output"], 1e-5)
    close_to_recorded(final, data["final_state"], 1e-5)
    bars = pull_back((jnp.asarray(data["loss_weight"]), jnp.zeros_like(final)))
    for name, bar in zip(inputs, bars, strict=True):
        close_to_recorded(bar, data[f"grad/{name}"], 1e-4)
