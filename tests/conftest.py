"""Test set-up: eight virtual CPU devices, strict promotion, keys that never repeat, lanes."""

import importlib.metadata
import itertools
import os
import pathlib
import zlib

# Half of the suite's time is compilation: programs are compiled quickly, here and in processes that
# tests start. The second lane of .ci/run compiles as users do.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# A jaxlib ends the process at a flag that it does not know, and 0.12 does not know this one.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

# What this machine measured of its engines would decide programs that are compared.
os.environ["PSPIKE_JAX_CACHE"] = os.devnull

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

import lanes  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "shared" / "golden"


def pytest_collection_modifyitems(items):
    """Mark the tests of each lane."""
    lanes.mark(items)


@pytest.fixture(autouse=True, scope="module")
def fresh_programs():
    """Let go of a file's compiled programs behind it.

    Each is mapped into memory, piece by piece, and Linux ends a process of 65,530 maps: the suite
    has more.
    """
    yield
    jax.clear_caches()


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
