"""Neurons in parallel: the spikes of float64 loops and recordings, the scan's gradients."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.functional import neurons
from pspike_jax.functional.neurons import Effort, Firing
from pspike_jax.functional.neurons.passages import hard_spikes
from pspike_jax.functional.neurons.separate import Rows
from pspike_jax.functional.surrogates import SURROGATES

KINDS = {
    "soft": neurons.SoftResetLIF,
    "hard": neurons.HardResetLIF,
    "refractory": neurons.RefractoryLIF,
}
every_kind = pytest.mark.parametrize("kind", KINDS)
CASES = [(currents, tau) for currents in ("normal", "sparse") for tau in (0.125, 0.5, 0.9, 0.99)]
RHO, KAPPA = 0.6, 0.5


def loop(kind, tau, currents, u=0.0, s=0.0, *, threshold=1.0, at_zero=True):
    """Run a neuron step by step in float64; return spikes, membrane, least |drive|."""
    a, spikes, nearest = 0.0 * s, [], np.inf
    for current in np.moveaxis(np.float64(currents), 1, 0):
        a = RHO * a + s
        u = tau * (1 - s) * u if kind == "hard" else tau * (u - threshold * s)
        u = u + current
        drive = u - threshold - (KAPPA * a if kind == "refractory" else 0.0)
        s = np.float64(drive >= 0 if at_zero else drive > 0)
        nearest = np.minimum(nearest, np.abs(drive).min())
        spikes.append(s)
    return np.stack(spikes, 1), u, nearest


def run(neuron, coefficients, currents, state=None, **options):
    """Run `evaluate` in parallel, compiled."""
    if state is None:
        state = neurons.initial_state(neuron, currents.shape[0], currents.shape[-1])
    program = jax.jit(functools.partial(
        neurons.evaluate, neuron, evaluation="parallel", **options
    ))
    return program(coefficients, jnp.asarray(currents, jnp.float32), state)


@pytest.mark.parametrize("kind, most_rounds, open_rows", [
    ("soft", 40, 0), ("hard", 40, 0), ("refractory", 40, 9),
])
def test_recorded_spikes_are_found_exactly(kind, most_rounds, open_rows, golden):
    """Eight leaks and currents at once: what rounds leave open goes on alone, then is scanned."""
    arrays = golden("spiking/exact_lif_dev.npz")
    take = lambda name: np.stack([arrays[f"{c}/{tau}/{name}"] for c, tau in CASES], axis=-1)
    neuron = KINDS[kind](trained_leak=True)
    taus = jnp.asarray([tau for _, tau in CASES], jnp.float32)
    coefficients = (taus, *neuron.coefficients(neuron.init(None, 8))[1:])
    effort = Effort(rounds=10, more_rounds=200 if kind == "soft" else 30, room=0.3)
    found = run(neuron, coefficients, take("currents"), effort=effort)
    bits = np.moveaxis(take(kind), -1, 1)
    expected = np.moveaxis(np.unpackbits(bits, axis=-1)[..., :1024], 1, -1)
    np.testing.assert_array_equal(found.spikes, expected)
    last = take("last_membrane")[list(KINDS).index(kind)]
    # What meets the threshold; float32 sums of 1,024 steps at a leak of 0.99.
    got = neuron.drive(tuple(c[None] for c in coefficients), found.state.membrane) + 1
    np.testing.assert_allclose(got, last, rtol=1e-5, atol=2e-5)
    assert found.ties <= 1  # such a row is scanned, so that spikes are equal all the same
    assert found.open_share * 24 <= open_rows
    assert 0 < int(found.rounds)


@every_kind
def test_regular_currents_and_slow_leaks_are_exact_too(kind, rng):
    """Where each spike hangs on the one before: constant currents, a drift, a slow sine."""
    length, taus = 256, np.asarray([0.5, 0.9, 0.99, 0.5, 0.9, 0.99])
    steps = np.arange(length)[:, None]
    regular = 1.7013 * (1 - taus[:3]) + 0 * steps
    drift = rng.normal(size=(length, 3)) * [1, 1, 0.02] + [1, 1, 0.03]
    currents = np.concatenate([regular, drift], axis=1)[None]
    currents = np.concatenate([currents, currents * (1 + 0.5 * np.sin(steps / 20))])
    currents = np.float32(currents)
    neuron = KINDS[kind](trained_leak=True)
    coefficients = (jnp.asarray(taus, jnp.float32), *neuron.coefficients(neuron.init(None, 6))[1:])
    found = run(neuron, coefficients, currents, effort=Effort(rounds=3, more_rounds=3, room=0.2))
    scanned = neurons.evaluate(
        neuron, coefficients, jnp.asarray(currents),
        neurons.initial_state(neuron, 2, 6), evaluation="scan",
    )
    np.testing.assert_array_equal(found.spikes, scanned.spikes)
    expected, _, nearest = loop(kind, np.float64(coefficients[0]), currents)
    assert nearest > 1e-6
    assert 0.01 < expected.mean() < 0.6
    np.testing.assert_array_equal(found.spikes, expected)
    assert found.open_share > 0 or kind == "hard"


def test_first_passages_find_a_hard_reset_without_a_round(rng):
    """Leaks that forget within a step, and hardly at all; a length that is no power of 2."""
    taus = np.asarray([1e-6, 0.125, 0.7, 0.97, 0.999])
    currents = np.float32(rng.normal(size=(3, 300, 5)) + 0.3)
    neuron = neurons.HardResetLIF(trained_leak=True)
    rows = Rows(
        (jnp.asarray(taus, jnp.float32), jnp.full(5, 1.0)), jnp.asarray(currents),
        neurons.NeuronState((jnp.full((3, 5), 0.75),), jnp.full((3, 5), 0.25)),
    )
    expected, _, nearest = loop("hard", np.float64(rows.coefficients[0]), currents, 0.75, 0.25)
    assert nearest > 1e-5
    np.testing.assert_array_equal(jax.jit(functools.partial(hard_spikes, neuron))(rows), expected)


@pytest.mark.parametrize("fires_at_zero", [True, False])
@every_kind
def test_membranes_at_the_threshold_are_scanned_and_counted(kind, fires_at_zero):
    """Exactly at V, 5e-7 above it, far above, and none at all."""
    currents = np.float32([2.0, 2.000001, 3.0, np.nan])[None, None]
    currents = np.concatenate([currents, 0 * currents], axis=1)
    neuron = KINDS[kind](0.5, threshold=2.0, fires_at_zero=fires_at_zero)
    coefficients = neuron.coefficients({})
    found = run(neuron, coefficients, currents)
    np.testing.assert_array_equal(found.spikes[0, 0], [fires_at_zero, 1, 1, np.nan])
    np.testing.assert_allclose(found.open_share, 3 / 4)
    assert found.ties == 2
    kept = run(neuron, coefficients, currents[..., :3], effort=Effort(keep_ties=True))
    np.testing.assert_array_equal(kept.spikes[0, 0], [fires_at_zero, 1, 1])
    assert (kept.open_share, kept.ties) == (0, 2)


def trained(kind, features, rng):
    """Return a neuron all of whose coefficients are trained, and parameters of it."""
    if kind == "lif":
        neuron = neurons.LIF((0.3, 0.9), threshold=0.5, trained_threshold=True)
    else:
        more = {"trained_magnitude": True} if kind == "refractory" else {}
        neuron = KINDS[kind](0.6, trained_leak=True, trained_threshold=True, **more)
    params = neuron.init(jax.random.key(1), features)
    draw = lambda leaf: leaf + jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32)
    return neuron, jax.tree.map(draw, params)


@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, "lif"])
def test_gradients_equal_the_scans(kind, detach_reset, rng, key):
    """Of parameters, currents, and a drawn initial state; all outputs take part in the loss."""
    neuron, params = trained(kind, 4, rng)
    currents = jnp.asarray(1.5 * rng.normal(size=(2, 16, 4)), jnp.float32)
    state = neurons.initial_state(neuron, 2, 4)
    state = neurons.draw_initial_state(state, key(), example_ids=jnp.arange(2))
    firing = Firing(SURROGATES["arctan"], detach_reset)
    weight = jnp.asarray(rng.normal(size=currents.shape), jnp.float32)

    def loss(evaluation, params, currents, state):
        found = neurons.evaluate(
            neuron, neuron.coefficients(params), currents, state, firing=firing,
            evaluation=evaluation, affine=(jnp.full(4, 1.2), jnp.full(4, 0.1)),
            effort=Effort(more_rounds=0),
        )
        ends = sum(jnp.sum(jnp.sin(part)) for part in jax.tree.leaves(found.state))
        return jnp.sum(weight * found.spikes) + ends, (found.spikes, found.active)

    gradient = lambda way: jax.jit(
        jax.grad(functools.partial(loss, way), argnums=(0, 1, 2), has_aux=True)
    )(params, currents, state)
    (got, outputs), (expected, others) = gradient("parallel"), gradient("scan")
    chex.assert_trees_all_equal(outputs, others)
    assert 0.05 < outputs[0].mean() < 0.6
    leaves = jax.tree.leaves(expected)
    for g, e in zip(jax.tree.leaves(got), leaves, strict=True):
        # float32 sums over 16 steps in another order.
        np.testing.assert_allclose(g, e, rtol=0, atol=1e-5 * np.abs(e).max())
    # A detached reset leaves nothing for the spikes before the first step.
    assert sum(np.abs(e).max() > 1e-3 for e in jax.tree.leaves(expected)) >= len(leaves) - 1


def test_a_cut_leak_leaves_each_step_to_itself(rng):
    """SpikingSSM's "sltt": d loss / d current is the slope of the step's own spike alone."""
    neuron = neurons.HardResetLIF(0.6, detach_leak=True)
    currents = jnp.asarray(rng.normal(size=(2, 7, 3)), jnp.float32)
    state = neurons.initial_state(neuron, 2, 3)
    firing = Firing(SURROGATES["triangular"], detach_reset=True)
    membrane, u, s = [], 0.0, 0.0
    for current in np.moveaxis(np.float64(currents), 1, 0):
        u = 0.6 * (1 - s) * u + current
        s = np.float64(u >= 1)
        membrane.append(u)
    expected = np.maximum(0, 1 - np.abs(np.stack(membrane, 1) - 1))
    for evaluation in ("scan", "parallel"):
        options = {"firing": firing, "evaluation": evaluation}
        total = lambda c, options=options: jnp.sum(
            neurons.evaluate(neuron, neuron.coefficients({}), c, state, **options).spikes
        )
        found = jax.jit(jax.grad(total))(currents)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_evaluate_refuses_what_it_cannot_do():
    silif, state = neurons.SiLIF(), neurons.initial_state(neurons.LIF(), 2, 3)
    currents = jnp.zeros((2, 5, 3))
    with pytest.raises(ValueError, match="SiLIF has no parallel form"):
        neurons.evaluate(silif, (), currents, state, evaluation="parallel")
    with pytest.raises(ValueError, match="evaluation is 'quick'; expected auto, scan, parallel"):
        neurons.choose_evaluation("quick", silif)
    assert neurons.choose_evaluation("auto", silif) == "scan"
    with pytest.raises(ValueError, match="rounds >= 1"):
        neurons.evaluate(neurons.LIF(), (), currents, state, effort=Effort(rounds=0))
    with pytest.raises(ValueError, match="state has shapes"):
        run(neurons.LIF(), (jnp.full(3, 0.5),), currents[:1], state)
