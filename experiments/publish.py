"""Make a pretrained model of a finished run: weights, a card, and a sample that a test looks at.

  python -m experiments.publish --name=NAME --config=experiments/configs/FILE.py[:VARIANT] RUN
  python -m experiments.publish --name=NAME --check [--data_dir=DIR]

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
between two classes may fall on either side.
"""

import argparse
import dataclasses
import hashlib
import json
import logging
import math
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.record import command, hardware, read_run
from experiments.results_page import ROOT
from pspike_jax.analysis.files import atomic_write
from pspike_jax.command.experiment import Experiment, build
from pspike_jax.command.outcome import load_best, test
from pspike_jax.data import Split, take
from pspike_jax.data.mnist import SIDE, bit_reversal_order
from pspike_jax.pretrained import list_pretrained, load_pretrained
from pspike_jax.pretrained.weights import write_weights

WEIGHTS = ROOT / "pspike_jax" / "pretrained"
SAMPLES = ROOT / "tests" / "data"
EXAMPLES = 64  # of a test split
LARGEST = 500_000  # bytes of a file of weights: the package stays small
WORDS = ROOT / "experiments" / "cards.json"
LIMITS = (
    "Spikes are drawn, so answers change with the key: a figure is a mean over draws, and its "
    "errors are those of draws and of test examples. Of other training runs it says nothing.",
    "Energy is a count of operations, not a measurement of any hardware.",
)
ERRORS, OFF = 4, 2  # standard errors and examples that a figure may differ by


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
    fields = dict(described["model"].get("config", described["model"]))
    fields.pop("class", None)
    config, task = described["config"], described["task"]
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
        "limits": [*words["limits"], *LIMITS],
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


def fingerprint(split: Split) -> str:
    """Return the SHA-256 of a split: inputs as float32 or int32, lengths and targets as int32."""
    digest, rows = hashlib.sha256(), 1024
    for start in range(0, len(split.lengths), rows):
        inputs, lengths, labels = (array[start : start + rows] for array in split[:3])
        kind = "<f4" if inputs.dtype.kind == "f" else "<i4"
        for array, dtype in ((inputs, kind), (lengths, "<i4"), (labels, "<i4")):
            digest.update(np.ascontiguousarray(array, dtype).tobytes())
    return digest.hexdigest()


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


def reevaluate(
    name: str, *, data_dir: str | None = None, seed: int | None = None, draws: int | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Evaluate a pretrained model as after its training; return the card's figures and those now.

    None stands for the card's folder of prepared data, seed and number of draws. Raises
    FileNotFoundError where the data are not there, ValueError where they are not the card's.
    """
    module, variables, card = load_pretrained(name)
    task, evaluation = dict(card["config"]["task"]), dict(card["config"]["evaluation"])
    if data_dir is not None and "data_dir" not in task:
        raise ValueError(f"the data of {name} are in no folder: leave --data_dir out")
    task |= {} if data_dir is None else {"data_dir": data_dir}
    evaluation |= {} if seed is None else {"seed": seed}
    evaluation |= {} if draws is None else {"draws": draws}
    experiment = build(card["config"] | {"task": task, "evaluation": evaluation, "mesh": {}})
    found, expected = fingerprint(experiment.task.test), card["data"]["test_sha256"]
    if found != expected:
        raise ValueError(f"the test set has sha256 {found}, that of the card {expected}")
    experiment = dataclasses.replace(experiment, model=module)
    return card["figures"]["test_accuracy"], test(experiment, variables)


def compare(
    card: Mapping[str, Mapping[str, float]], now: Mapping[str, Mapping[str, float]]
) -> tuple[str, bool]:
    """Compare two evaluations of one test set, {way: {"mean", "sem", "examples"}} each.

    Returns a table, and whether all differences are within what noise and rounding explain.
    """
    lines, agree = [f"{'':16}{'card':>10}{'now':>10}{'difference':>12}{'allowed':>10}"], True
    for way, said in card.items():
        found = now[way]
        allowed = ERRORS * math.hypot(said["sem"], found["sem"]) + OFF / said["examples"]
        difference = found["mean"] - said["mean"]
        agree &= abs(difference) <= allowed
        lines.append(
            f"{way.replace('_', ' '):16}{said['mean']:10.2%}{found['mean']:10.2%}"
            f"{difference:12.2%}{allowed:10.2%}"
        )
    return "\n".join(lines), agree


def main(arguments: Sequence[str] | None = None) -> None:
    """Publish, or check, what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.publish", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, help="of the model")
    parser.add_argument("--config", help="file, with :VARIANT after its name")
    parser.add_argument("--check", action="store_true", help="evaluate the published model again")
    parser.add_argument("--data_dir", help="check: folder of prepared data")
    parser.add_argument("--seed", type=int, help="check: of the noise")
    parser.add_argument("--draws", type=int, help="check: of the noise, at least 2")
    parser.add_argument("run", nargs="?", type=pathlib.Path, help="workdir of a finished run")
    asked = parser.parse_args(arguments)
    logging.getLogger("absl").setLevel(logging.WARNING)  # below that, Orbax tells of every file
    if asked.check and asked.name not in list_pretrained():
        parser.error(f"no model {asked.name!r}; there are {', '.join(list_pretrained())}")
    if not asked.check and not (asked.config and asked.run):
        parser.error("expected --config and a workdir, or --check")
    try:
        if asked.check:
            how = {"data_dir": asked.data_dir, "seed": asked.seed, "draws": asked.draws}
            table, agree = compare(*reevaluate(asked.name, **how))
            print(table)
            if not agree:
                raise SystemExit("error: these are not the figures of the card")
            return
        card = publish(asked.name, asked.config, asked.run)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    sampled = card["figures"]["test_accuracy"]["sampled"]
    size = card["weights"]["bytes"]
    print(f"{asked.name}: {size:,} bytes, {100 * sampled['mean']:.2f} % with sampled spikes")


if __name__ == "__main__":
    main()
