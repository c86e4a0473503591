"""A spiking model and a task so small that a whole run takes a moment.

As a program, `python tests/tiny.py WORKDIR HOST:PORT PROCESSES PROCESS`, it is one process of a run
on a mesh of two by two devices.
"""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.data import Task, from_arrays
from pspike_jax.functional.sampling import sample_spikes
from pspike_jax.training import OptimizerSettings, TrainSettings, fit, make_mesh
from pspike_jax.training.distributed import start_processes


class TinySpiking(nn.Module):
    """Dense -> batch norm -> one sampler -> mean over valid steps -> dropout -> dense.

    Attributes:
      num_classes: number of classes.
      features: H.
    """

    num_classes: int = 3
    features: int = 8

    @nn.compact
    def __call__(
        self,
        inputs,
        lengths=None,
        train=False,
        noise=None,
        sampling="spikes",
        example_ids=None,
        capture=False,
    ):
        """Follow the call of the models of the zoo."""
        drive = nn.Dense(self.features, use_bias=False, name="encoder")(inputs)
        drive = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(drive)
        p = jnp.clip(drive, 0, 1)
        valid = jnp.arange(inputs.shape[1])[None, :, None] < lengths[:, None, None]
        if sampling == "mean":
            spikes = p
        else:
            if noise is None:
                key = self.make_rng("spikes")
                ids = jnp.arange(len(inputs)) if example_ids is None else example_ids
                draw = lambda i: jax.random.uniform(jax.random.fold_in(key, i), drive.shape[1:])
                noise = jax.vmap(draw)(ids)
            spikes = sample_spikes(drive, noise=noise)
        pooled = jnp.sum(spikes * valid, axis=1) / jnp.maximum(lengths[:, None], 1)
        pooled = nn.Dropout(0.1, deterministic=not train)(pooled)
        counts = {
            "spikes": jnp.sum(spikes * valid),
            "probability": jnp.sum(p * valid),
            "steps": jnp.sum(valid),
            "neurons": self.features,
            "fan_out": self.num_classes,
            "neuron_spikes": jnp.sum(spikes * valid, axis=(0, 1)),
            "surrogate": jnp.sum((drive >= 0) & (drive <= 1) & valid),
        }
        aux = {"input": {name: jnp.asarray(count)[None] for name, count in counts.items()}}
        return nn.Dense(self.num_classes, name="head")(pooled), aux


def tiny_task(seed: int = 0) -> Task:
    """Return 120 noisy sequences of 6 steps whose mean tells their class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 120)
    inputs = rng.normal(size=(120, 6, 2)) + labels[:, None, None]
    lengths = rng.integers(3, 7, 120)
    return from_arrays(
        inputs, labels, lengths=lengths, validation=0.2, test=0.2, seed=seed, name="tiny"
    )


def tiny_settings(**changes) -> TrainSettings:
    """Return settings of a run of 40 steps, with the given fields changed."""
    fields = {
        "steps": 40,
        "batch_size": 16,
        "eval_batch_size": 16,
        "log_every": 4,
        "eval_every": 12,
        "checkpoint_every": 8,
        "optimizer": OptimizerSettings(learning_rate=0.01, warmup_steps=4),
    }
    return TrainSettings(**fields | changes)


def job_settings() -> TrainSettings:
    """Return settings of a run of several processes: what is slow there comes less often."""
    return tiny_settings(steps=60, eval_every=40, checkpoint_every=20)


def one_device():
    """Return a mesh of one device, whatever the test set-up has."""
    return make_mesh(devices=jax.devices()[:1])


def main(workdir: str, coordinator: str, processes: str, process: str) -> None:
    """Train as one process of a job."""
    start_processes(
        coordinator=coordinator, processes=int(processes), process=int(process), timeout=60,
        heartbeat=10,
    )
    mesh = make_mesh(data=2, fsdp=2)
    fit(TinySpiking(), tiny_task(), job_settings(), workdir=workdir, mesh=mesh, progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
