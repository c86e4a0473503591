"""Reset-based neurons: the equations in float64, the unroll's backward pass, stability."""

import dataclasses
import math
import subprocess
import sys
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle_neurons as oracle
import pytest

from pspike_jax.functional import neurons
from pspike_jax.functional.neurons import Firing
from pspike_jax.functional.surrogates import SURROGATES, boxcar

LENGTH, BATCH, FEATURES = 48, 3, 5

# With the scale of currents that makes each kind fire in some 5 to 40 % of steps.
NEURONS = {
    "lif": (neurons.LIF(), 6.0),
    "adlif": (neurons.AdLIF(), 6.0),
    "cadlif": (neurons.CONSTRAINED, 3.0),
    "silif": (neurons.SiLIF(), 5.0),
    "csilif": (neurons.CSiLIF(), 1.5),
    "resonate_and_fire": (neurons.ResonateAndFire(), 300.0),
    "rlif": (neurons.RLIF, 6.0),
    "radlif": (neurons.RADLIF, 6.0),
}
SURROGATE_OF = {"adlif": "triangular", "csilif": "triangular", "radlif": "triangular"}
every_neuron = pytest.mark.parametrize("name", NEURONS)


def problem(name, rng, key, length=LENGTH):
    """Return (neuron, params, currents, state, recurrent matrix or None), all drawn."""
    neuron, scale = NEURONS[name]
    params = neuron.init(key(), FEATURES)
    currents = jnp.asarray(scale * rng.normal(size=(length, BATCH, FEATURES)), jnp.float32)
    state = neurons.initial_state(neuron, BATCH, FEATURES)
    state = neurons.draw_initial_state(state, key(), example_ids=jnp.arange(BATCH))
    recurrent = None
    if neuron.recurrent:
        recurrent = neurons.without_diagonal(neurons.init_recurrent(key(), FEATURES))
    return neuron, params, currents, state, recurrent


def unroll(neuron, params, currents, state, recurrent, firing=Firing(), section=None):
    """Run `neurons.unroll`; return spikes and final state."""
    spikes, _, state = neurons.unroll(
        neuron,
        neuron.coefficients(params),
        currents,
        state,
        recurrent=recurrent,
        firing=firing,
        section=section,
    )
    return spikes, state


@pytest.fixture(scope="module", params=NEURONS)
def ran(request):
    """Each neuron's spikes, final state and gradients, and what they were made of."""
    name, rng = request.param, np.random.default_rng(7)
    keys = iter(jax.random.split(jax.random.key(7), 3))
    neuron, *arguments = problem(name, rng, lambda: next(keys))
    detached, surrogate = name in ("cadlif", "radlif"), SURROGATE_OF.get(name, "boxcar")
    firing = Firing(surrogate=SURROGATES[surrogate], detach_reset=detached)
    weight = rng.normal(size=(LENGTH, BATCH, FEATURES))

    def loss(params, currents, state, recurrent):
        spikes, final = unroll(neuron, params, currents, state, recurrent, firing)
        # Both parts of complex states, and the last spikes, take part.
        ends = sum(jnp.sum(((1 + 2j) * part).real) for part in jax.tree.leaves(final))
        return jnp.sum(weight.astype(np.float32) * spikes) + ends, (spikes, final)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
    found, (spikes, final) = gradient(*arguments)
    options = {"surrogate": getattr(oracle, surrogate), "detach_reset": detached}
    return types.SimpleNamespace(
        name=name, arguments=arguments, options=options, weight=weight, gradient=found,
        spikes=spikes, final=final,
    )


def test_unroll_matches_float64_loop(ran):
    spikes, membrane, nearest = oracle.run(ran.name, *ran.arguments)
    assert nearest > 1e-5, "a drive within rounding of the threshold would decide nothing"
    expected = np.stack([s.value for s in spikes])
    assert 0.02 < expected.mean() < 0.6
    np.testing.assert_array_equal(ran.spikes, expected)
    np.testing.assert_array_equal(ran.final.spikes, expected[-1])
    for got, want in zip(ran.final.membrane, membrane, strict=True):
        # float32 over 48 steps of a contraction: some units in the last place of the largest u.
        np.testing.assert_allclose(
            got, want.value, rtol=0, atol=5e-6 * np.abs(want.value).max()
        )


def test_unroll_gradients_match_float64_tangents(ran, rng):
    """In a random direction of each argument: the loss's slope is the gradient's projection."""
    leaves, structure = jax.tree.flatten(ran.arguments)
    for number, (leaf, bar) in enumerate(zip(leaves, jax.tree.leaves(ran.gradient), strict=True)):
        direction = rng.normal(size=leaf.shape)
        if np.iscomplexobj(leaf):
            direction = direction + 1j * rng.normal(size=leaf.shape)
        moved = [*leaves]
        moved[number] = oracle.Dual(leaf, direction)
        spikes, membrane, _ = oracle.run(
            ran.name, *jax.tree.unflatten(structure, moved), **ran.options
        )
        slope = sum(np.sum(w * s.tangent) for w, s in zip(ran.weight, spikes))
        slope += sum(np.sum((1 + 2j) * part.tangent).real for part in (*membrane, spikes[-1]))
        # float32 sums over 48 steps; the projection of rounding errors on the direction.
        room = 1e-5 * np.linalg.norm(bar) * np.linalg.norm(direction)
        np.testing.assert_allclose(np.sum(bar * direction).real, slope, rtol=0, atol=room)
        assert np.linalg.norm(bar) > 1e-3


def test_unroll_does_not_depend_on_the_section(rng, key):
    neuron, params, currents, state, _ = problem("adlif", rng, key, length=13)

    def loss(params, currents, section):
        spikes, _ = unroll(neuron, params, currents, state, None, section=section)
        return jnp.sum(spikes * currents), spikes

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True), static_argnums=2)
    expected, spikes = gradient(params, currents, 13)
    for section in (1, 6, 1000):
        got, other_spikes = gradient(params, currents, section)
        np.testing.assert_array_equal(spikes, other_spikes)
        for g, e in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            # Sums in another order.
            np.testing.assert_allclose(g, e, rtol=0, atol=3e-6 * np.abs(e).max())


@pytest.mark.parametrize("length, section", [(1, 1), (100, 10), (250, 10), (251, 16), (1000, 25)])
def test_default_section_divides_the_length_where_it_can(length, section):
    assert neurons.default_section(length) == section


def test_unroll_applies_the_affine_map_to_the_currents(rng, key):
    neuron, params, currents, state, recurrent = problem("rlif", rng, key)
    gain, shift = (jnp.asarray(rng.uniform(0.5, 1.5, FEATURES), jnp.float32) for _ in range(2))
    coefficients = neuron.coefficients(params)

    def inside(gain, shift, currents):
        spikes, active, _ = neurons.unroll(
            neuron, coefficients, currents, state, affine=(gain, shift), recurrent=recurrent
        )
        return jnp.sum(spikes * currents), (spikes, active)

    def outside(gain, shift, currents):
        spikes, active, _ = neurons.unroll(
            neuron, coefficients, gain[None, None] * currents + shift[None, None], state,
            recurrent=recurrent,
        )
        return jnp.sum(spikes * currents), (spikes, active)

    arguments = (gain, shift, currents)
    got, aux = jax.jit(jax.grad(inside, argnums=(0, 1, 2), has_aux=True))(*arguments)
    expected, expected_aux = jax.jit(jax.grad(outside, argnums=(0, 1, 2), has_aux=True))(*arguments)
    chex.assert_trees_all_equal(aux, expected_aux)
    for g, e in zip(got, expected):
        # Sums in another order.
        np.testing.assert_allclose(g, e, rtol=0, atol=3e-6 * np.abs(e).max())


def test_unroll_counts_elements_with_a_surrogate_gradient(rng, key):
    neuron, params, currents, state, _ = problem("lif", rng, key)
    _, active, _ = neurons.unroll(neuron, neuron.coefficients(params), currents, state)
    alpha = oracle.coefficients("lif", params)[0].value
    u, s = np.float64(state.membrane[0]), np.float64(state.spikes)
    for t, current in enumerate(np.float64(currents)):
        u = alpha * (u - s) + (1 - alpha) * current
        s = (u > 1).astype(np.float64)
        np.testing.assert_array_equal(active[t], ((u > 0.5) & (u <= 1.5)).sum(-1))


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
def test_surrogate_is_the_derivative_of_a_spike(surrogate):
    """One LIF step from rest: ds/dI = surrogate(u) (1 - alpha), whatever the surrogate."""
    neuron, slope = neurons.LIF(), SURROGATES[surrogate]
    currents = jnp.asarray([[[3.0, 8.0, 9.0, 14.0, 19.5]]])
    coefficients = (jnp.full(5, 0.9),)
    state = neurons.initial_state(neuron, 1, 5)

    @jax.jit
    @jax.grad
    def gradient(currents):
        firing = Firing(surrogate=slope)
        return neurons.unroll(neuron, coefficients, currents, state, firing=firing)[0].sum()

    expected = 0.1 * slope(0.1 * currents - 1.0, 0.0)
    np.testing.assert_allclose(gradient(currents), expected, rtol=1e-5)  # float32 rounding of u


@pytest.mark.parametrize("detach_reset", [False, True])
def test_detached_reset_leaves_the_leak_as_the_only_path(detach_reset):
    """LIF, two steps, alpha = 0.9: du2/dI1 = 0.1 alpha (1 - ds1/du1), or 0.1 alpha detached."""
    neuron = neurons.LIF()
    coefficients = (jnp.asarray([0.9]),)
    state = neurons.initial_state(neuron, 1, 1)
    firing = Firing(surrogate=boxcar, detach_reset=detach_reset)

    def last_membrane(current):
        currents = jnp.stack([current, jnp.zeros_like(current)])
        _, _, final = neurons.unroll(neuron, coefficients, currents, state, firing=firing)
        return final.membrane[0].sum()

    got = jax.grad(last_membrane)(jnp.full((1, 1), 11.0)).item()  # u1 = 1.1: a spike, slope 1
    assert got == pytest.approx(0.09 if detach_reset else 0.0, abs=1e-7)


@pytest.mark.parametrize("name", ["csilif", "radlif"])
def test_step_by_step_equals_unroll(name, rng, key):
    neuron, params, currents, state, recurrent = problem(name, rng, key)
    spikes, final = unroll(neuron, params, currents, state, recurrent)
    coefficients = neuron.coefficients(params)
    stepped = []
    for current in currents:
        state = neurons.step(neuron, coefficients, state, current, recurrent=recurrent)
        stepped.append(state.spikes)
    np.testing.assert_array_equal(spikes, jnp.stack(stepped))
    for got, want in zip(jax.tree.leaves(final), jax.tree.leaves(state), strict=True):
        # Compiled in another way: fused multiplications and additions round once.
        np.testing.assert_allclose(got, want, rtol=0, atol=5e-6 * np.abs(want).max() + 1e-9)


def plain_scan(neuron, params, currents, state, recurrent):
    """Run `step` under lax.scan: what autodiff differentiates."""
    coefficients = neuron.coefficients(params)

    def body(state, current):
        state = neurons.step(neuron, coefficients, state, current, recurrent=recurrent)
        return state, state.spikes

    state, spikes = jax.lax.scan(body, state, currents)
    return spikes, state


def test_backward_pass_keeps_a_third_of_what_the_plain_scan_keeps(key, rng):
    """Temporary memory as XLA reports it, for one layer, L = 256."""
    neuron = neurons.SiLIF()
    params = neuron.init(key(), 64)
    state = neurons.initial_state(neuron, 16, 64)

    def temporary(run):
        currents = jnp.zeros((256, 16, 64))

        def loss(params, currents):
            return jnp.sum(run(neuron, params, currents, state, None)[0] * currents)

        compiled = jax.jit(jax.grad(loss)).lower(params, currents).compile()
        return compiled.memory_analysis().temp_size_in_bytes - 2 * currents.nbytes

    # Two arrays of the currents' size are the spikes and their cotangent, in both.
    assert temporary(unroll) < temporary(plain_scan) / 3


def test_coefficients_clamp_with_gradient_one_at_the_ends():
    gradient = jax.vmap(jax.grad(lambda x: neurons.clamp(x, 0.0, 1.0)))
    got = gradient(jnp.asarray([-0.1, 0.0, 0.5, 1.0, 1.1]))
    np.testing.assert_array_equal(got, [0, 1, 1, 1, 0])


@pytest.mark.parametrize("name", ["lif", "cadlif", "silif", "csilif"])
def test_eigenvalues_lie_inside_the_unit_circle_where_promised(name, rng):
    """Whatever training does to the parameters: here they are drawn far outside their ranges."""
    neuron, _ = NEURONS[name]
    # Rates times steps from exp(-60) to exp(60): decays that float32 would round to 0 and to 1.
    ranges = dict.fromkeys(("log_dt", "log_rate_u", "log_rate_w", "log_damping"), (-30, 30))
    params = {
        key: jnp.asarray(rng.uniform(*ranges.get(key, (-3, 3)), 2000), jnp.float32)
        for key in neuron.init(jax.random.key(0), 1)
    }
    magnitude = np.abs(neurons.eigenvalues(neuron, params))
    assert magnitude.max() < 1
    assert magnitude.max() > 1 - 1e-6 or name in ("lif", "cadlif")  # clamped far below


@pytest.mark.parametrize("name", ["silif", "csilif"])
def test_coefficients_and_their_gradients_are_finite_far_out(name):
    """Where rates or steps by themselves overflow float32, their product may still be small."""
    neuron, _ = NEURONS[name]
    logarithms = dict(zip(
        ("log_rate_u", "log_damping", "log_rate_w", "log_dt"),
        jnp.meshgrid(*[jnp.asarray([-1e4, -120.0, -5.0, 120.0, 1e4])] * 4),
    ))
    params = {
        key: jnp.ravel(logarithms.get(key, jnp.full((5,) * 4, 0.5)))
        for key in neuron.init(jax.random.key(0), 1)
    }
    assert np.abs(neurons.eigenvalues(neuron, params)).max() < 1
    total = lambda params: sum(jnp.sum(jnp.abs(c)) for c in neuron.coefficients(params))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.grad(total)(params)))


@every_neuron
def test_eigenvalues_lie_inside_the_unit_circle_at_the_start_or_are_free_to_leave(name, key):
    neuron, _ = NEURONS[name]
    magnitude = np.abs(neurons.eigenvalues(neuron, neuron.init(key(), 2000))).max()
    # AdLIF with a below -(1 - beta) grows, by up to 1.42: [[1, -(1 - alpha) beta], [-1, beta]]
    # at a = -1, the least alpha and the largest beta.
    low, high = (1, 1.42) if name in ("adlif", "radlif") else (0, 1)
    assert low < magnitude < high


def test_subthreshold_transition_is_what_the_equations_say(rng):
    neuron = neurons.CONSTRAINED
    params = {"alpha": [0.8], "beta": [0.97], "a": [0.4], "b": [1.0]}
    params = {name: jnp.asarray(value) for name, value in params.items()}
    expected = [[0.8 - 0.2 * 0.4, -0.2 * 0.97], [0.4, 0.97]]
    got = neurons.subthreshold_transition(neuron, params)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-6)  # float32 coefficients


def test_drawn_states_are_uniform_and_belong_to_the_example(key):
    """alpha = 1e-6: z = 4.9 on the mean of 2 x 3 x 20,000 draws sees a bias of 0.0041."""
    drawn, ids = key(), jnp.asarray([4, 9])
    zeros = neurons.initial_state(neurons.CSiLIF(), 2, 20_000)
    state = neurons.draw_initial_state(zeros, drawn, example_ids=ids)
    values = np.concatenate([state.membrane[0].real, state.membrane[0].imag, state.spikes])
    assert values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 0.5) < 4.9 * math.sqrt(1 / 12 / values.size)
    assert np.abs(np.corrcoef(values) - np.eye(6)).max() < 4.9 / math.sqrt(20_000)
    other = neurons.draw_initial_state(zeros, drawn, example_ids=ids[::-1])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[::-1]), state, other)


def test_passes_over_one_example_draw_their_own_states(key):
    drawn, ids = key(), jnp.asarray([4, 9])
    once = neurons.draw_initial_state(jnp.zeros((2, 5)), drawn, example_ids=ids)
    twice = neurons.draw_initial_state(jnp.zeros((4, 5)), drawn, example_ids=ids)
    np.testing.assert_array_equal(twice[:2], once)
    assert (twice[2:] != once).all()


def test_recurrent_matrix_is_orthogonal_and_loses_its_diagonal(key):
    matrix = neurons.init_recurrent(key(), 16)
    # Orthogonal to float32 rounding of 16-term sums.
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(16), atol=1e-5)
    gradient = jax.grad(lambda m: jnp.sum(neurons.without_diagonal(m)))(matrix)
    np.testing.assert_array_equal(gradient, 1 - np.eye(16))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_unroll_lowers_for_accelerators(platform, rng, key):
    neuron, params, currents, state, recurrent = problem("csilif", rng, key)
    gradient = jax.jit(jax.grad(lambda c: unroll(neuron, params, c, state, recurrent)[0].sum()))
    text = gradient.trace(currents).lower(lowering_platforms=(platform,)).as_text()
    assert "while" in text and "f64" not in text and "complex<f64>" not in text


def test_trained_threshold_is_a_coefficient_that_learns(rng, key):
    """d spike / d V = -surrogate(u - V), against a loop in float64; the group is its own."""
    neuron = neurons.LIF(threshold=0.7, trained_threshold=True)
    params = neuron.init(key(), FEATURES)
    assert neuron.groups["log_threshold"] == "threshold"
    np.testing.assert_allclose(jnp.exp(params["log_threshold"]), 0.7, rtol=1e-6)
    params["log_threshold"] += jnp.asarray(rng.normal(size=FEATURES) / 5, jnp.float32)
    currents = jnp.asarray(4 * rng.normal(size=(LENGTH, BATCH, FEATURES)), jnp.float32)
    state = neurons.initial_state(neuron, BATCH, FEATURES)
    firing = Firing(SURROGATES["arctan"], detach_reset=True)
    weight = rng.normal(size=currents.shape)

    def loss(params):
        spikes, _ = unroll(neuron, params, currents, state, None, firing)
        return jnp.sum(weight.astype(np.float32) * spikes), spikes

    bar, spikes = jax.grad(loss, has_aux=True)(params)
    alpha, threshold = np.float64(params["alpha"]), np.exp(np.float64(params["log_threshold"]))
    u, s, expected = 0.0, 0.0, 0.0
    for current, w, got in zip(np.float64(currents), weight, spikes):
        u = alpha * (u - s) + (1 - alpha) * current
        s = (u > threshold).astype(np.float64)
        np.testing.assert_array_equal(got, s)
        expected = expected - np.sum(w / (1 + (np.pi * (u - threshold)) ** 2), axis=0)
    np.testing.assert_allclose(bar["log_threshold"], expected * threshold, rtol=1e-5, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class Delayed(neurons.Neuron):
    """A neuron whose membrane is no tuple of (B, H): a queue of currents, and what left it."""

    fires_at_zero = True

    def init(self, key, features):
        return {"weights": jnp.ones((features, 2), jnp.float32)}

    def coefficients(self, params):
        return (params["weights"],)

    def zero_membrane(self, batch_size, features):
        return {
            "queue": jnp.zeros((batch_size, features, 2), jnp.float32),
            "u": jnp.zeros((batch_size, features), jnp.float32),
        }

    def update(self, coefficients, membrane, spikes, reset, current):
        queue = jnp.stack([current, membrane["queue"][..., 0]], axis=-1)
        return {"queue": queue, "u": 0.5 * membrane["u"] - reset + jnp.sum(
            coefficients[0] * queue, axis=-1)}

    def drive(self, coefficients, membrane):
        return membrane["u"] - self.threshold


def test_membranes_may_be_any_tree_and_a_drive_of_zero_may_fire(rng):
    neuron = Delayed()
    params = neuron.init(None, 1)
    state = neurons.initial_state(neuron, 1, 1)
    currents = jnp.asarray([0.25, 0.75, 1.0, 0.0, 0.0], jnp.float32)[:, None, None]

    def loss(params):
        spikes, final = unroll(neuron, params, currents, state, None, Firing(detach_reset=True))
        return jnp.sum(spikes), (spikes, final)

    bar, (spikes, final) = jax.grad(loss, has_aux=True)(params)
    # u = 0.25, 1.125, 1.3125, 0.65625, -0.67...: spikes of 1.0 exactly would need fires_at_zero.
    queue, u, s, fired, slopes = [0.0, 0.0], 0.0, 0.0, [], 0.0
    sensitivity = np.zeros(2)
    for current in np.float64(currents[:, 0, 0]):
        queue = [current, queue[0]]
        u = 0.5 * u - s + sum(queue)
        sensitivity = 0.5 * sensitivity + queue
        s = float(u >= 1)
        fired.append(s)
        slopes = slopes + sensitivity * (-0.5 < u - 1 <= 0.5)
    np.testing.assert_array_equal(spikes[:, 0, 0], fired)
    np.testing.assert_allclose(final.membrane["u"][0, 0], u, rtol=1e-6)
    np.testing.assert_allclose(bar["weights"][0], slopes, rtol=1e-6)
    with pytest.raises(ValueError, match="state has shapes"):
        neurons.unroll(neuron, neuron.coefficients(params), currents, neurons.NeuronState(
            {"queue": state.spikes, "u": state.spikes}, state.spikes))


MODES = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
import chex, jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from pspike_jax.functional import neurons

KINDS = [neurons.LIF(trained_threshold=True), neurons.RADLIF, neurons.SiLIF(), neurons.CSiLIF(),
         neurons.ResonateAndFire()]
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
for neuron in KINDS:
    params = neuron.init(jax.random.key(0), 4)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params)), neuron
    matrix = neurons.init_recurrent(jax.random.key(1), 4) if neuron.recurrent else None
    currents = 3 * jax.random.normal(jax.random.key(2), (6, 2, 4), jnp.float32)

    def loss(params, currents):
        state = neurons.initial_state(neuron, currents.shape[1], 4)
        spikes, _, _ = neurons.unroll(
            neuron, neuron.coefficients(params), currents, state, recurrent=matrix)
        return jnp.sum(spikes * currents)

    whole = jax.jit(jax.grad(loss, argnums=(0, 1)))
    expected = whole(params, currents)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(expected)), neuron

    def local(params, currents):
        value = loss(params, currents)
        return jax.lax.psum(value, "data")

    split = jax.shard_map(
        local, mesh=mesh, in_specs=(P(), P(None, "data")), out_specs=P())
    found = jax.jit(jax.grad(split, argnums=(0, 1)))(params, currents)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)

    batch, length = jax.export.symbolic_shape("b, t")
    for shape in ((6, batch, 4), (length, 2, 4)):
        program = jax.export.export(jax.jit(jax.grad(loss)))(
            params, jax.ShapeDtypeStruct(shape, jnp.float32))
        chex.assert_trees_all_close(
            program.call(params, currents), expected[0], rtol=1e-5, atol=1e-6)
print("all modes")
"""


def test_unroll_runs_in_double_precision_strict_promotion_shard_map_and_export():
    """In a process of its own: flags of JAX are of the process."""
    done = subprocess.run([sys.executable, "-c", MODES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "all modes" in done.stdout


def test_unroll_refuses_shapes_that_do_not_fit(rng, key):
    neuron, params, currents, state, _ = problem("lif", rng, key)
    coefficients = neuron.coefficients(params)
    with pytest.raises(ValueError, match="L >= 1"):
        neurons.unroll(neuron, coefficients, currents[:0], state)
    with pytest.raises(ValueError, match="state has shapes"):
        neurons.unroll(neuron, coefficients, currents[:, :2], state)
    with pytest.raises(ValueError, match="section must have 1 step"):
        neurons.unroll(neuron, coefficients, currents, state, section=0)
