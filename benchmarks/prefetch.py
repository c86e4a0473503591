"""Share of a training step that is spent waiting for data, for the experiment of each config.

  python -m benchmarks.prefetch

Each config trains for 12 steps, as the main job does it, at its own batch size, on a prepared set
of random numbers in the stored form and shape of its data set. There are as many examples as the
steps read, and what opening the set does not map is dropped from the memory of the system first,
so batches are read from the disk. The model is the config's with one layer of 16 neurons: what a
step computes is as little as can be, and the share of waiting an upper bound for this machine. The
numbers are those of metrics.jsonl, without its first line, which counts compilation.
"""

import importlib
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import timing
from pspike_jax.command.experiment import build
from pspike_jax.data import Split, train_batch
from pspike_jax.data.prepared import write_prepared
from pspike_jax.data.scaled import Scaling
from pspike_jax.data.source import Source
from pspike_jax.data.stand_in import SHAPES
from pspike_jax.training import fit
from pspike_jax.training.clock import PARTS
from pspike_jax.training.files import read_lines

CONFIGS = (
    "listops", "text", "retrieval", "image", "pathfinder", "pathx", "smnist", "psmnist", "sc10",
    "sc35", "shd", "ssc", "gsc",
)
STEPS = 12
LINES = 4
GRAY = Scaling(255.0, np.array([0.48], np.float32), np.array([0.24], np.float32))


class Stored(NamedTuple):
    """How one example of a data set lies on the disk.

    Attributes:
      shape: of its inputs.
      dtype: of its inputs.
      high: random integers are below it; None for normal floats.
      scaling: of a set that has one.
    """

    shape: tuple[int, ...]
    dtype: str
    high: int | None
    scaling: Scaling | None = None


STORED = {
    "listops": Stored((2000,), "uint8", 18),
    "text": Stored((4096,), "uint8", 135),
    "retrieval": Stored((2, 4000), "uint8", 98),
    "image": Stored((1024, 1), "uint8", 256, GRAY),
    "pathfinder32": Stored((1024, 1), "uint8", 256, Scaling(255.0)),
    "pathfinder128": Stored((16_384, 1), "uint8", 256, Scaling(255.0)),
    "smnist": Stored((784, 1), "uint8", 256, Scaling(255.0)),
    "psmnist": Stored((784, 1), "uint8", 256, Scaling(255.0)),
    "sc10": Stored((16_000, 1), "int16", 1 << 15, Scaling(32_768.0)),
    "sc35": Stored((16_000, 1), "int16", 1 << 15, Scaling(32_768.0)),
    "shd": Stored((250, 140), "uint16", 2, Scaling(1.0)),
    "ssc": Stored((300, 140), "uint16", 2, Scaling(1.0)),
    "gsc": Stored((98, 40), "float32", None),
}


def random_source(dataset: str, batch_size: int, steps: int) -> Source:
    """Return random examples in the stored form of a data set.

    Args:
      dataset: a key of STORED.
      batch_size: of training; validation and test get as many examples.
      steps: batches for training.

    Returns:
      A Source of sequences of full length.
    """
    shape, dtype, high, scaling = STORED[dataset]
    _, num_classes, vocab_size = SHAPES[dataset]
    rng = np.random.default_rng(0)

    def blocks() -> Iterator[tuple[np.ndarray, ...]]:
        for _ in range(steps + 2):
            whole = (batch_size, *shape)
            inputs = (
                rng.standard_normal(whole, dtype)
                if high is None
                else rng.integers(0, high, whole, dtype)
            )
            length = shape[len(source.lengths_shape)]
            lengths = np.full((batch_size, *source.lengths_shape), length, np.int32)
            yield inputs, lengths, rng.integers(0, num_classes, batch_size, np.int32)

    source = Source(
        name=f"random numbers in the shape of {dataset}",
        counts={"train": steps * batch_size, "validation": batch_size, "test": batch_size},
        shape=shape,
        dtype=dtype,
        num_classes=num_classes,
        vocab_size=vocab_size,
        blocks=blocks(),
        scaling=scaling and (lambda inputs: scaling),
        settings={},
    )
    return source


def shrink(config: Any, data_dir: str | os.PathLike, steps: int) -> None:
    """Make the model of a config (a ConfigDict) tiny and its run short; batch and shapes stay."""
    config.task.data_dir = os.fspath(data_dir)
    tiny = {"n_layers": 1, "d_model": 16, "d_state": 4}
    config.model.update({"widths": (16,)} if "widths" in config.model else tiny)
    config.optimizer.update(warmup_steps=0, decay_steps=None)
    config.training.update(
        steps=steps, log_every=steps // LINES, eval_every=steps, checkpoint_every=steps,
        eval_batch_size=config.training.batch_size,
    )


def drop_from_memory(folder: pathlib.Path) -> None:
    """Ask the system to forget what it keeps of files, so that the next to read them waits."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def where_time_goes(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the lines of metrics.jsonl.

    Args:
      lines: in order, a line for each interval of equal length.

    Returns:
      Mean seconds of a step as "data_s", "compute_s" and "save_s", the share of the first in their
      sum as "waiting", and "waiting_by_line", all without the first line.
    """
    lines = lines[1:]
    seconds = {f"{part}_s": np.mean([line[f"time/{part}"] for line in lines]) for part in PARTS}
    found = {name: round(float(mean), 9) for name, mean in seconds.items()}
    shares = [round(line["time/waiting_for_data"], 6) for line in lines]
    waiting = float(seconds["data_s"] / sum(seconds.values()))
    return found | {"waiting": round(waiting, 6), "waiting_by_line": shares}


def seconds_of_a_batch(split: Split, batch_size: int, steps: int) -> float:
    """Return the median time of making a batch of what memory holds, with nothing beside it."""
    seconds = []
    for step in range(steps):
        start = time.perf_counter()
        train_batch(split, seed=0, step=step, batch_size=batch_size)
        seconds.append(time.perf_counter() - start)
    return round(float(np.median(seconds)), 9)


def train(name: str, steps: int, batch_size: int | None = None) -> timing.Record:
    """Train one config as the main job does.

    Args:
      name: of the config.
      steps: a multiple of LINES.
      batch_size: None for the config's.

    Returns:
      The record.
    """
    config = importlib.import_module(f"experiments.configs.{name}").get_config()
    batch_size = config.training.batch_size = batch_size or config.training.batch_size
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shrink(config, folder, steps)
        prepared = folder / config.task.dataset
        write_prepared(random_source(config.task.dataset, batch_size, steps), prepared)
        job = build(config.to_dict())
        drop_from_memory(prepared)
        fit(job.model, job.task, job.training, workdir=folder / "run", mesh=job.mesh,
            progress=False)
        shape = [batch_size, *job.task.train.inputs.shape[1:]]
        found = where_time_goes(read_lines(folder / "run" / "metrics.jsonl"))
        found["batch_s"] = seconds_of_a_batch(job.task.train, batch_size, steps)
    return {"config": name, "inputs": shape, "steps": steps} | found


def measure(quick: bool) -> list[timing.Record]:
    """Train all configs, or one with tiny batches."""
    return [train("gsc", 8, 8)] if quick else [train(name, STEPS) for name in CONFIGS]


def table(records: Sequence[timing.Record]) -> str:
    """Return the records as lines of text."""
    lines = [f"{'config':12}{'inputs':>18}{'step ms':>10}{'batch ms':>10}{'waiting':>10}"]
    for r in records:
        step = 1e3 * sum(r[f"{part}_s"] for part in PARTS)
        shape = " x ".join(map(str, r["inputs"]))
        lines.append(
            f"{r['config']:12}{shape:>18}{step:10.4g}{1e3 * r['batch_s']:10.3g}{r['waiting']:10.2%}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    timing.main("prefetch", measure, tabulate=table)
