"""Prefetch: batches made and sent to the devices ahead of the step that learns from them."""

import collections
import concurrent.futures

import jax
from jax.sharding import Mesh

from pspike_jax.data.batches import train_batch
from pspike_jax.data.split import Split
from pspike_jax.training.settings import TrainSettings
from pspike_jax.training.sharding import local_rows, shard_batch

AHEAD = 2  # batches that wait on the devices, or are being made


class Prefetch:
    """The batches of a run in order, made by a thread that ends with the context.

    Each process reads the rows it holds.
    """

    def __init__(self, split: Split, settings: TrainSettings, mesh: Mesh, *, done: int):
        """Begin to make the batches that follow `done` steps."""
        self._split, self._settings, self._mesh = split, settings, mesh
        self._part = local_rows(settings.batch_size, mesh)
        self._asked = done
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._coming = collections.deque()
        for _ in range(AHEAD):
            self._ask()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_) -> None:
        self._thread.shutdown(cancel_futures=True)

    def next(self) -> dict[str, jax.Array]:
        """Return the batch of the next step, on the devices; IndexError where there is none."""
        batch = self._coming.popleft().result()
        self._ask()
        return batch

    def _ask(self) -> None:
        if self._asked < self._settings.steps:
            self._coming.append(self._thread.submit(self._make, self._asked))
            self._asked += 1

    def _make(self, step: int) -> dict[str, jax.Array]:
        batch = train_batch(
            self._split,
            seed=self._settings.seed,
            step=step,
            batch_size=self._settings.batch_size,
            part=self._part,
        )
        return shard_batch(batch, self._mesh)
