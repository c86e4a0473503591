"""Every recorded file, replayed: spikes equal, values and gradients within what float32 allows."""

import numpy as np
import pytest
from conftest import GOLDEN
from recordings import is_result, replay, system_of, systems

FILES = sorted(str(path.relative_to(GOLDEN)) for path in GOLDEN.rglob("*.npz"))
# What an exact float32 implementation reaches, from the recorders' own float64 runs.
VALUES, GRADIENT_SHARE = {"rtol": 1e-4, "atol": 1e-5}, 1e-3
# (beginning of a system's name, beginning of a key): results that are left out, and why.
LEFT_OUT = {
    # Biases in front of a batch norm that trains: their true gradient is zero.
    ("SDN training", "grad/spatial_layers.0.0.bias"),
    ("SDN training", "grad/feature_layers.0.0.bias"),
    *(("PMSN", f"grad/fc.{i}.bias") for i in range(4)),
}


def load(name):
    with np.load(GOLDEN / name, allow_pickle=False) as arrays:
        return dict(arrays)


def known(name):
    return any(system_of(load(name)).startswith(system) for system in systems())


@pytest.mark.skipif(not FILES, reason=f"no recorded vectors at {GOLDEN}")
@pytest.mark.parametrize("name", [name for name in FILES if known(name)] or ["none"])
def test_recorded_results_are_computed_again(name):
    arrays = load(name)
    system = system_of(arrays)
    found = replay(arrays)
    left_out = [key for (start, key) in LEFT_OUT if system.startswith(start)]
    expected = {key for key in arrays if is_result(key, system)}
    expected = {key for key in expected if not any(key.startswith(part) for part in left_out)}
    assert expected <= set(found), sorted(expected - set(found))
    compared = {key for key in found if not any(key.startswith(part) for part in left_out)}
    for key in sorted(compared & set(arrays)):
        parts, got = set(key.split("/")), np.asarray(found[key])
        assert got.shape == arrays[key].shape, key
        if parts & {"spikes", "soft", "hard", "refractory"}:
            np.testing.assert_array_equal(got, arrays[key], err_msg=key)
        elif parts & {"grad", "grad_input"}:
            bound = GRADIENT_SHARE * np.abs(arrays[key]).max() + 1e-6
            np.testing.assert_allclose(got, arrays[key], rtol=0, atol=bound, err_msg=key)
        else:
            np.testing.assert_allclose(got, arrays[key], **VALUES, err_msg=key)
