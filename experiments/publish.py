"""Make a pretrained model of a finished run: weights, a card, and a sample that a test looks at.

  python -m experiments.publish --name=NAME --config=experiments/configs/FILE.py[:VARIANT] RUN
  python -m experiments.publish --name=NAME --check [--data_dir=DIR]
  python -m experiments.publish --all --check [--data_dir=DIR]

The best checkpoint by validation becomes pspike_jax/pretrained/NAME.npz, with the card NAME.json
beside it; what was published under that name is replaced. tests/data/NAME.npz gets examples and the
scores that the model gives them in its mean field: the first of the test split where the licence of
the data lets them be copied, and else a few drawn pictures, which no data set holds. Words about a
new data set belong in experiments/cards.json. Then the model is loaded again, and compared with the
checkpoint.

With --check, a published model is evaluated on its whole test set, which must be the card's by its
SHA-256; DIR is the folder of prepared data, for a model of such. Noise has the card's seed unless
--seed names another. The command ends with status 1 where a figure differs by more than four
standard errors of the draws and two examples: engines and devices round differently, and a picture
between two classes may fall on either side. --all takes every model, but those whose data are not
there, which are named.
"""

import argparse
import hashlib
import json
import logging
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.record import command, hardware, read_run
from experiments.reevaluate import check, check_all, fingerprint
from experiments.results_page import ROOT
from pspike_jax.analysis.files import atomic_write
from pspike_jax.command.experiment import Experiment
from pspike_jax.command.outcome import load_best
from pspike_jax.data import Split, take
from pspike_jax.data.mnist import SIDE, bit_reversal_order, row_order
from pspike_jax.pretrained import list_pretrained, load_pretrained
from pspike_jax.pretrained.weights import write_weights

WEIGHTS = ROOT / "pspike_jax" / "pretrained"
SAMPLES = ROOT / "tests" / "data"
EXAMPLES = 64  # of a test split
LARGEST = 500_000  # bytes of a file of weights: the package stays small
WORDS = ROOT / "experiments" / "cards.json"
DRAWN = (
    "Spikes are drawn, so answers change with the key: a figure is a mean over draws, and its "
    "errors are those of draws and of test examples."
)
LIMITS = (
    "A figure is of one training run; of others it says nothing.",
    "Energy is a count of operations, not a measurement of any hardware.",
)


def about(task_name: str) -> dict[str, Any]:
    """Return the words of a card about a task's data; ValueError where there are none.

    {"task": what a model of it answers, "data": what the data are, and whose, "licence", "limits":
    what a model of them cannot be used for, "shared": whether a sample may be copied}.
    """
    words, first = json.loads(WORDS.read_text()), task_name.partition(" ")[0]
    if first not in words:
        raise ValueError(f"no words about the data of {task_name!r}; there are for {[*words]}")
    return words[first]


def make_card(
    name: str, run: Mapping[str, Any], again: str, best_step: int, split: Split,
    weights: pathlib.Path,
) -> dict[str, Any]:
    """Put together a card of a run, from `read_run`, that the command `again` repeats."""
    described, words = run["description"], about(run["description"]["task"]["name"])
    fields = described["model"].get("config", described["model"])
    # Parts with parts of their own, as a kind of neuron, are the preset's: `check_same` looks.
    fields = {
        key: value for key, value in fields.items()
        if key != "class" and not isinstance(value, dict)
    }
    config, task = described["config"], described["task"]
    drawn = [DRAWN] if "draws" in run["evaluation"]["sampled"] else []
    classes = task["objective"]["num_classes"]
    return {
        "name": name,
        "task": {"name": task["name"], "question": words["task"], "num_classes": classes},
        "data": {
            "source": words["data"], "licence": words["licence"],
            "test_sha256": fingerprint(split),
        },
        "input": {"shape": task["inputs"]["test"][1:], "examples": {
            name: shape[0] for name, shape in task["inputs"].items()
        }},
        "model": {
            "name": config["model"]["name"], "preset": config["model"].get("preset"),
            "fields": fields,
        },
        "figures": {
            "test_accuracy": run["evaluation"],
            **{key: run["report"][key] for key in ("activity", "energy") if key in run["report"]},
        },
        "limits": [*words["limits"], *drawn, *LIMITS],
        "command": again,
        "best_step": best_step,
        "config": config,
        "versions": described["versions"],
        "commit": described["commit"],
        "hardware": {**hardware(), "platform": described["platform"], "minutes": run["minutes"]},
        "weights": {
            "file": weights.name, "bytes": weights.stat().st_size,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        },
    }


def publish(
    name: str, config_file: str, folder: pathlib.Path, *, weights: pathlib.Path = WEIGHTS,
    samples: pathlib.Path = SAMPLES,
) -> dict[str, Any]:
    """Publish the best checkpoint of a run of a config file; return the card.

    Raises FileNotFoundError where the run is not finished, or its data are not there; ValueError
    where it is of another config, nobody has written about its data, the weights are too large, or
    what was written does not give the model back.
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
            name, run, again, result.best_step, experiment.task.test, here / f"{name}.npz"
        )
        atomic_write(here / f"{name}.json", json.dumps(card, indent=1) + "\n")
        check_same(load_pretrained(name, here), experiment, variables)
        write_sample(here / "sample.npz", experiment, variables, shared=words["shared"])
        for folder, file in ((weights, f"{name}.npz"), (weights, f"{name}.json")):
            shutil.copyfile(here / file, folder / file)
        samples.mkdir(exist_ok=True)
        shutil.copyfile(here / "sample.npz", samples / f"{name}.npz")
    return card


def check_same(loaded: tuple, experiment: Experiment, variables: Any) -> None:
    """Raise ValueError where `load_pretrained` gives another module or another array."""
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

    The .npz gets inputs, lengths, labels (-1 where there is no truth) and logits; `shared` says
    whether examples of the test split may be copied.
    """
    by_rows = experiment.task.name.startswith("smnist")
    split = draw_pictures(row_order if by_rows else bit_reversal_order)
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


def draw_pictures(order: Callable[[int], np.ndarray]) -> Split:
    """Draw rings and bars, their pixels in an order of `data.mnist`; no data are read."""
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
    inputs = strokes[:, order(SIDE * SIDE), None].astype(np.float32)
    count = len(inputs)
    return Split(inputs, np.full(count, SIDE * SIDE, np.int32), np.full(count, -1, np.int32))


def main(arguments: Sequence[str] | None = None) -> None:
    """Publish, or check, what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.publish", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", help="of the model")
    parser.add_argument("--all", action="store_true", help="check: every model")
    parser.add_argument("--config", help="file, with :VARIANT after its name")
    parser.add_argument("--check", action="store_true", help="evaluate the published model again")
    parser.add_argument("--data_dir", help="check: folder of prepared data")
    parser.add_argument("--seed", type=int, help="check: of the noise")
    parser.add_argument("--draws", type=int, help="check: of the noise, at least 2")
    parser.add_argument("run", nargs="?", type=pathlib.Path, help="workdir of a finished run")
    asked = parser.parse_args(arguments)
    logging.getLogger("absl").setLevel(logging.WARNING)  # below that, Orbax tells of every file
    if (asked.name is None) != asked.all or (asked.all and not asked.check):
        parser.error("expected --name, or --all with --check")
    if asked.check and not asked.all and asked.name not in list_pretrained():
        parser.error(f"no model {asked.name!r}; there are {', '.join(list_pretrained())}")
    if not asked.check and not (asked.config and asked.run):
        parser.error("expected --config and a workdir, or --check")
    try:
        if asked.check:
            how = {"data_dir": asked.data_dir, "seed": asked.seed, "draws": asked.draws}
            if not (check_all(how) if asked.all else check(asked.name, how)):
                raise SystemExit("error: these are not the figures of the card")
            return
        card = publish(asked.name, asked.config, asked.run)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    sampled = card["figures"]["test_accuracy"]["sampled"]
    size = card["weights"]["bytes"]
    print(f"{asked.name}: {size:,} bytes, {100 * sampled['mean']:.2f} % of the test set")


if __name__ == "__main__":
    main()
