"""Streams of different ages in one batch: each is what its own sequence gives, in any slot."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

import pspike_jax
from pspike_jax.models.slots import evict, insert, open_slots, step_slots

SLOTS, NAMES = 3, (7, 12, 3, 40)


@pytest.mark.parametrize("name", ["pspikessm", "mamba"])
def test_each_stream_equals_its_own_sequence_whatever_is_beside_it(name, rng):
    model = pspike_jax.create_model(name, "tiny", pool="none")
    tokens = model.config.vocab_size
    shape = (4, 12) if tokens else (4, 12, 3)
    x = rng.integers(0, tokens, shape, np.int32) if tokens else np.float32(rng.normal(size=shape))
    streams = dict(zip(NAMES, x))
    key = jax.random.key(1)
    rngs = {"spikes": key} if model.stochastic else {}
    variables = nn.meta.unbox(jax.jit(model.init)({"params": key, "spikes": key}, x))
    apply = jax.jit(functools.partial(model.apply, variables, rngs=rngs), static_argnames="method")
    traced = []

    def compiled(function):
        def traces(*arguments):
            traced.append(function)
            return function(*arguments)

        return jax.jit(traces)

    step = compiled(functools.partial(step_slots, model, variables, rngs=rngs))
    put, take = compiled(insert), compiled(evict)

    slots = open_slots(model, SLOTS)
    # What happens when, to whom, where: 40 takes the slot of 12; 3 goes on in another slot.
    plan = {0: [("in", 7, 1)], 2: [("in", 12, 0)], 5: [("out", 12, 0), ("in", 40, 0)],
            6: [("out", 7, 1), ("in", 3, 1)], 8: [("out", 3, 1), ("in", 3, 2)]}
    where, left, found = {}, {}, {key: [] for key in streams}
    for t in range(11):
        for what, stream, place in plan.get(t, ()):
            if what == "out":
                slots, left[stream] = take(slots, place)
                del where[stream]
                continue
            state = left.get(stream)
            if state is None:
                state, (outputs, _) = apply(
                    model.initial_state(1), streams[stream][None, :3], method="prefill",
                    example_ids=np.array([stream]),
                )
                found[stream] += list(outputs[0])
            slots, where[stream] = put(slots, place, state, stream), place
        inputs = x[[0] * SLOTS, 0]
        for stream, place in where.items():
            inputs[place] = streams[stream][len(found[stream])]
        slots, (outputs, _) = step(slots, inputs)
        for stream, place in where.items():
            found[stream].append(outputs[place])
    assert len(traced) == 3  # once each, whatever came and went
    whole, _ = apply(x, example_ids=np.array(NAMES))
    assert [len(found[stream]) for stream in NAMES] == [9, 6, 8, 9]
    for stream, expected in zip(NAMES, whole):
        # Spikes are the same; layers sum in float32 in another order.
        count = len(found[stream])
        np.testing.assert_allclose(np.stack(found[stream]), expected[:count], atol=1e-5)


def test_slots_without_a_stream_rest(rng):
    model = pspike_jax.create_model("s4d", "tiny", pool="none")
    x = np.asarray(rng.normal(size=(2, 3)), np.float32)
    variables = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), x[None]))
    slots = insert(open_slots(model, 2), 1, model.initial_state(1), 5)
    stepped, _ = jax.jit(functools.partial(step_slots, model, variables))(slots, x)
    assert stepped.states["t"].tolist() == [0, 1] and stepped.used.tolist() == [False, True]
    for before, after in zip(jax.tree.leaves(slots.states), jax.tree.leaves(stepped.states)):
        np.testing.assert_array_equal(before[0], after[0])
