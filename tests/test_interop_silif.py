"""Weights of SiLIF's program, in and out; what they compute is replayed elsewhere."""

import json
import pathlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import GOLDEN
from replays.silif import MODELS

from pspike_jax.interop import export_silif, load_silif, read_state_dict

FILES = sorted(path.name for path in GOLDEN.glob("silif_*.npz")) or ["silif_family_lif.npz"]


@pytest.mark.parametrize("name", FILES)
def test_export_returns_the_state_dict(name, golden):
    arrays = golden(name)
    meta = json.loads(str(arrays["meta"]))
    state_dict = {k.removeprefix("param/"): a for k, a in arrays.items() if k.startswith("param/")}
    module, variables = load_silif(
        state_dict, neuron=MODELS[meta["neuron"]], normalization=meta["normalization"]
    )
    exported = export_silif(module, variables["params"], variables.get("batch_stats"))
    kept = {n: a for n, a in state_dict.items() if "num_batches_tracked" not in n}
    assert exported.keys() == kept.keys()
    for key, value in kept.items():
        np.testing.assert_array_equal(exported[key], value)


def tiny_state_dict(rng, *, recurrent=False, directions=1):
    """A state dict of the authors' shape: 3 inputs, layers of 4 and 5, 2 classes, layer norm."""
    sizes, arrays = (3, 4, 5, 2), {}
    for i, (fan_in, width) in enumerate(zip(sizes, sizes[1:])):
        fan_in *= directions if i else 1
        arrays[f"snn.{i}.alpha"] = rng.uniform(0.82, 0.96, width)
        arrays[f"snn.{i}.W.weight"] = rng.normal(size=(width, fan_in))
        arrays[f"snn.{i}.norm.weight"] = rng.uniform(0.5, 2, width)
        arrays[f"snn.{i}.norm.bias"] = rng.normal(size=width)
        if recurrent and i < 2:
            arrays[f"snn.{i}.V.weight"] = rng.normal(size=(width, width))
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def test_recurrent_and_bidirectional_weights_are_told_by_names_and_shapes(rng):
    state_dict = tiny_state_dict(rng, recurrent=True, directions=2)
    module, variables = load_silif(state_dict, neuron="rlif", normalization="layernorm")
    assert module.config.bidirectional and module.config.widths == (4, 5)
    recurrent = variables["params"]["backbone"]["layers_1"]["neurons"]["recurrent"]
    np.testing.assert_array_equal(recurrent, state_dict["snn.1.V.weight"])
    output, _ = jax.eval_shape(module.apply, variables, jnp.ones((2, 7, 3)))
    assert output.shape == (2, 2)


def test_load_silif_lists_all_that_does_not_fit_in_one_error(rng):
    state_dict = tiny_state_dict(rng)
    state_dict["snn.0.gamma"] = state_dict.pop("snn.1.alpha")
    state_dict["snn.7.alpha"] = np.ones(2)
    state_dict["snn.1.W.weight"] = state_dict["snn.1.W.weight"][:, :3]
    state_dict["snn.2.alpha"] = state_dict["snn.2.alpha"] + 1j
    state_dict["snn.0.norm.bias"] = np.ones(3)
    del state_dict["snn.2.W.weight"]
    with pytest.raises(ValueError) as caught:
        load_silif(state_dict, neuron="lif", normalization="layernorm")
    assert str(caught.value).splitlines()[1:] == [
        "  snn.0.gamma is unknown",
        "  snn.7.alpha is unknown",
        "  snn.0.norm.bias has shape (3,); expected (4,)",
        "  snn.1.W.weight has shape (5, 3); expected (5, 4)",
        "  snn.1.alpha is missing",
        "  snn.2.W.weight is missing",
        "  snn.2.alpha has dtype complex64; expected real numbers",
    ]
    with pytest.raises(ValueError, match="snn.0.norm.running_mean is missing"):
        load_silif(tiny_state_dict(rng), neuron="lif")
    with pytest.raises(ValueError, match=r"layers \[0\]; expected snn.0, snn.1"):
        load_silif({"snn.0.alpha": np.ones(3), 1: np.ones(2)}, neuron="lif")
    with pytest.raises(ValueError, match="expected one of silif"):
        load_silif(tiny_state_dict(rng), neuron="SiLIF")
    with pytest.raises(ValueError, match="normalization is 'batch'"):
        load_silif(tiny_state_dict(rng), neuron="lif", normalization="batch")


def test_read_state_dict_reads_npz(rng, tmp_path):
    state_dict = tiny_state_dict(rng)
    np.savez(tmp_path / "weights.npz", **state_dict)
    got = read_state_dict(tmp_path / "weights.npz")
    assert got.keys() == state_dict.keys()
    np.testing.assert_array_equal(got["snn.1.W.weight"], state_dict["snn.1.W.weight"])


def test_read_state_dict_refuses_pickled_arrays(tmp_path):
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_state_dict(tmp_path / "objects.npz")
    (tmp_path / "pickle.npz").write_bytes(b"\x80\x04}.")  # an empty dict
    with pytest.raises(ValueError, match="pickle.npz: not a readable archive of arrays"):
        read_state_dict(tmp_path / "pickle.npz")


def test_read_state_dict_says_what_to_install(monkeypatch, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch"):
        read_state_dict(tmp_path / "weights.pth")


def test_read_state_dict_asks_torch_for_tensors_only(monkeypatch, tmp_path):
    class Tensor:
        nbytes = 24

        def detach(self):
            return self

        def numpy(self):
            return np.arange(3.0)

    asked, large = {}, Tensor()
    large.nbytes = 1 << 31
    files = {"good": {"a": Tensor()}, "bad": {"epoch": 3}, "large": {"a": large}, "list": [1]}

    def load(path, **options):
        asked.update(options)
        return files[pathlib.Path(path).stem]

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    for name in ("good.pth", "bad.pt", "large.pt", "list.pt", "damaged.pth", "weights.bin"):
        (tmp_path / name).write_bytes(b"")
    np.testing.assert_array_equal(read_state_dict(tmp_path / "good.pth")["a"], [0, 1, 2])
    assert asked["weights_only"] is True and asked["mmap"] is True
    with pytest.raises(ValueError, match="damaged.pth: not a readable file of tensors .'damaged'"):
        read_state_dict(tmp_path / "damaged.pth")
    with pytest.raises(ValueError, match="large.pt: its tensors take more than 1,073,741,824 byt"):
        read_state_dict(tmp_path / "large.pt")
    with pytest.raises(ValueError, match="list.pt holds a list; expected a state dict"):
        read_state_dict(tmp_path / "list.pt")
    with pytest.raises(ValueError, match="'epoch' is a int; expected a tensor"):
        read_state_dict(tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="expected .npz, .pth or .pt"):
        read_state_dict(tmp_path / "weights.bin")
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "absent.pth")
