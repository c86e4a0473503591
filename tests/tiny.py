"""A spiking model and a task so small that a whole run takes a moment.

As a program, `python tests/tiny.py WORKDIR`, it makes one training run that a test can kill; with
`HOST:PORT PROCESSES PROCESS` after that, or `found` where the environment says as much, one process
of a run on a mesh of two by two devices.
"""

import dataclasses
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.data import Task, from_arrays
from pspike_jax.functional.sampling import sample_spikes
from pspike_jax.nn.roles import role
from pspike_jax.training import OptimizerSettings, TrainSettings, fit, make_mesh
from pspike_jax.training.distributed import start_processes


@dataclasses.dataclass(frozen=True)
class TinyConfig:
    """Sizes of the tiny model, as every model of the zoo has them in `config`.

    Attributes:
      num_outputs: number of outputs.
      features: H.
      pool: "mean", or "none" for outputs at every step.
      vocab_size: None, the inputs are numbers.
    """

    num_outputs: int = 3
    features: int = 8
    pool: str = "mean"
    vocab_size: int | None = None


def tiny(**fields) -> "TinySpiking":
    """Return the tiny model with the given fields of its config."""
    return TinySpiking(TinyConfig(**fields))


class TinySpiking(nn.Module):
    """Dense -> batch norm -> one sampler -> mean over valid steps -> dropout -> dense.

    Attributes:
      config: sizes.
      stochastic: False for mean-field passes alone, which draw nothing.
    """

    config: TinyConfig = TinyConfig()
    stochastic: bool = True

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
        features = self.config.features
        kernel = role(nn.initializers.lecun_normal(), ("inputs", "features"), "decay")
        bias = role(nn.initializers.zeros, ("features",), "no_decay")
        scale = role(nn.initializers.ones, ("features",), "no_decay")
        drive = nn.Dense(features, use_bias=False, kernel_init=kernel, name="encoder")(inputs)
        drive = nn.BatchNorm(
            use_running_average=not train, momentum=0.9, scale_init=scale, bias_init=bias,
            name="norm",
        )(drive)
        p = jnp.clip(drive, 0, 1)
        valid = jnp.arange(inputs.shape[1])[None, :, None] < lengths[:, None, None]
        inside = jnp.float32((drive >= 0) & (drive <= 1) & valid)
        valid = jnp.float32(valid)
        if sampling == "mean" or not self.stochastic:
            spikes = p
        else:
            if noise is None:
                key = self.make_rng("spikes")
                ids = jnp.arange(len(inputs)) if example_ids is None else example_ids
                draw = lambda i: jax.random.uniform(jax.random.fold_in(key, i), drive.shape[1:])
                noise = jax.vmap(draw)(ids)
            spikes = sample_spikes(drive, noise=noise)
        if self.config.pool == "mean":
            steps = jnp.maximum(lengths[:, None], 1).astype(jnp.float32)
            spread = jnp.sum(spikes * valid, axis=1) / steps
        else:
            spread = spikes
        spread = nn.Dropout(0.1, deterministic=not train)(spread)
        one = jnp.float32(1)
        counts = {
            "spikes": jnp.sum(spikes * valid),
            "probability": jnp.sum(p * valid),
            "steps": jnp.sum(valid),
            "neurons": one * features,
            "fan_out": one * self.config.num_outputs,
            "neuron_spikes": jnp.sum(spikes * valid, axis=(0, 1)),
            "surrogate": jnp.sum(inside),
        }
        counts = {name: jnp.asarray(count)[None] for name, count in counts.items()}
        aux = {"sites": {"input": counts}, "losses": {}, "macs": {"encoder": counts["steps"][0]}}
        head = nn.Dense(
            self.config.num_outputs, kernel_init=kernel, bias_init=bias, name="head"
        )
        return head(spread), aux


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


def main(workdir: str, *job: str) -> None:
    """Train on one device, or as one process of a job."""
    mesh, settings = one_device, tiny_settings(steps=200)
    if job:
        told = (None,) * 3 if job == ("found",) else (job[0], int(job[1]), int(job[2]))
        options = dict(zip(("coordinator", "processes", "process"), told))
        start_processes(**options, timeout=120, heartbeat=30)
        mesh, settings = lambda: make_mesh(data=2, fsdp=2), job_settings()
    fit(TinySpiking(), tiny_task(), settings, workdir=workdir, mesh=mesh(), progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
