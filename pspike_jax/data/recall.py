"""What a model must remember, and for how long: generated tasks whose answers are known.

copying            symbols, a pause, and then the same symbols in the same order
selective_copying  the same, but the symbols are scattered over the pause
induction          what came after the marker, when the marker comes again
parity             whether the number of ones so far is odd
waiting_digits     which digit it was, pixels and then a pause

Each is a `StepClassification` of tokens: targets are -1 but where an answer is due. The pause, or
the length, is the difficulty. `steps` pads examples to a common length, so that examples of every
difficulty go through one compiled program.
"""

import dataclasses

import numpy as np

from pspike_jax.data.batches import Task
from pspike_jax.data.digits import SIZES, WHITE
from pspike_jax.data.split import Split, take
from pspike_jax.objectives import StepClassification

BLANK = 0  # token of a pause; symbols are 1, 2, ...; the marker is the last token
WAIT = WHITE + 1  # of a pause after pixels, whose tokens are their values


@dataclasses.dataclass(frozen=True)
class _Counts:
    """Examples of each split, and how long all of them are made.

    Attributes:
      train, validation, test: examples.
      steps: L, at least the length of an example; None for that.
      seed: not negative.
    """

    train: int
    validation: int
    test: int
    steps: int | None
    seed: int


def generate_copying(
    *, symbols: int, count: int, delay: int, num_train: int, num_validation: int, num_test: int,
    seed: int, steps: int | None = None,
) -> Task:
    """Generate symbols that are asked for after a pause, in their order.

    Args:
      symbols: different ones, at least 2; one more token is a blank, the last a marker.
      count: symbols of an example.
      delay: blanks between the last symbol and the first marker; each marker asks for a symbol, so
        that every symbol is kept for count + delay steps.
      num_train: examples for training.
      num_validation: examples for validation.
      num_test: examples for test.
      seed: not negative.
      steps: L, at least 2 count + delay; None for that.

    Returns:
      Task of `symbols` classes, symbols + 2 tokens.
    """
    _check(symbols=(symbols, 2), count=(count, 1), delay=(delay, 0))

    def draw(rng, n):
        chosen = rng.integers(1, symbols + 1, (n, count))
        pause, asked = np.full((n, delay), BLANK), np.full((n, count), symbols + 1)
        return np.hstack([chosen, pause, asked]), _last(chosen - 1, 2 * count + delay)

    parts = _Counts(num_train, num_validation, num_test, steps, seed)
    return _task(f"copying, delay {delay}", draw, symbols + 2, symbols, parts)


def generate_selective_copying(
    *, symbols: int, count: int, delay: int, num_train: int, num_validation: int, num_test: int,
    seed: int, steps: int | None = None,
) -> Task:
    """Generate symbols scattered among blanks, which are asked for in their order.

    When a symbol comes differs from example to example: a filter that is the same at every step
    cannot pick them out.

    Args:
      symbols: different ones, at least 2; one more token is a blank, the last a marker.
      count: symbols of an example.
      delay: blanks among which they are scattered, all before the first marker.
      num_train: examples for training.
      num_validation: examples for validation.
      num_test: examples for test.
      seed: not negative.
      steps: L, at least 2 count + delay; None for that.

    Returns:
      Task of `symbols` classes, symbols + 2 tokens.
    """
    _check(symbols=(symbols, 2), count=(count, 1), delay=(delay, 0))

    def draw(rng, n):
        chosen = rng.integers(1, symbols + 1, (n, count))
        places = np.sort(np.argsort(rng.random((n, count + delay)), axis=1)[:, :count], axis=1)
        heard = np.full((n, count + delay), BLANK)
        np.put_along_axis(heard, places, chosen, axis=1)
        asked = np.full((n, count), symbols + 1)
        return np.hstack([heard, asked]), _last(chosen - 1, 2 * count + delay)

    parts = _Counts(num_train, num_validation, num_test, steps, seed)
    return _task(f"selective copying, delay {delay}", draw, symbols + 2, symbols, parts)


def generate_induction(
    *, symbols: int, length: int, num_train: int, num_validation: int, num_test: int, seed: int,
    steps: int | None = None,
) -> Task:
    """Generate symbols with a marker among them, which comes again at the end.

    The answer at the end is the symbol that followed the marker when it came first, anywhere.

    Args:
      symbols: different ones, at least 2; token 0 is not used, the last is the marker.
      length: of an example, at least 3.
      num_train: examples for training.
      num_validation: examples for validation.
      num_test: examples for test.
      seed: not negative.
      steps: L, at least `length`; None for that.

    Returns:
      Task of `symbols` classes, symbols + 2 tokens.
    """
    _check(symbols=(symbols, 2), length=(length, 3))

    def draw(rng, n):
        heard = rng.integers(1, symbols + 1, (n, length))
        first, rows = rng.integers(0, length - 2, n), np.arange(n)
        heard[rows, first] = heard[:, -1] = symbols + 1
        return heard, _last(heard[rows, first + 1][:, None] - 1, length)

    parts = _Counts(num_train, num_validation, num_test, steps, seed)
    return _task(f"induction, length {length}", draw, symbols + 2, symbols, parts)


def generate_parity(
    *, length: int, num_train: int, num_validation: int, num_test: int, seed: int,
    steps: int | None = None,
) -> Task:
    """Generate bits, tokens 1 and 2, of which the parity is asked: class 1 for an odd number of 2s.

    In training the parity so far is told at every step; validation and test ask at the end alone.

    Args:
      length: of an example, at least 1.
      num_train: examples for training.
      num_validation: examples for validation.
      num_test: examples for test.
      seed: not negative.
      steps: L, at least `length`; None for that.

    Returns:
      Task of 2 classes, 3 tokens.
    """
    _check(length=(length, 1))

    def draw(rng, n):
        bits = rng.integers(0, 2, (n, length))
        return bits + 1, np.cumsum(bits, axis=1) % 2

    parts = _Counts(num_train, num_validation, num_test, steps, seed)
    task = _task(f"parity, length {length}", draw, 3, 2, parts)
    return dataclasses.replace(
        task, validation=_at_the_end(task.validation), test=_at_the_end(task.test)
    )


def load_waiting_digits(*, side: int, delay: int, seed: int, steps: int | None = None) -> Task:
    """Read handwritten digits pixel by pixel, which are named only after a pause.

    The pictures of `load_digits`, row by row; values 0 to 16 are tokens, 17 is the pause.

    Args:
      side: 8, or 4 or 2 for pictures whose pixels are means of 2 x 2 or 4 x 4, rounded.
      delay: tokens of the pause; the answer is due at the last, or at the last pixel.
      seed: of the split; not negative.
      steps: L, at least side ** 2 + delay; None for that.

    Returns:
      Task of 10 classes, 18 tokens, split 1,257 / 180 / 360.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError("digits need scikit-learn: pip install scikit-learn") from error

    _check(delay=(delay, 0))
    if side not in (2, 4, 8):
        raise ValueError(f"side is {side}, expected 2, 4 or 8")
    images, labels = datasets.load_digits(return_X_y=True)
    blocks = images.reshape(-1, side, 8 // side, side, 8 // side).mean(axis=(2, 4))
    pixels = np.rint(blocks).astype(np.int64).reshape(len(images), -1)
    heard = np.hstack([pixels, np.full((len(images), delay), WAIT)])
    whole = _split(heard, _last(labels[:, None], heard.shape[1]), steps)
    order = np.random.default_rng(seed).permutation(len(labels))
    rows = np.split(order, np.cumsum(list(SIZES.values())))[: len(SIZES)]
    parts = {name: take(whole, one) for name, one in zip(SIZES, rows)}
    objective = StepClassification(10)
    return Task(f"digits, delay {delay}", **parts, objective=objective, vocab_size=WAIT + 1)


def _check(**fields):
    for name, (value, least) in fields.items():
        if value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}")


def _last(answers, length):
    """Return targets (n, length) that are -1 but at the last steps, where the answers are due."""
    targets = np.full((len(answers), length), -1)
    targets[:, length - answers.shape[1] :] = answers
    return targets


def _at_the_end(split):
    due = np.arange(split.targets.shape[1]) == split.lengths[:, None] - 1
    return split._replace(targets=np.where(due, split.targets, -1).astype(np.int32))


def _split(tokens, targets, steps):
    count, length = tokens.shape
    if steps is not None and steps < length:
        raise ValueError(f"steps is {steps}, expected at least {length}, the steps of an example")
    wide = ((0, 0), (0, (steps or length) - length))
    inputs = np.pad(tokens, wide, constant_values=BLANK).astype(np.int32)
    targets = np.pad(targets, wide, constant_values=-1).astype(np.int32)
    return Split(inputs, np.full(count, length, np.int32), targets)


def _task(name, draw, vocab_size, classes, counts):
    """Draw each split from a stream of its own."""
    names = ("train", "validation", "test")
    streams = np.random.SeedSequence(counts.seed).spawn(len(names))
    parts = {
        part: _split(*draw(np.random.default_rng(stream), getattr(counts, part)), counts.steps)
        for part, stream in zip(names, streams)
    }
    return Task(name, **parts, objective=StepClassification(classes), vocab_size=vocab_size)
