"""Batches ahead of the step: the same ones in the same order."""

import threading

import numpy as np
import pytest
from tiny import one_device, tiny_settings, tiny_task

from pspike_jax.data import train_batch
from pspike_jax.training import run as run_module
from pspike_jax.training.run import AHEAD, Prefetch


def open_batches(split=None, done=0, steps=7):
    settings = tiny_settings(steps=steps)
    return Prefetch(split or tiny_task().train, settings, one_device(), done=done)


def test_prefetch_gives_the_batches_of_the_steps_that_are_left():
    split = tiny_task().train
    with open_batches(split, done=2) as batches:
        for step in range(2, 7):
            expected = train_batch(split, seed=0, step=step, batch_size=16)
            for name, array in batches.next().items():
                np.testing.assert_array_equal(array, expected[name])
        with pytest.raises(IndexError):
            batches.next()


def test_prefetch_makes_batches_before_they_are_asked_for(monkeypatch):
    made, enough = [], threading.Event()

    def make(split, *, seed, step, batch_size, part):
        made.append(step)
        if len(made) == AHEAD:
            enough.set()
        return train_batch(split, seed=seed, step=step, batch_size=batch_size, part=part)

    monkeypatch.setattr(run_module, "train_batch", make)
    with open_batches():
        assert enough.wait(timeout=60)
    assert made == list(range(AHEAD))


def test_prefetch_hands_on_what_went_wrong_in_its_thread(monkeypatch):
    def fail(split, **_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(run_module, "train_batch", fail)
    with open_batches() as batches, pytest.raises(OSError, match="the disk is gone"):
        batches.next()
