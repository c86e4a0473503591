"""Tasks of memory: every answer is found again by a reader that goes through the tokens."""

import numpy as np
import pytest

from pspike_jax.data import TASKS

FEW = {"num_train": 200, "num_validation": 40, "num_test": 40, "seed": 3}


def recall(tokens, marker):
    """Answer each marker with the next symbol that was heard."""
    heard, answers = [], []
    for token in tokens:
        if token == marker:
            answers.append(heard.pop(0) - 1)
        else:
            answers.append(None)
            if token:
                heard.append(token)
    assert not heard, "symbols that nobody asked for"
    return answers


def after_the_marker(tokens, marker):
    """Answer the second marker with what came after the first."""
    first = tokens.index(marker)
    second = tokens.index(marker, first + 1)
    assert second == len(tokens) - 1 > first + 1
    return [None] * second + [tokens[first + 1] - 1]


def odd_so_far(tokens):
    """Answer every step with whether the number of 2s up to it is odd."""
    answers, odd = [], False
    for token in tokens:
        odd ^= {1: False, 2: True}[token]
        answers.append(int(odd))
    return answers


CASES = {
    "copying": ({"symbols": 5, "count": 3, "delay": 6}, 12, lambda t: recall(t, 6)),
    "selective_copying": ({"symbols": 5, "count": 3, "delay": 6}, 12, lambda t: recall(t, 6)),
    "induction": ({"symbols": 5, "length": 9}, 9, lambda t: after_the_marker(t, 6)),
    "parity": ({"length": 11}, 11, odd_so_far),
}


@pytest.mark.parametrize("name", CASES)
def test_generate_tasks_answer_what_a_reader_of_the_tokens_finds(name):
    fields, length, read = CASES[name]
    task = TASKS[name](**fields, **FEW, steps=15)
    for part, split in task.splits().items():
        inputs, lengths, targets, _ = split
        assert inputs.shape == targets.shape == (FEW[f"num_{part}"], 15)
        assert (lengths == length).all() and (targets[:, length:] == -1).all()
        for tokens, due in zip(inputs[:, :length].tolist(), targets.tolist()):
            answers = read(tokens)
            told = name != "parity" or part == "train"  # later splits ask for the last parity alone
            if not told:
                answers[:-1] = [None] * (length - 1)
            assert due[:length] == [-1 if one is None else one for one in answers]
    assert task.vocab_size > task.train.inputs.max()


@pytest.mark.parametrize("name", CASES)
def test_generate_tasks_draw_by_their_seed_and_leave_no_answer_out(name):
    """Of 5 classes in 200 examples one stays out with probability 5 * 0.8 ** 200 < 1e-18."""
    fields, length, _ = CASES[name]
    task, again, other = (
        TASKS[name](**fields, **FEW | {"seed": seed}) for seed in (3, 3, 4)
    )
    assert task.train.inputs.shape == (200, length)
    np.testing.assert_array_equal(task.test.inputs, again.test.inputs)
    assert (task.train.inputs != other.train.inputs).any()
    assert (task.train.inputs[:40] != task.test.inputs).any()
    classes = np.unique(task.train.targets)
    np.testing.assert_array_equal(classes[classes >= 0], np.arange(task.num_classes))


def test_selective_copying_scatters_its_symbols():
    """Each of the 9 steps before the markers holds a symbol in a third of 2,000 examples.

    By Hoeffding's bound a share is off by more than 0.071 with probability 1e-6 / 9.
    """
    task = TASKS["selective_copying"](**CASES["selective_copying"][0], **FEW | {"num_train": 2000})
    share = (task.train.inputs[:, :9] > 0).mean(axis=0)
    np.testing.assert_allclose(share, 1 / 3, atol=0.071)


@pytest.mark.parametrize("side", (8, 4))
def test_waiting_digits_are_the_pictures_and_then_a_pause(side):
    datasets = pytest.importorskip("sklearn.datasets")
    task = TASKS["waiting_digits"](side=side, delay=3, seed=0)
    pixels, width = side * side, 8 // side
    images, labels = datasets.load_digits(return_X_y=True)
    known = {}
    for image, label in zip(images.reshape(-1, 8, 8), labels):
        means = [
            round(image[i : i + width, j : j + width].mean())  # half to even, as the loader does
            for i in range(0, 8, width) for j in range(0, 8, width)
        ]
        known.setdefault(tuple(means), set()).add(label)
    inputs, lengths, targets, _ = task.test
    assert inputs.shape == (360, pixels + 3) and (lengths == pixels + 3).all()
    assert (inputs[:, pixels:] == 17).all() and (targets[:, :-1] == -1).all()
    for tokens, label in zip(inputs[:, :pixels].tolist(), targets[:, -1]):
        assert label in known[tuple(tokens)]
    assert sum(len(split.lengths) for split in task.splits().values()) == len(labels)


@pytest.mark.parametrize("name, fields, message", [
    ("copying", {"symbols": 1, "count": 3, "delay": 6}, "symbols is 1, expected at least 2"),
    ("induction", {"symbols": 5, "length": 2}, "length is 2, expected at least 3"),
    ("parity", {"length": 9, "steps": 8}, "steps is 8, expected at least 9"),
])
def test_generate_tasks_refuse_what_holds_no_question(name, fields, message):
    with pytest.raises(ValueError, match=message):
        TASKS[name](**fields, **FEW)
