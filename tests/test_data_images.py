"""MNIST and CIFAR-10 from their published files: values, orders, splits, and damage."""

import gzip

import numpy as np
import pytest
from data_writers import write_cifar, write_idx, write_mnist
from PIL import Image

from pspike_jax.data import cifar, mnist
from pspike_jax.data.cifar import CifarSettings
from pspike_jax.data.mnist import MnistSettings
from pspike_jax.data.source import load_source


def reverse_bits(number, bits):
    return int(format(number, f"0{bits}b")[::-1], 2)


@pytest.mark.parametrize("size, bits", [(784, 10), (16, 4), (5, 3)])
def test_bit_reversal_order_keeps_reversed_numbers_below_the_size(size, bits):
    expected = [reverse_bits(n, bits) for n in range(2**bits)]
    assert mnist.bit_reversal_order(size).tolist() == [n for n in expected if n < size]


def test_random_order_is_that_of_the_legacy_generator():
    order = mnist.random_order(784)
    assert order[:5].tolist() == np.random.RandomState(92916).permutation(784)[:5].tolist()
    assert sorted(order) == list(range(784))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("order", ["rows", "bit_reversal", "random"])
def test_mnist_source_reads_every_image_once_in_the_order(tmp_path, rng, suffix, order):
    splits = write_mnist(tmp_path, rng, suffix=suffix)
    task = load_source(mnist.mnist_source(MnistSettings(order=order), tmp_path))
    assert [len(split.targets) for split in task.splits().values()] == [36, 4, 20]
    pixels = mnist.ORDERS[order](784)
    images, labels = splits["test"]
    expected = images.reshape(20, 784)[:, pixels] / np.float32(255)
    np.testing.assert_array_equal(task.test.inputs[:][..., 0], expected)
    np.testing.assert_array_equal(task.test.targets, labels)
    read = np.concatenate([task.train.inputs[:], task.validation.inputs[:]])[..., 0]
    rows = np.rint(255 * read).astype(np.uint8).tolist()
    known = [row.tolist() for row in splits["train"][0].reshape(40, 784)[:, pixels]]
    assert sorted(rows) == sorted(known)
    learnt = np.concatenate([task.train.targets, task.validation.targets])
    assert [known.index(row) % 10 for row in rows] == learnt.tolist()


def test_mnist_source_finds_the_dotted_names(tmp_path, rng):
    write_mnist(tmp_path, rng)
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
    assert mnist.mnist_source(MnistSettings(), tmp_path).counts["test"] == 20


def test_mnist_source_says_how_files_differ_from_the_published_ones(tmp_path, rng):
    write_mnist(tmp_path, rng)
    differences = mnist.mnist_source(MnistSettings(), tmp_path).differences
    assert "train: 40 examples, 60,000 were published" in differences
    assert "t10k-labels-idx1-ubyte: its sha256 is not that of the published file" in differences


@pytest.mark.parametrize("damage, reason", [
    (lambda data: data[:-1], r"truncated, 7,855 bytes; .* asks for 7,856"),
    (lambda data: data + b"x", r"too long, 7,857 bytes"),
    (lambda data: data[:7], r"truncated, 7 bytes"),
    (lambda data: b"", r"truncated, 0 bytes"),
    (lambda data: b"\x00\x00\x0d\x03" + data[4:], r"magic number 3331, expected 2049 .* or 2051"),
    (lambda data: b"\x00\x00\x08\x01" + data[4:8] + data[16:26], r"magic number 2049, expected"),
])
def test_mnist_source_names_the_damaged_file(tmp_path, rng, damage, reason):
    write_mnist(tmp_path, rng, train=10, test=10)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"t10k-images-idx3-ubyte: {reason}"):
        mnist.mnist_source(MnistSettings(), tmp_path)


@pytest.mark.parametrize("damage", ["truncate", "flip", "plain"])
def test_read_idx_names_a_damaged_gzip_file(tmp_path, damage):
    path = tmp_path / "labels.gz"
    write_idx(path, np.arange(200))
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-6] ^= 1  # inside the checksum that ends the file
    path.write_bytes({
        "truncate": data[:-9], "flip": data, "plain": gzip.decompress(path.read_bytes()),
    }[damage])
    with pytest.raises(ValueError, match="labels.gz: truncated or damaged"):
        mnist.read_idx(path)


@pytest.mark.parametrize("labels, reason", [
    (np.arange(9), "10 images but 9 labels"),
    (np.full(10, 11), "labels from 0 to 11, expected 0 to 9"),
])
def test_mnist_source_refuses_labels_that_do_not_match(tmp_path, rng, labels, reason):
    write_mnist(tmp_path, rng, train=10, test=10)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", labels)
    with pytest.raises(ValueError, match=f"t10k-labels-idx1-ubyte: {reason}"):
        mnist.mnist_source(MnistSettings(), tmp_path)


def test_mnist_source_refuses_images_of_another_size(tmp_path, rng):
    write_mnist(tmp_path, rng, train=10, test=10)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((10, 8, 8)))
    with pytest.raises(ValueError, match=r"images of \(8, 8\) pixels, expected 28 x 28"):
        mnist.mnist_source(MnistSettings(), tmp_path)


def test_mnist_source_names_the_missing_file(tmp_path, rng):
    write_mnist(tmp_path, rng)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="lacks a regular file train-labels-idx1-ubyte"):
        mnist.mnist_source(MnistSettings(), tmp_path)


def test_mnist_settings_refuse_an_unknown_order():
    with pytest.raises(ValueError, match="order is 'spiral'"):
        MnistSettings(order="spiral")


def test_luminance_is_that_of_pillow(rng):
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_array_equal(cifar.luminance(image)[..., 0], expected)


def test_cifar_source_reads_gray_pixels_row_by_row(tmp_path, rng):
    planes, labels = write_cifar(tmp_path, rng)["test_batch.bin"]
    task = load_source(cifar.cifar_source(CifarSettings(), tmp_path))
    image = Image.fromarray(np.moveaxis(planes[3], 0, -1)).convert("L")
    expected = (np.asarray(image, np.float64).reshape(-1) / 255 - 122.6 / 255) / (61 / 255)
    # Two float32 roundings of numbers up to 3.
    np.testing.assert_allclose(task.test.inputs[[3]][0, :, 0], expected, atol=2e-6)
    np.testing.assert_array_equal(task.test.targets, labels)
    assert [len(split.targets) for split in task.splits().values()] == [45, 5, 10]


def test_cifar_source_reads_colors_as_three_numbers_a_step(tmp_path, rng):
    planes, _ = write_cifar(tmp_path, rng)["test_batch.bin"]
    task = load_source(cifar.cifar_source(CifarSettings(color=True), tmp_path))
    blue = (planes[7, 2, 5, 9] / 255 - 0.4465) / 0.2616
    np.testing.assert_allclose(task.test.inputs[[7]][0, 5 * 32 + 9, 2], blue, atol=2e-6)


def test_cifar_source_finds_the_folder_of_the_archive(tmp_path, rng):
    (tmp_path / "cifar-10-batches-bin").mkdir()
    write_cifar(tmp_path / "cifar-10-batches-bin", rng)
    assert cifar.cifar_source(CifarSettings(), tmp_path).counts["test"] == 10


@pytest.mark.parametrize("damage, reason", [
    (lambda data: data[:-1], "30,729 bytes, truncated or not of the binary version"),
    (lambda data: b"", "0 bytes, truncated"),
    (lambda data: data[:3073] + b"\x0b" + data[3074:], "the label of image 1 is 11"),
])
def test_cifar_source_names_the_damaged_file(tmp_path, rng, damage, reason):
    write_cifar(tmp_path, rng)
    path = tmp_path / "data_batch_4.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"data_batch_4.bin: {reason}"):
        cifar.cifar_source(CifarSettings(), tmp_path)


def test_cifar_source_says_which_file_lost_images(tmp_path, rng):
    write_cifar(tmp_path, rng)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[: 7 * 3073])
    differences = cifar.cifar_source(CifarSettings(), tmp_path).differences
    assert len(differences) == 6  # of six files with ten images
    assert "data_batch_2.bin: 7 examples, 10,000 were published" in differences


def test_cifar_source_names_the_missing_files(tmp_path, rng):
    write_cifar(tmp_path, rng)
    (tmp_path / "data_batch_2.bin").unlink()
    with pytest.raises(FileNotFoundError, match="lacks data_batch_2.bin"):
        cifar.cifar_source(CifarSettings(), tmp_path)
