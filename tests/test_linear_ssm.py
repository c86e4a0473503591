"""linear_ssm against a float64 loop over time, engine by engine, values and gradients.

Complex cotangents follow JAX: g stands for d(loss) = Re(sum(g * dz)); see tests/oracles.py.
"""

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from pspike_jax.functional import Engine, cpu, linear_ssm

ENGINES = ("sequential", "associative", "fft", "chunked")
NAMES = ("u", "Lambda_bar", "B_bar", "C", "D", "initial_state")


@dataclasses.dataclass(frozen=True)
class Case:
    """One random problem; the seed is the length, so that each case is reproducible alone."""

    length: int
    lead: tuple = ()
    features: int = 3
    states: int = 2
    shared: str = ""  # which of Lambda_bar ("L") and B_bar ("B") are (N,)
    sides: int = 1
    skip: bool = False
    initial: bool = False
    resets: str = ""  # "", "some", "dense", "ends"
    decay: tuple = (0.2, 0.99)  # range of |Lambda_bar|


CASES = (
    Case(1, initial=True, skip=True),
    Case(2, lead=(2,), sides=2, skip=True, resets="dense", initial=True),
    Case(7, features=1, states=1, sides=2, decay=(0.9, 0.999)),
    Case(31, lead=(2, 3), shared="LB", sides=2, skip=True, initial=True),
    Case(61, lead=(3,), sides=2, shared="L", resets="ends", initial=True, decay=(0.9, 0.999)),
    Case(100, lead=(2,), sides=2, initial=True, resets="dense", decay=(0.9, 0.999)),
    Case(128, lead=(2,), shared="B", skip=True, decay=(0.0, 0.0)),
    Case(257, lead=(2,), sides=2, initial=True, decay=(0.999, 0.9999)),
    Case(4096, features=2, sides=2, skip=True, initial=True, resets="some", decay=(0.999, 0.99995)),
)
GOOD = Case(127, lead=(2,), skip=True, initial=True, decay=(0.9, 0.999))
LONG = Case(16384, features=2, sides=2, skip=True, initial=True, decay=(0.9999, 1.0))
LONG_SEGMENTS = Case(16383, features=2, initial=True, resets="some", decay=(0.9999, 1.0))
LONGEST = Case(65536, features=2, sides=2, skip=True, initial=True, decay=(0.9999, 1.0))

LONG_RUNS = (*((LONG, engine) for engine in ENGINES), (LONGEST, "chunked"),
             *((LONG_SEGMENTS, engine) for engine in ("sequential", "associative", "chunked")))


def _complex(rng, *shape):
    values = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return values.astype(np.complex64)


def _decays(rng, low_high, shape):
    radius, angle = rng.uniform(*low_high, shape), rng.uniform(-np.pi, np.pi, shape)
    return (radius * np.exp(1j * angle)).astype(np.complex64)


def _resets(rng, kind, shape):
    if not kind:
        return None
    resets = rng.random(shape) < {"some": 4 / shape[-1], "dense": 0.5, "ends": 0.0}[kind]
    if kind == "ends":
        resets[..., [0, -1]] = True
    return resets


@functools.lru_cache
def problem(case):
    """Return (float32 arguments by name, resets, cotangents of y and final_state)."""
    rng = np.random.default_rng(case.length)
    N, H = case.states, case.features
    shapes = {name: (N,) if name[0] in case.shared else (H, N) for name in ("Lambda_bar", "B_bar")}
    arguments = {
        "u": rng.standard_normal(case.lead + (case.length, H)).astype(np.float32),
        "Lambda_bar": _decays(rng, case.decay, shapes["Lambda_bar"]),
        "B_bar": _complex(rng, *shapes["B_bar"]),
        "C": _complex(rng, *((2, H, N) if case.sides == 2 else (H, N))),
    }
    if case.skip:
        arguments["D"] = rng.standard_normal(H).astype(np.float32)
    if case.initial:
        arguments["initial_state"] = 3 * _complex(rng, *case.lead, H, N)
    resets = _resets(rng, case.resets, case.lead + (case.length,))
    y_bar = rng.standard_normal(arguments["u"].shape).astype(np.float32)
    return arguments, resets, (y_bar, _complex(rng, *case.lead, H, N))


# The long sequences are compiled as users compile them; see conftest.py.
AS_USERS = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
}
if "xla_cpu_use_fusion_emitters" in os.environ.get("XLA_FLAGS", ""):  # of jaxlibs that know it
    AS_USERS["xla_cpu_use_fusion_emitters"] = True


def value_and_pullback(arguments, resets, cotangents, engine):
    """Return (y, final_state) and the cotangents of the arguments."""
    def system(arguments):
        return linear_ssm(**arguments, resets=resets, engine=engine)

    outputs, pullback = jax.vjp(system, arguments)
    return outputs, pullback(cotangents)[0]


@functools.lru_cache
def computed(case, engine):
    options = AS_USERS if (case, engine) in LONG_RUNS else None
    run = jax.jit(functools.partial(value_and_pullback, engine=engine), compiler_options=options)
    return jax.device_get(run(*problem(case)))


@functools.lru_cache
def expected_values(case):
    arguments, resets, _ = problem(case)
    return oracles.linear_ssm(**arguments, resets=resets)


@functools.lru_cache
def expected_gradients(case):
    arguments, resets, cotangents = problem(case)
    return oracles.linear_ssm_gradients(*cotangents, **arguments, resets=resets)


def assert_close(actual, expected, tolerance, name=""):
    """Compare to within a fraction of the largest expected magnitude."""
    assert actual.shape == expected.shape, (name, actual.shape, expected.shape)
    peak = np.max(np.abs(expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * peak, err_msg=name)


def value_tolerance(engine):
    """The stated accuracy: scans round the state at each step, convolutions do not."""
    return 5e-5 if engine in ("sequential", "associative") else 1e-5


def gradient_tolerance(engine, length):
    """The stated accuracy: 1e-5, and 1e-4 for the scans beyond 4,096 steps."""
    return 1e-4 if engine in ("sequential", "associative") and length > 4096 else 1e-5


def _label(case):
    return f"L{case.length}"


# The judge itself.


@pytest.mark.parametrize("case", [CASES[3], CASES[4]], ids=_label)
def test_oracle_gradient_matches_finite_differences(case):
    arguments, resets, (y_bar, final_bar) = problem(case)
    rng = np.random.default_rng(0)
    directions = {name: rng.standard_normal(a.shape) for name, a in arguments.items()}
    for name, a in arguments.items():
        if np.iscomplexobj(a):
            directions[name] = directions[name] + 1j * rng.standard_normal(a.shape)

    def loss(step):
        moved = {name: oracles.double(a) + step * directions[name]
                 for name, a in arguments.items()}
        y, final_state = oracles.linear_ssm(**moved, resets=resets)
        return np.sum(y_bar * y) + np.sum(final_bar * final_state).real

    gradients = expected_gradients(case)
    slope = sum(np.sum(gradients[name] * d).real for name, d in directions.items())
    # Central differences with step 1e-6 in float64: truncation 1e-12, rounding 1e-10 of the loss.
    np.testing.assert_allclose((loss(1e-6) - loss(-1e-6)) / 2e-6, slope, rtol=1e-7)


def test_oracle_segments_equal_separate_runs():
    arguments, _, _ = problem(dataclasses.replace(GOOD, sides=2, length=60))
    starts = (0, 1, 20, 21, 59)
    resets = np.zeros((2, 60), bool)
    resets[:, starts] = True
    y, final_state = oracles.linear_ssm(**arguments, resets=resets)
    fresh = arguments | {"initial_state": None}
    runs = [oracles.linear_ssm(**fresh | {"u": arguments["u"][:, a:b]})
            for a, b in zip(starts, starts[1:] + (60,))]
    np.testing.assert_array_equal(y, np.concatenate([part for part, _ in runs], axis=1))
    np.testing.assert_array_equal(final_state, runs[-1][1])


# Values and gradients.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=_label)
def test_linear_ssm_matches_float64_recurrence(case, engine):
    (y, final_state), _ = computed(case, engine)
    expected_y, expected_state = expected_values(case)
    assert_close(y, expected_y, value_tolerance(engine), "y")
    assert_close(final_state, expected_state, value_tolerance(engine), "final_state")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=_label)
def test_linear_ssm_gradients_match_float64_adjoint(case, engine):
    _, gradients = computed(case, engine)
    for name, gradient in gradients.items():
        expected = expected_gradients(case)[name]
        assert_close(gradient, expected, gradient_tolerance(engine, case.length), name)


@pytest.mark.parametrize("case, engine", LONG_RUNS,
                         ids=[f"{case.length}-{engine}" for case, engine in LONG_RUNS])
def test_linear_ssm_stays_exact_on_long_sequences(case, engine):
    (y, final_state), gradients = computed(case, engine)
    expected_y, expected_state = expected_values(case)
    assert_close(y, expected_y, value_tolerance(engine), "y")
    assert_close(final_state, expected_state, value_tolerance(engine), "final_state")
    for name, gradient in gradients.items():
        expected = expected_gradients(case)[name]
        assert_close(gradient, expected, gradient_tolerance(engine, case.length), name)


@functools.lru_cache
def bfloat16_problem():
    arguments, resets, cotangents = problem(CASES[7])
    spikes = jnp.asarray(arguments["u"] > 0, jnp.bfloat16)  # 0 and 1 are exact
    return arguments | {"u": spikes}, resets, cotangents


@functools.lru_cache
def bfloat16_computed(engine):
    run = jax.jit(functools.partial(value_and_pullback, engine=engine))
    return jax.device_get(run(*bfloat16_problem()))


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_ssm_reads_bfloat16_spikes_exactly(engine):
    (y, final_state), _ = bfloat16_computed(engine)
    expected_y, expected_state = oracles.linear_ssm(**bfloat16_problem()[0])
    assert y.dtype == jnp.float32 and final_state.dtype == jnp.complex64
    assert_close(y, expected_y, value_tolerance(engine), "y")
    assert_close(final_state, expected_state, value_tolerance(engine), "final_state")


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_ssm_rounds_gradients_of_bfloat16_inputs_once(engine):
    arguments, _, cotangents = bfloat16_problem()
    _, gradients = bfloat16_computed(engine)
    expected = oracles.linear_ssm_gradients(*cotangents, **arguments)
    assert gradients["u"].dtype == jnp.bfloat16
    for name, gradient in gradients.items():
        # Eight significant bits round by up to 2^-8 of a value; the rest is float32.
        tolerance = gradient_tolerance(engine, 257) + (2.0**-8 if name == "u" else 0.0)
        assert_close(oracles.double(gradient), expected[name], tolerance, name)


def test_chunked_engine_is_exact_in_blocks_of_features(monkeypatch):
    case = dataclasses.replace(CASES[5], features=5, length=99)
    monkeypatch.setattr(cpu, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(cpu, "LEAST_FEATURES", 2)  # the last block overlaps
    (y, final_state), gradients = computed(case, "chunked")
    expected_y, expected_state = expected_values(case)
    assert_close(y, expected_y, 1e-5, "y")
    assert_close(final_state, expected_state, 1e-5, "final_state")
    for name, gradient in gradients.items():
        assert_close(gradient, expected_gradients(case)[name], 1e-5, name)


# Choosing an engine.


def lowered(engine):
    """Return the program that jit compiles, as text."""
    arguments, _, _ = problem(CASES[2])
    return jax.jit(lambda a: linear_ssm(**a, engine=engine)).lower(arguments).as_text()


@pytest.mark.parametrize("name", ("auto",) + ENGINES)
def test_linear_ssm_takes_an_engine_by_member_or_by_string(name):
    assert lowered(Engine(name)) == lowered(name)


def test_linear_ssm_runs_the_engine_that_is_named():
    programs = {engine: lowered(engine) for engine in ENGINES}
    assert len(set(programs.values())) == len(ENGINES)
    assert [engine for engine in ENGINES if "stablehlo.fft" in programs[engine]] == ["fft"]


def test_linear_ssm_chooses_an_engine_outside_jit():
    arguments, _, _ = problem(CASES[2])
    y, final_state = linear_ssm(**arguments)
    expected_y, expected_state = expected_values(CASES[2])
    assert_close(np.asarray(y), expected_y, 5e-5, "y")  # the loosest engine's accuracy
    assert_close(np.asarray(final_state), expected_state, 5e-5, "final_state")


def test_linear_ssm_rejects_an_unknown_engine():
    arguments, _, _ = problem(CASES[2])
    with pytest.raises(ValueError, match="ftt"):
        linear_ssm(**arguments, engine="ftt")


# What must hold whatever the numbers are.


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_ssm_splits_when_the_state_is_carried(engine):
    arguments, _, _ = problem(GOOD)
    run = jax.jit(functools.partial(linear_ssm, engine=engine))
    head, carried = run(**arguments | {"u": arguments["u"][:, :64]})
    tail, last = run(**arguments | {"u": arguments["u"][:, 64:], "initial_state": carried})
    y, final_state = oracles.linear_ssm(**arguments)
    # Each of the two runs may be off by the engine's accuracy.
    parts = np.concatenate([head, tail], axis=1)
    assert_close(parts, y, 2 * value_tolerance(engine), "y")
    assert_close(np.asarray(last), final_state, 2 * value_tolerance(engine), "final_state")


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_ssm_is_causal_by_gradient(engine):
    case = Case(53, features=1, decay=(0.9, 0.999))
    arguments, _, _ = problem(case)
    fixed = {name: a for name, a in arguments.items() if name != "u"}

    def outputs(u):
        return linear_ssm(u, **fixed, engine=engine)[0][:, 0]

    jacobian = np.asarray(jax.jit(jax.jacrev(outputs))(arguments["u"])[..., 0])
    # A matrix product or a scan never adds a later input; an FFT leaks its rounding.
    leak = 1e-6 * np.max(np.abs(jacobian)) if engine in ("fft", "chunked") else 0.0
    assert np.max(np.abs(np.triu(jacobian, 1))) <= leak
    assert np.all(np.diag(jacobian, -1) != 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_ssm_resets_cut_gradients_in_both_directions(engine):
    case = Case(40, features=1, sides=2, initial=True, decay=(0.9, 0.999))
    arguments, _, _ = problem(case)
    resets = np.zeros(40, bool)
    resets[[0, 17]] = True
    fixed = {name: a for name, a in arguments.items() if name not in ("u", "initial_state")}

    def outputs(u, initial_state):
        return linear_ssm(u, **fixed, initial_state=initial_state, resets=resets,
                          engine=engine)[0][:, 0]

    jacobians = jax.jit(jax.jacrev(outputs, argnums=(0, 1)))(
        arguments["u"], arguments["initial_state"])
    by_u, by_state = (np.asarray(j) for j in jacobians)
    by_u = by_u[..., 0]
    leak = 1e-6 * np.max(np.abs(by_u)) if engine in ("fft", "chunked") else 0.0
    assert np.max(np.abs(by_u[:17, 17:])) <= leak
    assert np.max(np.abs(by_u[17:, :17])) <= leak
    assert np.max(np.abs(by_state)) <= leak
    assert np.all(np.abs(np.diag(by_u, 1)[:15]) > 0)  # two-sided inside a segment


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_ssm_vmaps_over_parameters(engine):
    cases = [problem(dataclasses.replace(CASES[3], length=length))[0] for length in (31, 33)]
    stacked = {name: np.stack([a[name][..., :31, :] if name == "u" else a[name] for a in cases])
               for name in NAMES}

    def system(arguments):
        return linear_ssm(**arguments, engine=engine)

    y, final_state = jax.jit(jax.vmap(system))(stacked)
    for i in range(2):
        single = {name: a[i] for name, a in stacked.items()}
        expected_y, expected_state = oracles.linear_ssm(**single)
        assert_close(np.asarray(y[i]), expected_y, value_tolerance(engine), "y")
        assert_close(np.asarray(final_state[i]), expected_state, value_tolerance(engine), "state")


# Bad input.

BAD = {
    "u of rank 1": {"u": np.zeros(127, np.float32)},
    "complex u": {"u": np.zeros((2, 127, 3), np.complex64)},
    "length 0": {"u": np.zeros((2, 0, 3), np.float32)},
    "another number of features": {"u": np.zeros((2, 127, 4), np.float32)},
    "Lambda_bar of rank 3": {"Lambda_bar": np.zeros((1, 3, 2), np.complex64)},
    "Lambda_bar of one feature": {"Lambda_bar": np.zeros((1, 2), np.complex64)},
    "B_bar of another state size": {"B_bar": np.zeros((3, 3), np.complex64)},
    "B_bar of state size 1": {"B_bar": np.zeros((1,), np.complex64)},
    "C without features": {"C": np.zeros((2,), np.complex64)},
    "three-sided C": {"C": np.zeros((3, 3, 2), np.complex64)},
    "D of one feature": {"D": np.zeros((1,), np.float32)},
    "D of rank 2": {"D": np.zeros((1, 3), np.float32)},
    "initial_state without batch": {"initial_state": np.zeros((3, 2), np.complex64)},
    "initial_state of batch 1": {"initial_state": np.zeros((1, 3, 2), np.complex64)},
    "resets without batch": {"resets": np.zeros((127,), bool)},
    "resets of another length": {"resets": np.zeros((2, 126), bool)},
    "resets that are floats": {"resets": np.zeros((2, 127), np.float32)},
    "resets that are integers": {"resets": np.zeros((2, 127), np.int32)},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
def test_linear_ssm_rejects_bad_arguments_by_name(change):
    arguments, _, _ = problem(GOOD)
    name, = change
    culprit = "u|H|features" if name == "u" else name
    with pytest.raises((ValueError, TypeError), match=culprit):
        linear_ssm(**arguments | change)
