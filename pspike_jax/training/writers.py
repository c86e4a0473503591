"""Callbacks of `fit` that hand its metrics to other programs; each is imported when it is made."""

import os
from typing import Any


class TensorBoardWriter:
    """Writes each line of metrics for TensorBoard, by the package tensorboardX."""

    def __init__(self, folder: str | os.PathLike):
        """Open a folder of events, where TensorBoard will look; needs tensorboardX."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(os.fspath(folder))

    def __call__(self, line: dict[str, Any]) -> None:
        """Write a line: "step", and numbers by name."""
        for name, value in line.items():
            if name != "step":
                self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()


class WandbWriter:
    """Sends each line of metrics to Weights & Biases, by the package wandb."""

    def __init__(self, **options: Any):
        """Begin a run with the options of `wandb.init`: project, name, config, ..."""
        import wandb

        self._run = wandb.init(**options)

    def __call__(self, line: dict[str, Any]) -> None:
        """Send a line: "step", and numbers by name."""
        numbers = {name: value for name, value in line.items() if name != "step"}
        self._run.log(numbers, step=line["step"])
