"""Writers of metrics: what the programs behind them are handed, by stand-ins for their packages."""

import sys
import types

import pytest

from pspike_jax.training import TensorBoardWriter, WandbWriter

LINES = [
    {"step": 1, "train/loss": 0.5, "train/accuracy": 0.25},
    {"step": 2, "validation/loss": 0.75},
]


class Events:
    """Stands for tensorboardX.SummaryWriter."""

    def __init__(self, folder):
        self.folder, self.scalars, self.flushed = folder, [], 0

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def flush(self):
        self.flushed += 1


def test_tensorboard_gets_each_number_at_its_step(monkeypatch, tmp_path):
    made = []
    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(
        SummaryWriter=lambda folder: made.append(Events(folder)) or made[-1]
    ))
    write = TensorBoardWriter(tmp_path / "events")
    for line in LINES:
        write(line)
    (events,) = made
    assert events.folder == str(tmp_path / "events") and events.flushed == 2
    assert events.scalars == [
        ("train/loss", 0.5, 1), ("train/accuracy", 0.25, 1), ("validation/loss", 0.75, 2)
    ]


def test_wandb_gets_each_line_at_its_step_and_the_options(monkeypatch):
    logged, options = [], []

    def init(**given):
        options.append(given)
        return types.SimpleNamespace(log=lambda numbers, step: logged.append((numbers, step)))

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    write = WandbWriter(project="digits", config={"steps": 3})
    for line in LINES:
        write(line)
    assert options == [{"project": "digits", "config": {"steps": 3}}]
    assert logged == [
        ({"train/loss": 0.5, "train/accuracy": 0.25}, 1), ({"validation/loss": 0.75}, 2)
    ]


@pytest.mark.parametrize(("writer", "package"), [
    (TensorBoardWriter, "tensorboardX"), (WandbWriter, "wandb"),
])
def test_a_package_that_is_not_there_is_named_when_a_writer_is_made(monkeypatch, writer, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=package):
        writer("events") if writer is TensorBoardWriter else writer(project="digits")
