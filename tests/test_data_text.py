"""IMDB and AAN character by character: tokens, vocabularies, splits, and damage."""

import collections

import numpy as np
import pytest
from data_writers import write_reviews

from pspike_jax.data import retrieval, text
from pspike_jax.data.characters import EOS, PAD, UNK, count_characters
from pspike_jax.data.retrieval import RetrievalSettings
from pspike_jax.data.source import load_source
from pspike_jax.data.text import TextSettings

SETTINGS = TextSettings(max_length=12, min_frequency=2)


def make_reviews(count=10):
    """Reviews whose classes can be told: 'bad...' and 'good...', with one rare character."""
    return {
        (split, name): [f"{word} {'é' * (k % 3)}{'xyz' * k}" for k in range(count)]
        for split in ("train", "test")
        for name, word in (("neg", "bad"), ("pos", "good"))
    }


def test_count_characters_orders_by_frequency_then_code_point():
    vocabulary = count_characters(["bbbaac", "dcba€€€€€"], 100, min_frequency=2)
    counts = collections.Counter("bbbaacdcba€€€€€")
    expected = sorted((c for c in counts if counts[c] >= 2), key=lambda c: (-counts[c], c))
    assert list(vocabulary.characters) == expected
    assert len(vocabulary) == 3 + len(expected)


def test_count_characters_counts_what_encode_keeps():
    assert count_characters(["aab" + "c" * 50], 4, min_frequency=1).characters == ("a", "b")


def test_encode_cuts_ends_and_pads():
    vocabulary = count_characters(["abab"], 100, min_frequency=1)
    tokens, lengths = vocabulary.encode(["ab", "abcabab", ""], 5)
    assert tokens.tolist() == [
        [3, 4, EOS, PAD, PAD], [3, 4, UNK, 3, EOS], [EOS, PAD, PAD, PAD, PAD],
    ]
    assert lengths.tolist() == [3, 5, 1]


def test_text_source_reads_every_review_once(tmp_path):
    reviews = make_reviews()
    write_reviews(tmp_path, reviews)
    source = text.text_source(SETTINGS, tmp_path)
    letters = count_characters(
        [review for (split, _), texts in reviews.items() if split == "train" for review in texts],
        12, min_frequency=2,
    ).characters
    task = load_source(source)
    assert task.vocab_size == 3 + len(letters)
    assert [len(split.targets) for split in task.splits().values()] == [18, 2, 20]
    read = []
    for split in (task.train, task.validation):
        for tokens, length, label in zip(*split[:3]):
            kept = "".join(letters[token - 3] for token in tokens[: length - 1])
            assert kept.startswith("good" if label else "bad")
            read.append(kept)
    expected = [r[:11] for (split, _), texts in reviews.items() if split == "train" for r in texts]
    assert sorted(read) == sorted(expected)


def test_text_source_holds_out_both_classes(tmp_path):
    write_reviews(tmp_path, make_reviews())
    task = load_source(text.text_source(SETTINGS, tmp_path / "aclImdb"))
    assert np.bincount(task.validation.targets).tolist() == [1, 1]


def test_text_source_names_a_damaged_review(tmp_path):
    write_reviews(tmp_path, make_reviews())
    path = tmp_path / "aclImdb/test/pos/3_7.txt"
    path.write_bytes(b"good \xff\xfe")
    with pytest.raises(ValueError, match="3_7.txt: not UTF-8 text"):
        text.text_source(SETTINGS, tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="3_7.txt: empty"):
        text.text_source(SETTINGS, tmp_path)
    path.write_bytes(bytes(20))
    with pytest.raises(ValueError, match="3_7.txt: damaged, it holds zero bytes"):
        text.text_source(SETTINGS, tmp_path)


def test_text_source_names_a_missing_folder(tmp_path):
    reviews = make_reviews()
    del reviews["test", "neg"]
    write_reviews(tmp_path, reviews)
    with pytest.raises(FileNotFoundError, match="test/neg: no .txt files"):
        text.text_source(SETTINGS, tmp_path)


def write_pairs(folder, rows):
    for name in retrieval.FILES.values():
        (folder / name).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


ROWS = [
    '0.0\tP1\tP2\tab ba\t"quoted\ttab"',
    "1.0\tP3\tP4\tbb\tcafé",
]


def test_retrieval_source_reads_pairs(tmp_path):
    write_pairs(tmp_path, ROWS)
    source = retrieval.retrieval_source(RetrievalSettings(max_length=8), tmp_path)
    assert source.differences[0] == "train: 2 examples, 147,086 were published"
    letters = count_characters(
        ["ab ba", "quoted\ttab", "bb", "café"], 8, min_frequency=1
    ).characters
    task = load_source(source)
    assert task.train.inputs.shape == (2, 2, 8)
    assert task.train.targets.tolist() == [0, 1]
    assert task.train.lengths.tolist() == [[6, 8], [3, 5]]
    texts = [
        "".join(letters[token - 3] for token in tokens[: length - 1])
        for tokens, length in zip(task.test.inputs.reshape(4, 8), task.test.lengths.reshape(4))
    ]
    assert texts == ["ab ba", "quoted\t", "bb", "café"]


@pytest.mark.parametrize("row, reason", [
    ("0.0\tP1\tP2\tab", "line 3: 4 fields"),
    ("maybe\tP1\tP2\tab\tba", "line 3: 5 fields that begin with 'maybe'"),
    ("1.0\tP1\tP2\t\tba", "line 3: an empty document"),
    ("", "line 3: 0 fields"),
])
def test_retrieval_source_names_the_damaged_line(tmp_path, row, reason):
    write_pairs(tmp_path, [*ROWS, row])
    with pytest.raises(ValueError, match=f"new_aan_pairs.train.tsv, {reason}"):
        retrieval.retrieval_source(RetrievalSettings(), tmp_path)


def test_retrieval_source_notices_a_file_that_ends_inside_a_quotation(tmp_path):
    write_pairs(tmp_path, ROWS)
    path = tmp_path / "new_aan_pairs.test.tsv"
    path.write_text(path.read_text() + '1.0\tP5\tP6\tab\t"b', encoding="utf-8")
    with pytest.raises(ValueError, match="new_aan_pairs.test.tsv: truncated, a quotation does not"):
        retrieval.retrieval_source(RetrievalSettings(), tmp_path)


def test_retrieval_source_says_where_a_file_ends_inside_a_line(tmp_path):
    write_pairs(tmp_path, ROWS)
    path = tmp_path / "new_aan_pairs.eval.tsv"
    path.write_bytes(path.read_bytes()[:-3])
    source = retrieval.retrieval_source(RetrievalSettings(), tmp_path)
    assert source.counts["validation"] == 2
    assert source.differences[-1].startswith("new_aan_pairs.eval.tsv: its last line does not end")


def test_retrieval_source_says_where_a_block_of_a_file_is_lost(tmp_path):
    write_pairs(tmp_path, [*ROWS, "0.0\tP5\tP6\tab\t" + 512 * "\0"])
    source = retrieval.retrieval_source(RetrievalSettings(), tmp_path)
    assert source.differences[-1].startswith("new_aan_pairs.test.tsv: it holds a block of zeros")


def test_retrieval_source_names_a_file_that_is_not_text(tmp_path):
    write_pairs(tmp_path, ROWS)
    (tmp_path / "new_aan_pairs.test.tsv").write_bytes(b"1.0\tP1\tP2\tab\t\xff\xfe\n")
    with pytest.raises(ValueError, match="new_aan_pairs.test.tsv, after line 0: damaged"):
        retrieval.retrieval_source(RetrievalSettings(), tmp_path)


def test_retrieval_source_names_a_file_without_pairs(tmp_path):
    write_pairs(tmp_path, ROWS)
    (tmp_path / "new_aan_pairs.eval.tsv").write_text("")
    with pytest.raises(ValueError, match="no pairs in new_aan_pairs.eval.tsv"):
        retrieval.retrieval_source(RetrievalSettings(), tmp_path)


def test_retrieval_source_names_the_missing_files(tmp_path):
    write_pairs(tmp_path, ROWS)
    (tmp_path / "new_aan_pairs.eval.tsv").unlink()
    with pytest.raises(FileNotFoundError, match="lacks new_aan_pairs.eval.tsv"):
        retrieval.retrieval_source(RetrievalSettings(), tmp_path)
