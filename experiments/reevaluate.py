"""Evaluate models that come with the package again, and compare with the figures of their cards."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pspike_jax.command.experiment import build
from pspike_jax.command.outcome import test
from pspike_jax.data import Split
from pspike_jax.pretrained import list_pretrained, load_pretrained

ERRORS, OFF = 4, 2  # standard errors and examples that a figure may differ by


def fingerprint(split: Split) -> str:
    """Return the SHA-256 of a split: inputs as float32 or int32, lengths and targets as int32."""
    digest, rows = hashlib.sha256(), 1024
    for start in range(0, len(split.lengths), rows):
        inputs, lengths, labels = (array[start : start + rows] for array in split[:3])
        kind = "<f4" if inputs.dtype.kind == "f" else "<i4"
        for array, dtype in ((inputs, kind), (lengths, "<i4"), (labels, "<i4")):
            digest.update(np.ascontiguousarray(array, dtype).tobytes())
    return digest.hexdigest()


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


def check(name: str, how: Mapping[str, Any]) -> bool:
    """Evaluate a published model again, print both figures; tell whether they agree.

    `how` and errors are those of `reevaluate`.
    """
    table, agree = compare(*reevaluate(name, **how))
    print(f"{name}\n{table}", flush=True)
    return agree


def check_all(how: Mapping[str, Any]) -> bool:
    """Do so for every model whose data are there; tell whether all agree."""
    agree = True
    for name in list_pretrained():
        folder = "data_dir" in load_pretrained(name)[2]["config"]["task"]
        try:
            agree &= check(name, how if folder else {**how, "data_dir": None})
        except FileNotFoundError as error:
            print(f"{name}: left out, {str(error).splitlines()[0]}")
    return agree
