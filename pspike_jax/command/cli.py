"""The program `pspike`.

  pspike models [NAME]            what there is, and what a model is made from
  pspike train CONFIG             train, evaluate, draw; goes on with a run that was killed
  pspike evaluate RUN             the test split again, from the best checkpoint so far
  pspike plan CONFIG              what a run would take, without running it
  pspike prepare                  prepare one of the papers' data sets
  pspike check                    whether this device computes what it should
  pspike report RUN               one page of a run: report.html
  pspike export SOURCE            a trained model for other tools

`pspike COMMAND --help` shows every flag. CONFIG is a file, or the name of one that comes with the
package: arrays, csv, events and wav_folder train on your own files.
"""

import argparse
import difflib
import pathlib
import sys
from collections.abc import Callable, Sequence

import pspike_jax
from pspike_jax.command import huge_pages
from pspike_jax.command.files import read_json
from pspike_jax.command.reader import Reader

# Errors that say what the user has to change.
USER_ERRORS = (ImportError, OSError, TypeError, ValueError)


def program() -> None:
    """Run the command of this process, which is this program and no other that calls it."""
    if sys.argv[1:2] == ["train"]:
        huge_pages.start_again()
    main()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
      arguments: of the program; None takes those of this process.

    Raises:
      SystemExit: with a message of one line, where the user has to change something.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    reader = Reader(prog="pspike", description=__doc__, usage="pspike COMMAND ...")
    reader.add_argument("--version", action="version", version=pspike_jax.__version__)
    reader.add_argument("command", help=argparse.SUPPRESS)
    command = reader.parse_args(words[:1]).command
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(COMMANDS)}"
        reader.error(f"unknown command {command!r}; {hint}")
    try:
        COMMANDS[command](words[1:])
    except USER_ERRORS as error:
        raise SystemExit(f"error: {error}") from error


def _reader(command: str, function: Callable[..., None]) -> Reader:
    return Reader(prog=f"pspike {command}", description=function.__doc__)


def models(arguments: Sequence[str]) -> None:
    """List the models, or describe one: fields, defaults, choices, presets."""
    reader = _reader("models", models)
    reader.add_argument("name", nargs="?", help="of the model to describe; all are listed without")
    reader.add_argument("--supports", help="list those that can: streaming, resets, dt, ...")
    asked = reader.parse_args(arguments)
    if asked.name is not None:
        print(pspike_jax.describe_model(asked.name))
        return
    for name in pspike_jax.list_models(supports=asked.supports):
        found = pspike_jax.describe_model(name)
        print(f"{name:24} {', '.join(found.supports)}")


def train(arguments: Sequence[str]) -> None:
    """Train one config."""
    from pspike_jax.command import job

    job.main(_config_first(arguments), "pspike train")


def plan(arguments: Sequence[str]) -> None:
    """Say what a run of a config would take."""
    from pspike_jax.command import job

    job.main([*_config_first(arguments), "--mode=plan"], "pspike plan")


def _config_first(arguments: Sequence[str]) -> list[str]:
    """Let the config stand first without its flag."""
    if arguments and not arguments[0].startswith("-"):
        return [f"--config={arguments[0]}", *arguments[1:]]
    return list(arguments)


def evaluate(arguments: Sequence[str]) -> None:
    """Evaluate the best checkpoint of a run on its test split, and draw its pictures again."""
    reader = _reader("evaluate", evaluate)
    reader.add_argument("run", type=pathlib.Path, help="workdir of the run")
    asked = reader.parse_args(arguments)
    from pspike_jax.command.outcome import write_report, load_best
    from pspike_jax.training.files import run_folder

    experiment, result = load_best(asked.run)
    write_report(experiment, result, run_folder(asked.run))


def prepare(arguments: Sequence[str]) -> None:
    """Prepare a data set."""
    from pspike_jax.command import prepare as command

    command.main(arguments)


def check(arguments: Sequence[str]) -> None:
    """Compare this device with stored truth, and time its engines."""
    from pspike_jax.check.__main__ import main as check_main

    status = check_main(list(arguments))
    if status:
        raise SystemExit(status)


def report(arguments: Sequence[str]) -> None:
    """Write report.html, one page of a finished run that needs no network."""
    reader = _reader("report", report)
    reader.add_argument("run", type=pathlib.Path, help="workdir of the run")
    reader.add_argument("--output", type=pathlib.Path, help="default: report.html in the workdir")
    asked = reader.parse_args(arguments)
    from pspike_jax.command.page import write_page

    print(write_page(asked.run, asked.output or asked.run / "report.html"))


def export(arguments: Sequence[str]) -> None:
    """Write a trained model for other tools: StableHLO, NIR, or safetensors with a card."""
    reader = _reader("export", export)
    reader.add_argument("source", help="workdir of a run, or the name of a pretrained model")
    reader.add_argument("--format", required=True, choices=["stablehlo", "nir", "safetensors"])
    reader.add_argument("--output", required=True, help="file; of safetensors a folder")
    reader.add_argument("--method", default="call", choices=["call", "step"])
    reader.add_argument("--length", type=int, help="steps of a sequence; open without")
    reader.add_argument("--noise", type=float, help="a number in place of draws")
    reader.add_argument(
        "--metadata", action="store_true", help="of nir: name there what NIR has no node for"
    )
    asked = reader.parse_args(arguments)
    from pspike_jax import export as exporting

    model, variables, shape, about = _trained(asked.source)
    if asked.format == "nir":
        exporting.to_nir(
            model, variables, asked.output, noise=asked.noise, metadata=asked.metadata
        )
    elif asked.format == "safetensors":
        exporting.save(asked.output, model, variables, input_shape=shape, **about)
    else:
        exporting.to_stablehlo(
            model, variables, asked.output, example_shape=shape, method=asked.method,
            noise=asked.noise, length=asked.length,
        )
    print(asked.output)


def _trained(source: str) -> tuple:
    """Return (model, variables, shape of an example, words for a card) of a run or a model."""
    from pspike_jax.pretrained.hub import hub_card
    from pspike_jax.pretrained.models import is_saved

    if source in pspike_jax.list_pretrained() or is_saved(source):
        model, variables, card = pspike_jax.load_pretrained(source)
        return model, variables, tuple(card["input"]["shape"]), hub_card(card)
    folder = pathlib.Path(source)
    read_json(folder / "config.json")  # says whether there is a run
    from pspike_jax.command.outcome import load_best

    experiment, result = load_best(folder)
    return experiment.model, result.variables, experiment.task.train.inputs.shape[1:], {}


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    command.__name__: command
    for command in (models, train, evaluate, plan, prepare, check, report, export)
}
