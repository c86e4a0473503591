"""Evaluate a pretrained model on its whole test set, and compare with what its card says.

  python -m experiments.reevaluate --name=pspikessm_digits
  python -m experiments.reevaluate --name=NAME --data_dir=DIR

DIR is the folder of prepared data, for a model of such. The test set must be the card's, by its
SHA-256. Noise has the card's seed unless --seed names another, which repeats the measurement with
other draws. The command ends with status 1 where a figure differs by more than four standard errors
of the draws and two examples: engines and devices round differently, and a picture between two
classes may fall on either side.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from experiments.cards import fingerprint
from pspike_jax.command.experiment import build
from pspike_jax.command.outcome import test
from pspike_jax.pretrained import list_pretrained, load_pretrained

ERRORS, EXAMPLES = 4, 2  # that a figure may differ by


def reevaluate(
    name: str, *, data_dir: str | None = None, seed: int | None = None, draws: int | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Evaluate a pretrained model as it was evaluated after training.

    Args:
      name: of the model.
      data_dir: of the prepared data; None for that of the card.
      seed: of the noise; None for that of the card.
      draws: of the noise, at least 2; None for those of the card.

    Returns:
      The evaluation on the card, and the one found now.

    Raises:
      FileNotFoundError: the data are not there.
      ValueError: nobody knows the model, or the test set is not that of the card.
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
    """Compare two evaluations of one test set.

    Args:
      card: {way: {"mean", "sem", "examples"}}.
      now: the same.

    Returns:
      A table, and whether all differences are within what noise and rounding explain.
    """
    lines, agree = [f"{'':16}{'card':>10}{'now':>10}{'difference':>12}{'allowed':>10}"], True
    for way, said in card.items():
        found = now[way]
        allowed = ERRORS * math.hypot(said["sem"], found["sem"]) + EXAMPLES / said["examples"]
        difference = found["mean"] - said["mean"]
        agree &= abs(difference) <= allowed
        lines.append(
            f"{way.replace('_', ' '):16}{said['mean']:10.2%}{found['mean']:10.2%}"
            f"{difference:12.2%}{allowed:10.2%}"
        )
    return "\n".join(lines), agree


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate the model that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.reevaluate", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, choices=list_pretrained())
    parser.add_argument("--data_dir", help="folder of prepared data")
    parser.add_argument("--seed", type=int, help="of the noise")
    parser.add_argument("--draws", type=int, help="of the noise, at least 2")
    asked = parser.parse_args(arguments)
    logging.set_verbosity(logging.WARNING)
    try:
        table, agree = compare(*reevaluate(**vars(asked)))
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    print(table)
    if not agree:
        sys.exit("error: these are not the figures of the card")


if __name__ == "__main__":
    main()
