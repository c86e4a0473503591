"""Make a pretrained model of a finished run: weights, a card, and a sample that a test looks at.

  python -m experiments.publish --name=NAME --config=experiments/configs/FILE.py[:VARIANT] RUN

The best checkpoint by validation becomes pspike_jax/pretrained/NAME.npz, with the card NAME.json
beside it; what was published under that name is replaced. tests/data/NAME.npz gets examples and the
scores that the model gives them in its mean field: the first of the test split where the licence of
the data lets them be copied, and else a few drawn pictures, which no data set holds. Words about a
new data set belong in experiments/cards.py. Then the model is loaded again, and compared with the
checkpoint.
"""

import argparse
import json
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from experiments.cards import about, make_card
from pspike_jax.command.experiment import Experiment
from pspike_jax.command.outcome import load_best
from experiments.record import hardware
from experiments.runs import ROOT, command, read_run
from pspike_jax.data import Split, take
from pspike_jax.data.mnist import SIDE, bit_reversal_order
from pspike_jax.pretrained import load_pretrained
from pspike_jax.pretrained.weights import write_weights
from pspike_jax.training.files import atomic_write

WEIGHTS = ROOT / "pspike_jax" / "pretrained"
SAMPLES = ROOT / "tests" / "data"
EXAMPLES = 64  # of a test split
LARGEST = 500_000  # bytes of a file of weights: the package stays small


def publish(
    name: str,
    config_file: str,
    folder: pathlib.Path,
    *,
    weights: pathlib.Path = WEIGHTS,
    samples: pathlib.Path = SAMPLES,
) -> dict[str, Any]:
    """Publish the best checkpoint of a run.

    Args:
      name: of the model.
      config_file: that the run was started from, with its variant.
      folder: workdir of the run.
      weights: folder for weights and card.
      samples: folder for the sample.

    Returns:
      The card.

    Raises:
      FileNotFoundError: the run is not finished, or its data are not there.
      ValueError: the run is of another config; nobody has written about its data; the weights are
        too large; or what was written does not give the model back.
    """
    if not name.isidentifier():
        raise ValueError(f"name is {name!r}, expected a word of letters, digits and _")
    run = read_run(folder)
    words = about(run["description"]["task"]["name"])
    again = command(config_file, run["description"]["config"], f"runs/{name}")
    experiment, result = load_best(folder)
    variables = jax.device_get(result.variables)
    with tempfile.TemporaryDirectory() as scratch:
        here = pathlib.Path(scratch)
        write_weights(here / f"{name}.npz", variables)
        if (size := (here / f"{name}.npz").stat().st_size) > LARGEST:
            raise ValueError(f"the weights take {size:,} bytes, expected at most {LARGEST:,}")
        card = make_card(
            name, run, command=again, best_step=result.best_step, test=experiment.task.test,
            weights=here / f"{name}.npz", hardware=hardware(),
        )
        atomic_write(here / f"{name}.json", json.dumps(card, indent=1) + "\n")
        check_same(load_pretrained(name, here), experiment, variables)
        write_sample(here / "sample.npz", experiment, variables, shared=words.shared)
        for folder, file in ((weights, f"{name}.npz"), (weights, f"{name}.json")):
            shutil.copyfile(here / file, folder / file)
        samples.mkdir(exist_ok=True)
        shutil.copyfile(here / "sample.npz", samples / f"{name}.npz")
    return card


def check_same(loaded: tuple, experiment: Experiment, variables: Any) -> None:
    """Refuse a model that does not come back as it was.

    Args:
      loaded: of `load_pretrained`.
      experiment: that the model is of.
      variables: of its checkpoint.

    Raises:
      ValueError: the module or an array is another.
    """
    module, found, _ = loaded
    if module != experiment.model:
        raise ValueError(f"the card gives {module}, the run has {experiment.model}")
    same = jax.tree.map(np.array_equal, found, variables)
    if not all(jax.tree.leaves(same)):
        raise ValueError(f"not all arrays come back as they were: {same}")


def write_sample(
    path: pathlib.Path, experiment: Experiment, variables: Any, *, shared: bool
) -> None:
    """Write examples, and the scores that the mean field of a model gives them.

    Args:
      path: .npz with inputs, lengths, labels (-1 where there is no truth) and logits.
      experiment: its model and task.
      variables: of the model.
      shared: whether examples of the test split may be copied.
    """
    split = draw_pictures()
    if shared:
        test = experiment.task.test
        split = take(test, np.arange(min(EXAMPLES, len(test.lengths))))
    inputs = split.inputs.astype(np.float32 if split.inputs.dtype.kind == "f" else np.int32)
    lengths = split.lengths.astype(np.int32)
    apply = jax.jit(experiment.model.apply, static_argnames="sampling")
    logits, _ = apply(variables, inputs, lengths, sampling="mean")
    with open(path, "wb") as file:
        np.savez_compressed(
            file, inputs=inputs, lengths=lengths, labels=split.targets, logits=np.asarray(logits)
        )


def draw_pictures() -> Split:
    """Draw rings and bars, laid out as psMNIST lays out its pictures; no data are read."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    angles = np.pi * np.arange(8) / 8
    bars = [
        np.hypot(
            x * np.sin(angle) - y * np.cos(angle),
            np.maximum(0, np.abs(x * np.cos(angle) + y * np.sin(angle)) - 8),
        )
        for angle in angles
    ]
    rings = [np.abs(np.hypot(x, y) - radius) for radius in range(3, 11)]
    strokes = np.exp(-0.5 * np.square(np.array(bars + rings) / 1.5)).reshape(-1, SIDE * SIDE)
    inputs = strokes[:, bit_reversal_order(SIDE * SIDE), None].astype(np.float32)
    count = len(inputs)
    return Split(inputs, np.full(count, SIDE * SIDE, np.int32), np.full(count, -1, np.int32))


def main(arguments: Sequence[str] | None = None) -> None:
    """Publish what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.publish", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, help="of the model")
    parser.add_argument("--config", required=True, help="file, with :VARIANT after its name")
    parser.add_argument("run", type=pathlib.Path, help="workdir of a finished run")
    asked = parser.parse_args(arguments)
    logging.set_verbosity(logging.WARNING)  # below that, Orbax tells of every file
    try:
        card = publish(asked.name, asked.config, asked.run)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    sampled = card["figures"]["test_accuracy"]["sampled"]
    size = card["weights"]["bytes"]
    print(f"{asked.name}: {size:,} bytes, {100 * sampled['mean']:.2f} % with sampled spikes")


if __name__ == "__main__":
    main()
