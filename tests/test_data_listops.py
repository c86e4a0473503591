"""ListOps: labels by a stack machine, rules by counting, the same examples everywhere."""

import hashlib
import pathlib
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import listops_baselines  # noqa: E402
from pspike_jax.data import Split, listops  # noqa: E402
from pspike_jax.data.listops import ListOpsSettings  # noqa: E402
from pspike_jax.data.source import load_source  # noqa: E402

ALPHA = 1e-6


def run_stack_machine(words):
    """Value and depth of an expression; fails on anything that is not one expression."""
    stack, deepest = [], 0
    for place, word in enumerate(words):
        if word.startswith("["):
            stack.append((word, []))
            deepest = max(deepest, len(stack))
            continue
        if word == "]":
            name, arguments = stack.pop()
            assert 2 <= len(arguments) <= 10
            ordered = sorted(arguments)
            middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2
            value = {
                "[MIN": ordered[0], "[MAX": ordered[-1], "[MED": middle, "[SM": sum(ordered) % 10,
            }[name]
        else:
            value = int(word)
        if not stack:
            assert place == len(words) - 1, "words behind the end of the expression"
            return value, deepest + 1
        stack[-1][1].append(value)
    raise AssertionError("the expression does not end")


def generate(**fields):
    """All examples of a set: words of each, and labels."""
    parts = list(listops.generate(ListOpsSettings(**fields)))
    tokens, lengths, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    names = np.array(listops.VOCABULARY)
    return [names[row[: n - 1]].tolist() for row, n in zip(tokens, lengths)], labels


@pytest.fixture(scope="module")
def published():
    """4,000 examples by the published rules: tokens, lengths, labels."""
    settings = ListOpsSettings(num_train=3998, num_validation=1, num_test=1, seed=3)
    return [np.concatenate(arrays) for arrays in zip(*listops.generate(settings))]


def test_generate_labels_are_the_values_of_the_expressions(published):
    names = np.array(listops.VOCABULARY)
    for row, n, label in zip(*(array[:500] for array in published)):
        value, depth = run_stack_machine(names[row[: n - 1]].tolist())
        assert value == label
        assert depth <= 10


def test_generate_labels_small_trees_too():
    words, labels = generate(
        min_length=1, max_length=40, max_depth=4, num_train=2000, num_validation=1, num_test=1
    )
    assert [run_stack_machine(row)[0] for row in words] == labels.tolist()
    assert {len(row) for row in words} >= set(range(4, 30))


def test_generate_keeps_the_published_lengths(published):
    tokens, lengths, _ = published
    assert tokens.shape == (4000, 2000)
    assert 500 < lengths.min() - 1 and lengths.max() - 1 < 2000
    last = np.take_along_axis(tokens, lengths[:, None] - 1, axis=1)
    assert (last == listops.VOCABULARY.index("<eos>")).all()
    assert (tokens[np.arange(2000) >= lengths[:, None]] == 0).all()


def test_generate_has_the_published_statistics(published):
    """Alpha is 1e-6 for each of 11 bounds; it would catch a bias of 36 tokens, or of 3.4 points.

    The reference has 20,000 examples of another program by the same rules: mean length 1,039, and
    these shares of the labels.
    """
    _, lengths, labels = published
    z, n, reference = 4.9, 4000, 20_000
    spread = np.std(lengths) * np.sqrt(1 / n + 1 / reference)
    assert abs(lengths.mean() - 1 - 1039) < z * spread
    shares = np.array([17.0, 9.0, 7.7, 8.1, 9.1, 8.7, 8.0, 7.5, 8.2, 16.7]) / 100
    found = np.bincount(labels, minlength=10) / n
    bound = z * np.sqrt(shares * (1 - shares) * (1 / n + 1 / reference)) + 0.0005  # rounded shares
    assert (np.abs(found - shares) < bound).all()


def test_generate_draws_operators_arguments_and_digits_uniformly():
    """Chi-squared at alpha 1e-6; with 6,000 trees a share that is off by a tenth is caught.

    Trees of two levels whose operator has 5 to 10 arguments: duplicates, dropped, are too rare to
    matter.
    """
    words, _ = generate(
        min_length=6, max_length=20, max_depth=2, num_train=5998, num_validation=1, num_test=1
    )
    operators = np.unique([row[0] for row in words], return_counts=True)[1]
    arguments = np.bincount([len(row) - 2 for row in words])[5:]
    digits = np.bincount([int(word) for row in words for word in row[1:-1]])
    for counts, cells, bound in ((operators, 4, 30.7), (arguments, 6, 35.9), (digits, 10, 45.1)):
        expected = counts.sum() / cells
        assert counts.size == cells
        # bound: the quantile of chi-squared with cells - 1 degrees of freedom at 1 - 1e-6
        assert np.sum((counts - expected) ** 2 / expected) < bound


def test_generate_makes_a_quarter_of_the_inner_nodes_operators():
    """Alpha 1e-6: z = 4.9, about 30,000 nodes, so a share off by 1.3 points is caught.

    Roots with 6 arguments or more; longer trees are kept, whatever their length.
    """
    words, _ = generate(
        min_length=1, max_length=200, max_depth=3, num_train=5998, num_validation=1, num_test=1
    )
    operators = nodes = 0
    for row in words:
        depth, children, inner = 0, 0, 0
        for word in row:
            children += depth == 1 and word != "]"
            inner += depth == 1 and word.startswith("[")
            depth += word.startswith("[") - (word == "]")
        if children >= 6:
            operators, nodes = operators + inner, nodes + children
    assert abs(operators / nodes - 0.25) < 4.9 * np.sqrt(0.25 * 0.75 / nodes)


def test_generate_drops_duplicates():
    fields = dict(min_length=1, max_length=10, max_depth=2, max_arguments=2)
    words, _ = generate(**fields, num_train=370, num_validation=10, num_test=10)
    assert len({" ".join(row) for row in words}) == 390  # of 4 * 10 * 10


def test_generate_refuses_more_examples_than_there_are_expressions():
    fields = dict(min_length=1, max_length=10, max_depth=2, max_arguments=2)
    with pytest.raises(ValueError, match="too few distinct expressions: 400 were found"):
        generate(**fields, num_train=400, num_validation=10, num_test=10)


def test_generate_makes_a_smaller_set_the_beginning_of_a_larger_one():
    fields = dict(min_length=20, max_length=90, num_validation=5, num_test=5, seed=4)
    small, large = (generate(**fields, num_train=count) for count in (50, 1500))
    assert small[0] == large[0][:60]
    assert small[1].tolist() == large[1][:60].tolist()


def test_training_lists_may_be_shorter_than_the_others():
    fields = dict(min_length=30, max_length=60, num_train=600, num_validation=40, num_test=40)
    words, labels = generate(**fields, train_min_length=4)
    assert [run_stack_machine(row)[0] for row in words] == labels.tolist()
    lengths = np.array([len(row) for row in words])
    # A root of few digits is the most frequent tree.
    assert lengths[:600].min() == 5 and (lengths[:600] <= 30).mean() > 0.5
    assert lengths[600:].min() > 30 and lengths.max() < 60
    assert len({tuple(row) for row in words}) == 680  # no list of a test was trained on


def test_generate_depends_on_the_seed():
    fields = dict(min_length=20, max_length=90, num_train=20, num_validation=1, num_test=1)
    assert generate(**fields, seed=0)[0] != generate(**fields, seed=1)[0]


def test_generate_gives_the_same_examples_everywhere():
    """The digest was taken in another process, on another machine, with NumPy 2.0 and 2.4.

    Where it changes, sets of two versions differ: `VERSION` of the TensorFlow builders must, too.
    """
    digest = hashlib.sha256()
    fields = dict(num_train=96, num_validation=2, num_test=2)
    for block in listops.generate(ListOpsSettings(**fields, seed=9)):
        for array in block:
            digest.update(array.tobytes())
    assert digest.hexdigest() == (
        "a519a2beb8ba26c23327c2101b60278e24a567e19a81a4ed40f538a99ca8d0e3"
    )


def test_tokenize_reads_the_published_print():
    printed = "( ( ( [MAX 2 ) ( ( ( [SM 3 ) 9 ) ] ) ) ] )"
    assert listops.detokenize(listops.tokenize(printed)) == "[MAX 2 [SM 3 9 ] ]"
    assert listops.tokenize("[MIN 1 X").tolist() == listops.tokenize("[MIN 1 ]").tolist()


def test_listops_source_names_a_reduced_set():
    reduced = listops.listops_source(ListOpsSettings(max_length=600))
    assert reduced.name == "listops (reduced)"
    assert listops.listops_source(ListOpsSettings(seed=8)).name == "listops"


def write_published(folder, rows):
    for name in ("basic_train.tsv", "basic_val.tsv", "basic_test.tsv"):
        (folder / name).write_text("Source\tTarget\n" + "".join(f"{row}\n" for row in rows))


def test_listops_source_reads_the_published_files(tmp_path):
    write_published(tmp_path, ["( ( ( [MAX 2 ) 9 ) ] )\t9", "( ( ( [MIN 4 ) 3 ) ] )\t3"])
    source = listops.listops_source(ListOpsSettings(min_length=1, max_length=12), tmp_path)
    assert "train: 2 examples, 96,000 were published" in source.differences
    task = load_source(source)
    assert listops.detokenize(task.train.inputs[1]) == "[MIN 4 3 ]"
    assert task.test.lengths.tolist() == [5, 5]
    assert task.validation.targets.tolist() == [9, 3]


@pytest.mark.parametrize("row, reason", [
    ("( [MAX 2 ) 9 ) ]", "line 2: expected an expression, a tab and a digit"),
    ("( [MAX 2 ) 9 ) ]\t12", "line 2: expected an expression, a tab and a digit"),
    ("( [AVG 2 ) 9 ) ]\t2", "line 2: not a ListOps expression"),
    ("( [MAX 2 ) 9 )\t9", "line 2: not a ListOps expression"),
    ("( [MAX 2 ) ] ) 9\t9", "line 2: not a ListOps expression"),
    ("[MAX 2 [MIN 3 4 ] ]\t3", "line 2: 7 tokens, expected fewer than max_length=7"),
    ("( [MAX 2 ) 9\xb5 ) ]\t9", "line 2: damaged"),
])
def test_listops_source_names_the_damaged_line(tmp_path, row, reason):
    write_published(tmp_path, [row])
    with pytest.raises(ValueError, match=rf"basic_train.tsv, {reason}"):
        listops.listops_source(ListOpsSettings(min_length=1, max_length=7), tmp_path)


def test_listops_source_names_a_file_that_lost_its_lines(tmp_path):
    write_published(tmp_path, ["( [MAX 2 ) 9 ) ]\t9"])
    (tmp_path / "basic_val.tsv").write_text("Source\tTarget\n")
    with pytest.raises(ValueError, match="basic_val.tsv: no expressions"):
        listops.listops_source(ListOpsSettings(min_length=1, max_length=7), tmp_path)


@pytest.mark.parametrize("fields, reason", [
    ({"min_length": 0}, "got min_length=0"),
    ({"train_min_length": 501}, "train_min_length is 501, expected None or 1 to min_length=500"),
    ({"min_length": 30, "max_length": 31}, "min_length < max_length - 1"),
    ({"max_depth": 1}, "max_depth >= 2"),
    ({"num_test": 0}, "at least one example"),
    ({"seed": -1}, "seed >= 0"),
])
def test_listops_settings_refuse_what_cannot_be(fields, reason):
    with pytest.raises(ValueError, match=reason):
        ListOpsSettings(**fields)


def test_bags_of_tokens_read_no_order(rng):
    tokens = rng.integers(1, len(listops.VOCABULARY), (300, 20)).astype(np.uint8)
    lengths = np.full(300, 20, np.int32)
    # How often a 7 is in a list is all that its label says.
    sevens = np.sum(tokens == listops.VOCABULARY.index("7"), axis=1)
    split = Split(tokens, lengths, np.minimum(sevens, 2).astype(np.int32))
    turned = split._replace(inputs=rng.permuted(tokens, axis=1))
    counts = listops_baselines.count_tokens(split)
    np.testing.assert_array_equal(counts, listops_baselines.count_tokens(turned))
    assert counts.sum(axis=1).tolist() == [20] * 300
    found = listops_baselines.measure(split, turned)
    assert found["bag of tokens, gradient boosting"] == 1.0
    assert found["the commonest value"] == np.max(np.bincount(split.targets)) / 300
