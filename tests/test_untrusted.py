"""Files of strangers: none leads out of its folder, to other files, to a wait, or to gigabytes."""

import gzip
import json
import os
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
from data_writers import write_speech, write_wav
from fuzz_loaders import sign_card, write_card
from hostile import limited

from pspike_jax import data
from pspike_jax.data import mnist, pictures, speech_commands, untrusted
from pspike_jax.data.archives import read_npz
from pspike_jax.data.tables import read_rows
from pspike_jax.interop import read_state_dict
from pspike_jax.pretrained import load_pretrained

HEADROOM = 400 << 20  # bytes; what is claimed below is more


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """A folder of a card and its weights."""
    folder = tmp_path_factory.mktemp("card")
    write_card(folder, None)
    load_pretrained("tiny", folder)  # starts all threads of JAX, each of which reserves memory
    return folder


@pytest.fixture(autouse=True)
def little_memory(card):
    """No file of this module may take much memory, or keep anybody waiting."""
    with limited(HEADROOM, 60):
        yield


@pytest.mark.parametrize("name", [
    "../secret", "/etc/passwd", "a/../../secret", "", ".", "..", "a\0b", "..\\secret", "C:\\secret",
    "C:secret", "\\\\host\\share", "away/secret", "link", "loop",
])
def test_inside_keeps_names_in_their_folder(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "away").symlink_to(tmp_path)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to(folder / ".." / "folder2")
    with pytest.raises(ValueError, match="is not the name of a file in|is a link that leaves"):
        untrusted.inside(folder, name)


def test_inside_allows_links_that_stay_and_a_folder_that_is_a_link(tmp_path):
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "sub" / "file").write_text("text")
    (tmp_path / "folder" / "link").symlink_to("sub/file")
    (tmp_path / "named").symlink_to(tmp_path / "folder")
    for name in ("link", "sub/file", "./sub/file", "..file"):
        assert untrusted.inside(tmp_path / "named", name) == tmp_path / "named" / name
    assert untrusted.read_text(untrusted.inside(tmp_path / "named", "link")) == "text"


def test_open_regular_refuses_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", tmp_path / "folder", "/dev/zero"):
        with pytest.raises(ValueError, match=f"{path}: .*a pipe or a device"):
            untrusted.open_regular(path)
    for path in ("none", "none/none", "file/none"):
        (tmp_path / "file").write_text("")
        with pytest.raises(FileNotFoundError, match=f"{path} does not exist"):
            untrusted.open_regular(tmp_path / path)
    for path in (tmp_path / ("a" * 300), "a\0b"):
        with pytest.raises(ValueError, match="cannot be opened"):
            untrusted.open_regular(path)


def test_read_bytes_compares_sizes_before_it_reads(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)  # no byte of it is on the disk
    with pytest.raises(ValueError, match="large: 1,099,511,627,776 bytes, expected at most 99"):
        untrusted.read_bytes(tmp_path / "large", 99)
    for read in (read_npz, read_state_dict):
        (tmp_path / "large").rename(tmp_path / "large.npz")
        with pytest.raises(ValueError, match="large.npz: .* expected at most"):
            read(tmp_path / "large.npz")
        (tmp_path / "large.npz").rename(tmp_path / "large")


@pytest.mark.parametrize("text, reason", [
    ('{"a": 1, "a": 2}', "not JSON .a key is given twice"),
    ("[1]", "a JSON list, expected an object"),
    ("[" * 100_000, "not JSON"), ("\xff", "not JSON"), ('{"a": ' + "9" * 5000 + "}", "not JSON"),
])
def test_read_json_names_what_is_no_object(tmp_path, text, reason):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(ValueError, match=f"file.json: {reason}"):
        untrusted.read_json(tmp_path / "file.json")


def test_list_files_leaves_out_shadows_and_refuses_links_that_leave(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b.txt", "a.txt", "._a.txt", "a.wav"):
        (folder / name).write_text("")
    (folder / "c.txt").symlink_to("a.txt")
    assert untrusted.list_files(folder, ".txt") == ["a.txt", "b.txt", "c.txt"]
    assert untrusted.list_files(tmp_path / "none", ".txt") == []
    (folder / "d.txt").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="d.txt is a link that leaves"):
        untrusted.list_files(folder, ".txt")


def test_read_idx_stops_a_file_that_unpacks_to_more_than_it_may(tmp_path):
    # Members of a gzip file may follow each other: 1 GB in 1 MB.
    member = gzip.compress(bytes(1 << 24))
    (tmp_path / "a.gz").write_bytes(64 * member)
    with pytest.raises(ValueError, match="a.gz: holds more than 268,435,456 bytes"):
        mnist.read_idx(tmp_path / "a.gz")


def npy(shape, content=b"", descr="<f4", length=None):
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    length = len(header) if length is None else length
    return b"\x93NUMPY\2\0" + struct.pack("<I", length) + header + content


@pytest.mark.parametrize("member, reason", [
    (npy((1 << 40,)), "which its .* bytes do not hold"),
    (npy((1 << 40,), descr="|S0"), "expected numbers or text"),
    (npy((-1,)), "do not hold"),
    (npy((1,), bytes(8), descr="|O"), "allow_pickle=False"),
    (npy((1,), bytes(8), descr=[("a", "<f8")]), "expected numbers or text"),
    (npy((1,), bytes(8), length=(1 << 32) - 1), "a header of 4,294,967,295 bytes"),
    (b"\x93NUMPY\3\0" + npy((1,), bytes(4))[8:], "format .3, 0."),
])
def test_read_npz_refuses_headers_that_ask_for_what_is_not_there(tmp_path, member, reason):
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
        archive.writestr("a.npy", member)
    with pytest.raises(ValueError, match=f"file.npz: not a readable archive .*{reason}"):
        read_npz(tmp_path / "file.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a.npy", "a.npy"), ("a.npy", "a")])
def test_read_npz_refuses_two_arrays_of_one_name(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, npy((1,), struct.pack("<f", number)))
    for read in (read_npz, read_state_dict):
        with pytest.raises(ValueError, match="file.npz: .*two arrays are named a"):
            read(tmp_path / "file.npz")


@pytest.mark.parametrize("change, reason", [
    (lambda end: end[:12] + struct.pack("<L", 1 << 30) + end[16:], "list of members"),
    (lambda end: b"PK\6\7" + bytes(16) + end, "list of members"),
    (lambda end: end[:-2] + b"\4\0note", "without remarks"),
])
def test_read_npz_refuses_long_lists_of_members(tmp_path, change, reason):
    np.savez(tmp_path / "file.npz", a=np.zeros(3))
    content = (tmp_path / "file.npz").read_bytes()
    (tmp_path / "file.npz").write_bytes(content[:-22] + change(content[-22:]))
    with pytest.raises(ValueError, match=f"file.npz: .*{reason}"):
        read_npz(tmp_path / "file.npz")


def test_read_npz_refuses_unpackers_whose_memory_the_file_decides(tmp_path):
    with zipfile.ZipFile(tmp_path / "file.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy((1,), bytes(4)))
    with pytest.raises(ValueError, match="file.npz: .*a is packed in a way that NumPy does not"):
        read_npz(tmp_path / "file.npz")


def png(width, height, rows=b""):
    def chunk(name, content):
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("content, reason", [
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n", "it is no PNG file"),
    (b"GIF89a" + bytes(50), "it is no PNG file"),
    (png(60_000, 60_000), r"\(60000, 60000\) pixels, expected \(2, 2\)"),
    (png(2, 2, b"\0"), "cannot be read as an image"),
    (bytes(1 << 21), "expected at most 1,048,576"),
])
def test_decode_png_reads_no_other_format_and_no_other_size(content, reason):
    with pytest.raises(ValueError, match=f"one.png: .*{reason}"):
        pictures.decode_png(content, (2, 2), "one.png")


def test_decode_png_gives_pixels():
    content = png(3, 2, b"\0\1\2\3\0\4\5\6")
    np.testing.assert_array_equal(
        pictures.decode_png(content, (2, 3), "one.png"), [[1, 2, 3], [4, 5, 6]]
    )


@pytest.mark.parametrize("part, size", [(4, 0xFFFFFFFF), (16, 0xFFFFFFF0), (40, 0xFFFFFFF0)])
def test_read_wav_refuses_chunks_that_claim_gigabytes(tmp_path, part, size):
    write_wav(tmp_path / "clip.wav", np.zeros(16_000))
    content = bytearray((tmp_path / "clip.wav").read_bytes())
    content[part : part + 4] = struct.pack("<I", size)
    (tmp_path / "clip.wav").write_bytes(content)
    try:
        assert speech_commands.read_wav(tmp_path / "clip.wav").size == 16_000
    except ValueError as error:
        assert "clip.wav: " in str(error)


@pytest.mark.parametrize("content, reason", [
    (b"a\t" + b"b" * 2000 + b"\n", "line 1: a row of more than 1,000 bytes"),
    (b"a\tb\n" + b'"x\n"\t' * 500, "line .*: a row of more than 1,000 bytes"),
    (b'a\t"b\n', "a quotation does not end"),
    (b"\xff\t\n", "line 1: damaged, not text"),
])
def test_read_rows_takes_memory_for_short_rows_alone(tmp_path, content, reason):
    (tmp_path / "rows.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=f"rows.tsv, {reason}|rows.tsv: truncated, {reason}"):
        list(read_rows(tmp_path / "rows.tsv", 1000, "utf-8"))


def change_card(folder, change):
    card = json.loads((folder / "tiny.json").read_text())
    change(card)
    (folder / "tiny.json").write_text(json.dumps(card))


@pytest.mark.parametrize("change, reason", [
    (lambda card: card["weights"].update(file="../tiny.npz"), "is not the name of a file in"),
    (lambda card: card["weights"].update(file="/dev/zero"), "is not the name of a file in"),
    (lambda card: card["weights"].update(file="sub/tiny.npz"), "is a link that leaves"),
    (lambda card: card["weights"].update(file=7), "expected words"),
    (lambda card: card["model"].update(fields=[]), "expected words and an object"),
    (lambda card: card["model"].update(name="none"), "unknown model 'none'"),
    (lambda card: card["model"]["fields"].update(d_state=1 << 20), "d_state is 1048576"),
    (lambda card: card["model"]["fields"].update(n_layers=1e9), "n_layers is 1000000000"),
    (lambda card: card["model"]["fields"].update(d_model=1 << 16), "more than 1,073,741,824 bytes"),
    (lambda card: card["model"]["fields"].update(d_model=None), "does not describe a model"),
    (lambda card: card["model"]["fields"].update(name="s5"), "does not describe a model"),
    (lambda card: card["input"].update(shape=[8, 1, 1, 1]), "input.shape is"),
    (lambda card: card["input"].update(shape=["8", 1]), "does not describe a model"),
    (lambda card: card["input"].update(shape=[-8, 1]), "does not describe a model"),
])
def test_load_pretrained_refuses_cards_that_ask_for_other_files_or_sizes(
    tmp_path, card, change, reason
):
    folder = shutil.copytree(card, tmp_path / "cards")
    (folder / "sub").symlink_to(tmp_path)
    change_card(folder, change)
    with pytest.raises(ValueError, match=f"tiny.json .*{reason}"):
        load_pretrained("tiny", folder)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_load_pretrained_reads_the_bytes_that_it_checked(tmp_path, card):
    shutil.copytree(card, tmp_path, dirs_exist_ok=True)
    with zipfile.ZipFile(tmp_path / "tiny.npz", "a") as archive:
        name = archive.namelist()[0]
        archive.writestr(name, archive.read(name))
    sign_card(tmp_path)
    with pytest.raises(ValueError, match="tiny.json: .*tiny.npz: .*two arrays are named"):
        load_pretrained("tiny", tmp_path)


@pytest.mark.parametrize("name", ["../other", "/etc", "a/b", "..", ""])
def test_load_prepared_takes_no_path_for_a_name(tmp_path, name):
    with pytest.raises(ValueError, match="expected the name of a folder in"):
        data.load_prepared(dataset=name, data_dir=str(tmp_path))


def test_speech_lists_name_no_clip_of_another_folder(tmp_path, rng):
    write_speech(tmp_path / "speech", rng, clips=2)
    write_wav(tmp_path / "clip.wav", np.zeros(16_000))
    for name in ("../clip.wav", str(tmp_path / "clip.wav"), "cat/../../clip.wav"):
        (tmp_path / "speech" / "testing_list.txt").write_text(name + "\n")
        with pytest.raises(ValueError, match="testing_list.txt, line 1: no clip"):
            speech_commands.list_official(tmp_path / "speech")
