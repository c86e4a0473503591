"""Archives of arrays by strangers: read as NumPy reads them, or refused before they take memory."""

import zipfile

import numpy as np
import pytest

from pspike_jax.data.archives import read_npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_read_npz_reads_what_numpy_wrote(tmp_path, rng, save):
    arrays = {
        "a": rng.normal(size=(3, 4)).T, "b": np.array(7), "c": np.zeros((0, 5), np.int8),
        "layers.0/d": rng.integers(0, 9, 4).astype(">i2"), "words": np.array(["one", "two"]),
    }
    save(tmp_path / "file.npz", **arrays)
    found = read_npz(tmp_path / "file.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def write(path, header, content=b"", method=zipfile.ZIP_STORED):
    """Write an archive of one array whose header is as given."""
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.npy", data)


@pytest.mark.parametrize("header, reason", [
    (b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n", "do not hold"),
    (b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", "do not hold"),
    (b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", "allow_pickle=False"),
    (b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,", "not a readable archive"),
])
def test_read_npz_refuses_a_header_that_its_bytes_do_not_bear_out(tmp_path, header, reason):
    write(tmp_path / "file.npz", header, b"\x00" * 4)
    with pytest.raises(ValueError, match=f"file.npz: .*{reason}"):
        read_npz(tmp_path / "file.npz")


def test_read_npz_refuses_a_few_bytes_that_unpack_to_many(tmp_path):
    np.savez_compressed(tmp_path / "file.npz", a=np.zeros(10_000))
    with pytest.raises(ValueError, match="file.npz: .*more than 50,000 bytes"):
        read_npz(tmp_path / "file.npz", most=50_000)


def test_read_npz_refuses_what_is_no_archive(tmp_path):
    (tmp_path / "file.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="file.npz: not a readable archive"):
        read_npz(tmp_path / "file.npz")
    with pytest.raises(FileNotFoundError, match="none.npz"):
        read_npz(tmp_path / "none.npz")
