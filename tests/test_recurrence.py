"""linear_recurrence against a float64 loop over time, values and gradients.

Complex cotangents follow JAX: g stands for d(loss) = Re(sum(g * dz)); see tests/oracles.py.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from pspike_jax.functional import Engine, linear_recurrence

ENGINES = ("sequential", "associative")
# Products of decays that differ from step to step cannot be formed more exactly than by rounding
# at each step: about sqrt(memory) roundings of 6e-8, at most 1e-5 for the memories used here.
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Case:
    """One random problem; the seed is the length."""

    length: int
    lead: tuple = ()
    pairs: int = 3  # P
    is_blocks: bool = False
    is_complex: bool = False
    initial: bool = True
    resets: str = ""  # "", "some", "dense", "ends"
    decay: tuple = (0.0, 1.0)  # range of |decay|; of the radius for blocks


CASES = (
    Case(1, initial=False),
    Case(1, lead=(2,), is_blocks=True, resets="ends"),
    Case(2, lead=(2,), is_complex=True, resets="dense"),
    Case(13, lead=(2, 3), pairs=1, is_complex=True, initial=False),
    Case(64, lead=(2,), resets="some"),
    Case(101, lead=(1, 2), is_blocks=True, resets="ends", decay=(0.9, 0.999)),
    Case(257, is_blocks=True, is_complex=True, initial=False, resets="some", decay=(0.9, 0.99)),
    Case(1021, pairs=2, is_complex=True, decay=(0.99, 0.9999)),
    Case(1500, lead=(2,), pairs=2, is_blocks=True, decay=(0.99, 0.999)),
    Case(4096, pairs=2, resets="some", decay=(0.98, 1.0)),
)


def _normal(rng, case, shape):
    real = rng.standard_normal(shape)
    if not case.is_complex:
        return real.astype(np.float32)
    return (real + 1j * rng.standard_normal(shape)).astype(np.complex64)


def _decay(rng, case, shape):
    """Return factors, or rotations with a radius in a basis that is not orthogonal."""
    radius, angle = rng.uniform(*case.decay, shape), rng.uniform(-np.pi, np.pi, shape)
    if not case.is_blocks:
        sign = np.exp(1j * angle) if case.is_complex else np.sign(angle)
        return (radius * sign).astype(np.complex64 if case.is_complex else np.float32)
    rotation = np.moveaxis(np.array([[np.cos(angle), -np.sin(angle)],
                                     [np.sin(angle), np.cos(angle)]]), (0, 1), (-2, -1))
    basis = np.array([[1.0, 0.5], [0.0, 1.0]])
    blocks = radius[..., None, None] * (basis @ rotation @ np.linalg.inv(basis))
    if case.is_complex:
        return (blocks * np.exp(1j * angle)[..., None, None]).astype(np.complex64)
    return blocks.astype(np.float32)


def _resets(rng, case):
    if not case.resets:
        return None
    rate = {"some": 4 / case.length, "dense": 0.5, "ends": 0.0}[case.resets]
    resets = rng.random(case.lead + (case.length,)) < rate
    if case.resets == "ends":
        resets[..., [0, -1]] = True
    return resets


@functools.lru_cache
def problem(case):
    """Return (float32 arguments by name, resets, cotangent of the states)."""
    rng = np.random.default_rng(case.length)
    pair = (2,) if case.is_blocks else ()
    shape = case.lead + (case.length, case.pairs)
    arguments = {"decay": _decay(rng, case, shape), "drive": _normal(rng, case, shape + pair)}
    if case.initial:
        arguments["initial_state"] = 3 * _normal(rng, case, case.lead + (case.pairs,) + pair)
    return arguments, _resets(rng, case), _normal(rng, case, shape + pair)


@functools.partial(jax.jit, static_argnames="engine")
def value_and_pullback(arguments, resets, cotangent, engine):
    """Return the states and the cotangents of the arguments, compiled as one program."""
    def system(arguments):
        return linear_recurrence(**arguments, resets=resets, engine=engine)

    states, pullback = jax.vjp(system, arguments)
    return states, pullback(cotangent)[0]


@functools.lru_cache
def computed(case, engine):
    return jax.device_get(value_and_pullback(*problem(case), engine))


def assert_close(actual, expected, tolerance=TOLERANCE, name=""):
    """Compare to within a fraction of the largest expected magnitude."""
    assert actual.shape == expected.shape, (name, actual.shape, expected.shape)
    peak = np.max(np.abs(expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * peak, err_msg=name)


def _label(case):
    return f"L{case.length}{'-blocks' if case.is_blocks else ''}"


@pytest.mark.parametrize("case", [CASES[4], CASES[5], CASES[6]], ids=_label)
def test_oracle_gradient_matches_finite_differences(case):
    arguments, resets, states_bar = problem(case)
    rng = np.random.default_rng(0)
    moves = {name: oracles.double(_normal(rng, case, a.shape)) for name, a in arguments.items()}

    def loss(step):
        moved = {name: oracles.double(a) + step * moves[name] for name, a in arguments.items()}
        return np.sum(states_bar * oracles.linear_recurrence(**moved, resets=resets)).real

    gradients = oracles.linear_recurrence_gradients(states_bar, **arguments, resets=resets)
    slope = sum(np.sum(gradients[name] * move).real for name, move in moves.items())
    # Central differences with step 1e-6 in float64: truncation 1e-10, rounding 1e-10 of the loss.
    np.testing.assert_allclose((loss(1e-6) - loss(-1e-6)) / 2e-6, slope, rtol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=_label)
def test_linear_recurrence_matches_float64_loop(case, engine):
    arguments, resets, _ = problem(case)
    states, _ = computed(case, engine)
    assert states.dtype == (np.complex64 if case.is_complex else np.float32)
    assert_close(states, oracles.linear_recurrence(**arguments, resets=resets))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=_label)
def test_linear_recurrence_gradients_match_float64_adjoint(case, engine):
    arguments, resets, states_bar = problem(case)
    _, gradients = computed(case, engine)
    expected = oracles.linear_recurrence_gradients(states_bar, **arguments, resets=resets)
    for name, gradient in gradients.items():
        assert_close(gradient, expected[name], name=name)


SHARED = (
    Case(50, lead=(2,), resets="some"),
    Case(51, lead=(2,), is_blocks=True, resets="some", decay=(0.9, 0.999)),
)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", SHARED, ids=_label)
def test_linear_recurrence_shares_a_decay_of_length_one(case, engine):
    arguments, resets, states_bar = problem(case)
    decay = arguments["decay"][:1, :1]
    states, gradients = value_and_pullback(arguments | {"decay": decay}, resets, states_bar, engine)
    full = arguments | {"decay": np.broadcast_to(decay, arguments["decay"].shape)}
    assert_close(np.asarray(states), oracles.linear_recurrence(**full, resets=resets))
    expected = oracles.linear_recurrence_gradients(states_bar, **full, resets=resets)
    expected["decay"] = expected["decay"].sum(axis=(0, 1), keepdims=True)
    for name, gradient in gradients.items():
        assert_close(np.asarray(gradient), expected[name], name=name)


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_recurrence_copies_no_shared_block(engine):
    arguments, _, _ = problem(SHARED[1])
    decay = arguments["decay"][:1, :1]
    run = jax.jit(functools.partial(linear_recurrence, engine=engine))
    text = run.lower(decay, arguments["drive"]).as_text()
    blocks = re.findall(r"tensor<((?:\d+x)*2x2)xf32>", text)
    # The terms of a product of two blocks are the most; 51 steps' worth would be a copy for each.
    assert max(np.prod([int(size) for size in shape.split("x")]) for shape in blocks) <= (
        2 * decay.size
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", [CASES[4], CASES[5]], ids=_label)
def test_linear_recurrence_splits_at_any_point_when_the_state_is_carried(case, engine):
    arguments, resets, _ = problem(case)
    time = -3 if case.is_blocks else -2
    run = jax.jit(functools.partial(linear_recurrence, engine=engine))
    states, carried = [], arguments["initial_state"]
    for start, stop in ((0, 1), (1, 37), (37, case.length)):
        def cut(array, axis):
            return np.take(array, np.arange(start, stop), axis=axis)

        part = run(cut(arguments["decay"], time - case.is_blocks), cut(arguments["drive"], time),
                   initial_state=carried, resets=cut(resets, -1))
        states.append(part)
        carried = np.take(np.asarray(part), -1, axis=time)
    assert_close(np.concatenate(states, axis=time),
                 oracles.linear_recurrence(**arguments, resets=resets))


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_recurrence_is_causal_and_cut_by_resets_by_gradient(engine):
    arguments, _, _ = problem(Case(30, pairs=1, decay=(0.5, 0.9)))
    resets = np.zeros(30, bool)
    resets[[0, 11]] = True

    def states(drive, initial_state):
        return linear_recurrence(arguments["decay"], drive, initial_state=initial_state,
                                 resets=resets, engine=engine)[:, 0]

    by_drive, by_state = jax.jit(jax.jacrev(states, argnums=(0, 1)))(
        arguments["drive"], arguments["initial_state"])
    by_drive = np.asarray(by_drive)[..., 0]
    influence = np.tril(np.ones((30, 30), bool))
    influence[11:, :11] = False
    np.testing.assert_array_equal(by_drive != 0, influence)
    np.testing.assert_array_equal(by_state, 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_recurrence_vmaps_over_any_axis(engine):
    arguments, _, _ = problem(Case(20, lead=(3,), is_blocks=True))
    run = functools.partial(linear_recurrence, engine=engine)
    states = jax.jit(jax.vmap(run, in_axes=(3, 1), out_axes=1))(
        np.moveaxis(arguments["decay"], 0, 3), np.moveaxis(arguments["drive"], 0, 1))
    expected = oracles.linear_recurrence(arguments["decay"], arguments["drive"])
    assert_close(np.moveaxis(np.asarray(states), 1, 0), expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_recurrence_of_real_numbers_keeps_a_complex_initial_state(engine):
    case = Case(40, lead=(2,), decay=(0.9, 0.999))
    arguments, resets, states_bar = problem(case)
    start = arguments["initial_state"] * np.complex64(1 - 2j)
    arguments = arguments | {"initial_state": start}
    states_bar = states_bar * np.complex64(0.5 + 1j)
    states, gradients = value_and_pullback(arguments, resets, states_bar, engine)
    assert states.dtype == np.complex64
    assert_close(np.asarray(states), oracles.linear_recurrence(**arguments))
    expected = oracles.linear_recurrence_gradients(states_bar, **arguments)
    for name, gradient in gradients.items():
        # Of a real argument the cotangent is the real part.
        wanted = expected[name] if name == "initial_state" else expected[name].real
        assert_close(np.asarray(gradient), wanted, name=name)


def test_linear_recurrence_keeps_states_in_float32_for_bfloat16_drive():
    arguments, _, _ = problem(Case(64, decay=(0.9, 0.999)))
    drive = jnp.asarray(arguments["drive"], jnp.bfloat16)
    states = jax.jit(linear_recurrence)(arguments["decay"], drive)
    assert states.dtype == jnp.float32
    assert_close(np.asarray(states), oracles.linear_recurrence(arguments["decay"], drive))


def test_linear_recurrence_takes_an_engine_by_member_or_by_string():
    arguments, _, _ = problem(CASES[4])
    programs = {}
    for name in ENGINES:
        for engine in (name, Engine(name)):
            programs[engine.__class__, name] = jax.jit(
                lambda a: linear_recurrence(**a, engine=engine)).lower(arguments).as_text()
    assert programs[str, "sequential"] == programs[Engine, "sequential"]
    assert programs[str, "associative"] == programs[Engine, "associative"]
    assert programs[str, "sequential"] != programs[str, "associative"]


@pytest.mark.parametrize("engine", ["fft", "chunked", "scan"])
def test_linear_recurrence_rejects_an_engine_that_it_does_not_have(engine):
    arguments, _, _ = problem(CASES[4])
    with pytest.raises(ValueError, match=engine):
        linear_recurrence(**arguments, engine=engine)


BAD = {
    "decay of another length": {"decay": np.zeros((2, 63, 3), np.float32)},
    "decay of another width": {"decay": np.zeros((2, 64, 2), np.float32)},
    "decay without time": {"decay": np.zeros((3,), np.float32)},
    "blocks of 3x3": {"decay": np.zeros((2, 64, 3, 3, 3), np.float32)},
    "blocks for a drive without pairs": {"decay": np.zeros((2, 64, 3, 2, 2), np.float32)},
    "drive of rank 1": {"drive": np.zeros((3,), np.float32)},
    "initial_state of another width": {"initial_state": np.zeros((2, 2), np.float32)},
    "initial_state without batch": {"initial_state": np.zeros((3,), np.float32)},
    "resets of another length": {"resets": np.zeros((2, 63), bool)},
    "resets without batch": {"resets": np.zeros((64,), bool)},
    "resets that are integers": {"resets": np.zeros((2, 64), np.int32)},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
def test_linear_recurrence_rejects_bad_arguments_by_name(change):
    arguments, _, _ = problem(CASES[4])
    name, = change
    with pytest.raises((ValueError, TypeError), match=name):
        linear_recurrence(**arguments | change)
