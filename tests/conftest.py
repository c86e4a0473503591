"""Test set-up: eight virtual CPU devices, strict promotion, keys that never repeat."""

import itertools
import pathlib
import zlib

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "shared" / "golden"


@pytest.fixture
def key(request):
    """A function that returns a new PRNG key at each call; the same whatever ran before."""
    root = jax.random.key(zlib.crc32(request.node.nodeid.encode()))
    numbers = itertools.count()
    return lambda: jax.random.fold_in(root, next(numbers))


@pytest.fixture
def rng():
    """A seeded NumPy generator, the same in every test."""
    return np.random.default_rng(20240603)


@pytest.fixture
def golden():
    """A function from a file name to the arrays recorded in it; skips where there are none."""

    def load(name):
        path = GOLDEN / name
        if not path.exists():
            pytest.skip(f"no recorded vectors at {path}")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    return load
